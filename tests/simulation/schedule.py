"""Deterministic simulation: the real code of statevault on a simulated storage, clock and scheduler.

A seed gives one schedule: who acts (:mod:`tests.simulation.actors`), in which order, at every call of a storage
(:mod:`tests.simulation.scheduler`), what goes wrong (:mod:`tests.simulation.storage`), and what the clocks say
(:mod:`tests.simulation.clock`). After every step all invariants are checked (:mod:`tests.simulation.invariants`), and
when all has come to rest what is left. The same seed gives the same schedule, step by step, in every process with
``PYTHONHASHSEED=0`` (``python -m tests.simulation`` sees to it): the code under test iterates over sets of strings.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from statevault.state_persistence import StateStore
from statevault.state_persistence.pruning.prune import prune
from tests.simulation.actors import Actor, World
from tests.simulation.beginnings import Beginnings
from tests.simulation.casts import crowd, duel
from tests.simulation.clock import Clock
from tests.simulation.invariants import Invariants
from tests.simulation.scheduler import Scheduler, ViolationError
from tests.simulation.storage import Faults, Objects
from tests.state_persistence.components import Files, Folder

__all__ = ["Outcome", "Variant", "run_schedule"]


@dataclass(frozen=True, slots=True)
class Variant:
    """The schedule of a seed with something left out.

    Attributes:
        order: Another seed for the order of calls; 0 for that of the schedule.
        without: The numbers of actors that do nothing, from 0.
        is_calm: Whether no call fails, nobody dies, and no clock jumps.
        whole_lists: Whether a LIST is one request.
    """

    order: int = 0
    without: frozenset[int] = frozenset()
    is_calm: bool = False
    whole_lists: bool = False


PLAIN = Variant()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a schedule went.

    Attributes:
        seed: Its seed.
        actors: How many took part.
        steps: How many calls of storages it had.
        reached: How often things came about: calls that went well, errors, deaths.
        violation: What did not hold, None if all held.
        trace: What happened, a line for each call.
    """

    seed: int
    actors: int
    steps: int
    reached: Counter[str]
    violation: str | None
    trace: list[str]


class Schedule:
    """One schedule.

    Args:
        seed: All follows from it.
        beginnings: What is there at first.
        variant: What is left out.

    Attributes:
        actors: How many actors there are, those that do nothing included.
    """

    def __init__(self, seed: int, beginnings: Beginnings, variant: Variant = PLAIN) -> None:
        self._beginnings = beginnings
        self._variant = variant
        source = random.Random(seed)
        sources = [random.Random(source.randbytes(16)) for _ in range(5)]
        self._source = sources[0]
        if variant.order:
            sources[1] = random.Random(f"{seed} {variant.order}")
        self._scheduler = Scheduler(sources[1], self._after_step)
        self._clock = Clock(self._scheduler, sources[2])
        self._faults = Faults(sources[3])
        self._contents: list[Files] = []
        self._is_duel = self._source.random() < 0.6
        page_size = self._source.choice((2, 1000, 1000) if self._is_duel else (2, 2, 5, 1000))
        page_size = 1000 if variant.whole_lists else page_size
        has_create_only = self._source.random() < 0.5
        self._stores = [
            Invariants(
                Objects(self._clock, page_size=page_size, has_create_only=has_create_only),
                self._scheduler,
                self._contents,
            )
            for _ in range(2)
        ]
        self._world = World(
            self._scheduler,
            self._clock,
            self._faults,
            (self._stores[0], self._stores[1]),
            self._contents,
            # Without create-only puts nothing tells two writers of one name apart (docs/format.md, section 8).
            same_names=has_create_only and self._source.random() < 0.3,
        )
        self._secrets = sources[4]
        self._files: Files = {}
        self.actors = 0

    def run(self) -> None:
        """Run it.

        Raises:
            ViolationError: An invariant does not hold.
        """
        try:
            self._begin()
            self._act()
            self._rest()
        finally:
            self._scheduler.end()

    @property
    def steps(self) -> int:
        """How many calls of storages there were."""
        return self._scheduler.steps

    @property
    def reached(self) -> Counter[str]:
        """How often things came about."""
        return self._scheduler.reached

    @property
    def trace(self) -> list[str]:
        """What happened."""
        return [
            f"{step:5}  {who:24} {' '.join(call):70} {outcome}" for step, who, call, outcome in self._scheduler.trace
        ]

    def _begin(self) -> None:
        """Put a few states into the store, made by somebody whom nobody disturbed."""
        beginning = self._beginnings.of(self._source.choice((1, 2, 3) if self._is_duel else (0, 1, 2, 2, 3)))
        substitutes = self._beginnings.substitutes
        substitutes.use(self._scheduler, self._clock, self._secrets)
        self._files = beginning.files
        self._scheduler.process("first")  # it has made the beginning; its names are not made again
        self._contents.extend(beginning.contents)
        store = self._stores[0]
        for key, content in beginning.objects.items():
            store.objects.put(key, content, create_only=False)
        store.look()
        for state in store.visible:
            store.acknowledge(state.state, state.sequence, store.last_acknowledged)

    def _act(self) -> None:
        self._clock.is_calm = False
        if self._is_duel:
            # Few do a thing each, and nothing fails: it is the order alone that counts, and more orders are tried.
            roles = duel(self._source, same_names=self._world.same_names)
        else:
            self._faults.errors = self._source.choice((0.0, 0.01, 0.05))
            self._faults.deaths = self._source.choice((0.0, 0.005, 0.02))
            self._faults.repeats = self._source.choice((0.0, 0.0, 0.02))
            roles = crowd(self._source, same_names=self._world.same_names)
        if self._variant.is_calm:
            self._clock.is_calm = True
            self._faults.errors = self._faults.deaths = self._faults.repeats = 0.0
        most = 1 if self._is_duel else 3
        actors = [
            Actor(
                self._world,
                role,
                random.Random(self._source.randbytes(8)),
                steps=self._source.randint(1, most),
                store=self._stores[0],
                files=dict(self._files),
            )
            for role in roles
        ]
        if "copier" in roles and self._source.random() < 0.5:
            # Somebody is at work at the other end as well.
            source = random.Random(self._source.randbytes(8))
            actors.append(Actor(self._world, "agent", source, steps=2, store=self._stores[1], files=dict(self._files)))
        self.actors = len(actors)
        for number, actor in enumerate(actors):
            if number not in self._variant.without:
                actor.start()
        self._scheduler.run()
        self._check_that_nobody_hangs()
        self._after_step()

    def _rest(self) -> None:
        """Everybody has gone: what is left is collected, twice."""
        self._faults.errors = self._faults.deaths = self._faults.repeats = 0.0
        process = self._scheduler.process("last")
        self._clock.is_calm = True
        self._clock.now_s += 60 * 86400  # later than the clock of anybody was

        def clear_away(invariants: Invariants) -> None:
            storage = self._world.storage(process, invariants.objects)
            invariants.objects.page_size = 1000
            store = StateStore(storage)
            store.register("folder", folder := Folder())
            if store.exists():
                for _ in range(2):
                    # What lands when its state was given up is found only by a look through the whole store.
                    if self._faults.any_late or invariants.any_given_up:
                        store.gc(stale_after=timedelta(0))
                    else:
                        prune(storage, store._catalog, [], by="last", reason="test", stale_after=timedelta(0))
                if invariants.visible:
                    # All of them were decoded when they appeared; the real reader has to agree.
                    key = self._source.choice(invariants.visible)
                    since = self._scheduler.steps
                    store.load_state(key.state)
                    invariants.check_loaded(key.state, folder.files, since)
            store.close()

        for invariants in self._stores:
            self._scheduler.spawn(process, "main", lambda invariants=invariants: clear_away(invariants))  # type: ignore[misc]
            self._scheduler.run()
            self._check_that_nobody_hangs()
            invariants.check_rest()
        if self._scheduler.violation is not None:
            raise self._scheduler.violation

    def _after_step(self) -> None:
        self._clock.step()
        for store in self._stores:
            if store.objects.changed:
                store.look()

    def _check_that_nobody_hangs(self) -> None:
        hanging = self._scheduler.parked()
        if hanging:
            raise ViolationError(f"{hanging} waits for ever")


def run_schedule(seed: int, beginnings: Beginnings, variant: Variant = PLAIN) -> Outcome:
    """Run the schedule of a seed."""
    schedule = Schedule(seed, beginnings, variant)
    violation: str | None = None
    try:
        schedule.run()
    except ViolationError as error:
        violation = str(error)
    return Outcome(
        seed, schedule.actors, schedule.steps, schedule.reached, violation, schedule.trace if violation else []
    )
