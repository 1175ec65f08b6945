"""What the processes of a simulation do: saves, loads, removals, pins, copies, in any order, again after a death."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from statevault.errors import (
    PinConflictError,
    SaveFencedError,
    SaveSupersededError,
    StateExistsError,
    StateNotFoundError,
    StatePrunedError,
    StorageError,
)
from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.prune import prune
from statevault.storage import Storage
from statevault.storage.retry import RetryingStorage, RetryPolicy
from tests.simulation.clock import Clock
from tests.simulation.invariants import CONTENT, Invariants
from tests.simulation.scheduler import Process, Scheduler, ViolationError
from tests.simulation.storage import Faults, Objects, SimulatedStorage
from tests.state_persistence.components import Files, Folder

__all__ = ["CHUNK", "ROLES", "Actor", "World"]

CHUNK = 64
"""Bytes of a chunk in a simulation: files are small, and have several all the same."""

_UP_TO = 3
"""Files of a state, chunks of a file."""


@dataclass(slots=True)
class World:
    """Where actors act.

    Attributes:
        scheduler: Whose turn it is.
        clock: What time it is.
        faults: What goes wrong.
        stores: The store, and the one that copies are made to.
        contents: All that was ever saved; a state's metadata has the index.
        same_names: Whether actors choose names that others may choose as well.
    """

    scheduler: Scheduler
    clock: Clock
    faults: Faults
    stores: tuple[Invariants, Invariants]
    contents: list[Files]
    same_names: bool

    def storage(self, process: Process, objects: Objects) -> Storage:
        """A new client; every other one tries again what failed for the moment."""
        storage = SimulatedStorage(objects, process, self.scheduler, self.faults)
        if process.index % 2:
            return storage
        chance = self.faults.source.random
        return RetryingStorage(
            storage, RetryPolicy(max_attempts=3), clock=lambda: self.clock.now_s, sleep=lambda _: None, jitter=chance
        )


ROLES: dict[str, dict[str, int]] = {
    "agent": {"save": 8, "save_twice": 2, "save_on": 2, "load_latest": 2, "keep_newest": 3, "states": 1},
    "writer": {"save": 6, "save_named": 2, "save_on": 2},
    "reader": {"load_latest": 4, "load_one": 3, "verify": 2, "states": 2, "latest": 2},
    "pruner": {"give_up": 3, "remove_one": 4, "keep_newest": 3, "collect": 1},
    "collector": {"collect": 4, "give_up": 1, "remove_one": 2},
    "pinner": {"pin": 5, "unpin": 3, "remove_one": 1},
    "copier": {"copy": 3, "copy_latest": 1},
    "rival": {"save_named": 1},
    "saver": {"save": 3, "save_on": 2},
    "remover": {"remove_newest": 3, "remove_all": 2, "remove_one": 1, "keep_newest": 1},
    "sweeper": {"sweep": 2, "collect": 1},
    "doubter": {"give_up": 1, "collect": 1},
    "loader": {"load_latest": 1, "load_one": 1},
    "fixer": {"pin": 1},
}

_EXPECTED = (
    SaveFencedError,
    SaveSupersededError,
    StateExistsError,
    PinConflictError,
    StatePrunedError,
    StateNotFoundError,
)
"""What may become of a call in which no storage failed: others were at work."""


class Actor:
    """One of those who use the store: a program that goes on in a new process when its process dies.

    Args:
        world: Where.
        role: What it does, out of :data:`ROLES`.
        source: Of its decisions.
        steps: How many things it does.
        store: Which store it uses; the other one is where it copies to.
        files: What it saves first.
    """

    def __init__(
        self, world: World, role: str, source: random.Random, *, steps: int, store: Invariants, files: Files
    ) -> None:
        self.world = world
        self.role = role
        self.store = store
        self.files = files
        self._source = source
        self._left = steps
        self._lives = 3
        self._pins = 0

    def start(self) -> None:
        """Begin, in a new process."""
        process = self.world.scheduler.process(self.role)
        process.at_death = self._died
        if self.world.clock.skews and self._source.random() < 0.5:
            self.world.clock.set_clock(process)
        self.world.scheduler.spawn(process, "main", lambda: self._run(process))

    def _died(self) -> None:
        self._lives -= 1
        if self._lives and self._left and self._source.random() < 0.7:
            self.start()

    def _run(self, process: Process) -> None:
        self._process = process
        self._storage = self.world.storage(process, self.store.objects)
        store = StateStore(self._storage, incremental=self._source.random() < 0.9)
        try:
            self._folder = Folder(self.files)
            store.register("folder", self._folder)
            if self._source.random() < 0.2:
                self._do("load_latest", store)
            weights = ROLES[self.role]
            while self._left:
                self._left -= 1
                (what,) = self._source.choices(list(weights), list(weights.values()))
                self._do(what, store)
            store.close()
        finally:
            store._staging.close()

    def _do(self, what: str, store: StateStore) -> None:
        """Do one thing. An error must have a cause: a call that failed, a removal, a verdict."""
        scheduler = self.world.scheduler
        scheduler.note(f"begins {what}", call=("", ""))
        failed = self._process.failed_calls
        outcome = ""
        try:
            getattr(self, f"_{what}")(store)
        except StorageError as error:
            if type(error) is StorageError and self._process.failed_calls == failed:
                raise
            outcome = repr(error)
            scheduler.reached[type(error).__name__] += 1
        except _EXPECTED as error:
            outcome = repr(error)
            scheduler.reached[type(error).__name__] += 1
        else:
            scheduler.reached[what] += 1
        scheduler.note(f"{what}: {outcome or 'done'}", call=("", ""))

    # -- saving

    def _content(self) -> dict[str, int]:
        """Change a little of what is saved next."""
        files = dict(self._folder.files)
        for _ in range(self._source.choice((0, 1, 1, 2))):
            _change(files, self._source)
        self._folder.files = files
        self.world.contents.append(dict(files))
        return {CONTENT: len(self.world.contents) - 1}

    def _save(self, store: StateStore, name: str | None = None, base: str | None = None) -> None:
        after = self.store.last_acknowledged
        self._acknowledged(store.save_state(name=name, metadata=dict(self._content()), base=base).name, after)

    def _save_named(self, store: StateStore) -> None:
        if self.world.same_names:
            name = f"best-{self._source.randint(1, 2)}.state"
        else:
            name = f"mine-{self._process.index}-{self._left}.state"
        self._save(store, name)

    def _save_on(self, store: StateStore) -> None:
        names = store.names()
        self._save(store, base=self._source.choice(names) if names else None)

    def _save_twice(self, store: StateStore) -> None:
        """Save behind one's own back, and something else meanwhile."""
        after = self.store.last_acknowledged
        futures = [store.save_state_async(metadata=dict(self._content())) for _ in range(self._source.randint(1, 2))]
        if self._source.random() < 0.5:
            self._do(self._source.choice(("load_latest", "keep_newest", "states")), store)
        for future in futures:
            try:
                self._acknowledged(future.result().name, after)
            except (StorageError, SaveFencedError, SaveSupersededError) as error:
                self.world.scheduler.note(repr(error), call=("", ""))

    def _acknowledged(self, state: str, after: object) -> None:
        seen = self.store.seen.get(state)
        if seen is None:
            raise ViolationError(f"{state} was acknowledged, and was never visible")
        self.store.acknowledge(state, seen.key.sequence, after)  # type: ignore[arg-type]

    # -- reading

    def _load_latest(self, store: StateStore) -> None:
        since = self.world.scheduler.steps
        try:
            loaded = store.load_state("latest")
        except StatePrunedError:
            raise
        except StateNotFoundError:
            self.store.check_latest(None, since)
            raise
        self.store.check_loaded(loaded.name, self._folder.files, since)
        self.store.check_latest(loaded.name, since)

    def _load_one(self, store: StateStore) -> None:
        if name := self._any(store):
            since = self.world.scheduler.steps
            self._unless_gone(name, lambda: store.load_state(name))
            self.store.check_loaded(name, self._folder.files, since)

    def _verify(self, store: StateStore) -> None:
        if name := self._any(store):
            self._unless_gone(name, lambda: store.verify(name))

    def _states(self, store: StateStore) -> None:
        since = self.world.scheduler.steps
        self.store.check_listed([info.name for info in store.states()], since)

    def _latest(self, store: StateStore) -> None:
        since = self.world.scheduler.steps
        info = store.latest()
        self.store.check_latest(None if info is None else info.name, since)

    # -- retention

    def _keep_newest(self, store: StateStore) -> None:
        names = store.names()
        self._remove(store, names[: -self._source.randint(1, 2)])

    def _remove_one(self, store: StateStore) -> None:
        if name := self._any(store):
            self._remove(store, [name])

    def _remove_newest(self, store: StateStore) -> None:
        self._remove(store, store.names()[-1:])

    def _remove_all(self, store: StateStore) -> None:
        self._remove(store, store.names())

    def _remove(self, store: StateStore, names: list[str]) -> None:
        self.store.removable.update(names)
        # Mostly without a look at others: a writer that is taken for dead has nothing more to lose.
        by_default = self._source.random() < 0.7
        removed = store.remove(names).removed if by_default else self._prune(store, names)
        for state in removed:
            self.store.check_gone(state)

    def _give_up(self, store: StateStore) -> None:
        """Take everybody else for dead."""
        self._prune(store, [])

    def _sweep(self, store: StateStore) -> None:
        """Clear away what others have removed."""
        self._remove(store, [])

    def _prune(self, store: StateStore, names: list[str]) -> tuple[str, ...]:
        stale_after = timedelta(seconds=self._source.choice((0.0, 0.0, 1.0, 3600.0)))
        return prune(
            self._storage, store._catalog, names, by=store._writer, reason="test", stale_after=stale_after
        ).removed

    def _collect(self, store: StateStore) -> None:
        store.gc(stale_after=timedelta(seconds=self._source.choice((0.0, 86400.0, 86400.0))))

    # -- pins

    def _pin(self, store: StateStore) -> None:
        if name := self._any(store):
            self._pins += 1
            pin = f"pin-{self._process.index}-{self._pins}"
            store.pin(name, pin)
            self.store.pin_holds(name, pin)

    def _unpin(self, store: StateStore) -> None:
        held = sorted((state, pin) for state, pins in self.store.pinned.items() for pin in pins)
        if held:
            state, pin = self._source.choice(held)
            self.store.pinned[state].discard(pin)
            store.unpin(state, pin)

    # -- copies

    def _copy(self, store: StateStore, states: list[str] | None = None) -> None:
        there = next(other for other in self.world.stores if other is not self.store)
        after = there.last_acknowledged
        with StateStore(self.world.storage(self._process, there.objects)) as target:
            report = store.copy_states(target, states)
            if report.damaged:
                raise ViolationError(f"a copy found damage: {report.damaged[0].error}")
            for state in report.copied:
                assert state.target is not None
                seen = there.seen.get(state.target)
                if seen is None:
                    raise ViolationError(f"{state.target} was copied, and was never visible")
                there.acknowledge(state.target, seen.key.sequence, after)
                if seen.content != self.store.seen[state.state].content:
                    raise ViolationError(f"{state.state} was copied as {state.target}, with other content")

    def _copy_latest(self, store: StateStore) -> None:
        self._copy(store, ["latest"])

    def _any(self, store: StateStore) -> str | None:
        """Some state, as far as one knows; often the newest one."""
        names = store.names()
        if not names:
            return None
        return names[-1] if self._source.random() < 0.4 else self._source.choice(names)

    def _unless_gone(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except StatePrunedError:
            self.store.check_gone(name)
            raise
        except StateNotFoundError as error:
            raise ViolationError(f"{name} was there, and then it was said that it never was: {error}") from error


def _change(files: Files, source: random.Random) -> None:
    """Change a chunk, or a whole file."""
    name = source.choice("abc"[:_UP_TO])
    content = files.get(name, b"")
    if not content or source.random() < 0.2:
        files[name] = b"".join(_chunk(source) for _ in range(source.randint(1, _UP_TO)))[: source.choice((7, 999))]
    elif source.random() < 0.1:
        del files[name]
    else:
        start = source.randrange(len(content)) // CHUNK * CHUNK
        files[name] = content[:start] + _chunk(source)[: len(content) - start] + content[start + CHUNK :]


def _chunk(source: random.Random) -> bytes:
    return source.randbytes(CHUNK) if source.random() < 0.7 else bytes([source.randrange(256)]) * CHUNK
