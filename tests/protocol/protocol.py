"""What must hold, whoever does what in which order, and whoever stops where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.protocol.explorer import Claim, Exploration, Key, Store, System, Task, run_alone
from tests.protocol.pinner import Pinner
from tests.protocol.pruner import Pruner
from tests.protocol.reader import Reader
from tests.protocol.store import (
    ANOTHER_RUN,
    WIPED,
    all_that_lands,
    committed,
    identity,
    landings,
    objects_of,
    visible_once,
)
from tests.protocol.wiper import Wiper
from tests.protocol.writer import Writer

__all__ = ["Actor", "Scenario"]

Actor: TypeAlias = Writer | Pruner | Pinner | Reader | Wiper
_NOTES = {"visible once", "window", "wiped"}
_NEVER_GARBAGE = {"id", "tombstone", "abort", "intent", "late", *_NOTES}


@dataclass(frozen=True)
class Scenario:
    """Who works on a store at the same time.

    Attributes:
        actors: By name.
        store: What lies there at the start.
        tidies: The kind of prune that cleans up when all have stopped; None to leave that unchecked.
    """

    actors: Mapping[str, Actor]
    store: Store = field(default_factory=lambda: committed("B"))
    tidies: type[Pruner] | None = Pruner

    def explore(self) -> Exploration:
        """Visit every state that can be reached."""
        return self._system().explore()

    def wander(self, *, walks: int, seed: int) -> Exploration:
        """Take random walks, where there are too many states."""
        return self._system().wander(walks=walks, seed=seed)

    def _system(self) -> System:
        tidied: dict[Store, str | None] = {}

        def invariant(store: Store, claims: Sequence[Claim | None]) -> str | None:
            wrong = _incomplete(store)
            for claim in claims:
                if wrong is None and claim is not None:
                    wrong = self._broken(store, claim)
            if wrong is None and self.tidies is not None:
                # Prunes look neither at others' intents nor at the model's notes.
                relevant = frozenset(key for key in store if key.kind != "intent" and key.kind not in _NOTES)
                if relevant not in tidied:
                    tidied[relevant] = self._left_over(relevant, self.tidies)
                wrong = tidied[relevant]
            return wrong

        processes = {name: Task(actor.begin) for name, actor in self.actors.items()}
        return System(self.store, processes, landings, invariant, self._private())

    def _private(self) -> frozenset[str]:
        """The kinds of objects that are no other actor's business, and no invariant's."""
        kinds: set[str] = set()
        if not any(isinstance(actor, Pinner) for actor in self.actors.values()):
            # There are no pins, and nobody reads the intents.
            kinds |= {"intent", "pin"}
        if not any(isinstance(actor, Pruner) and actor.takes_for_dead for actor in self.actors.values()):
            # There are none.
            kinds.add("abort")
        if not any(isinstance(actor, Wiper) for actor in self.actors.values()):
            # The store stays the same.
            kinds |= {"id", "window"}
        return frozenset(kinds)

    def _broken(self, store: Store, claim: Claim) -> str | None:
        """What somebody was told that is not so."""
        match claim:
            case Claim("acknowledged", str(state)) if state.endswith(ANOTHER_RUN):
                own = set(objects_of(state[0], ANOTHER_RUN))
                is_visible = any(own <= record.content for record in _visible(store).values())
                if state[0] not in self._victims(anew=True) and not is_visible:
                    return f"{state}, whose save was acknowledged, is not visible"
            case Claim("acknowledged", str(state)) if WIPED not in store:
                if state not in self._victims() and state not in _visible(store):
                    return f"{state}, whose save was acknowledged, is not visible"
            case Claim("holds", Key(_, state)):
                if state not in _visible(store):
                    return f"{state} is pinned, and not visible"
            case Claim("pin failed", Key() as own):
                if own in store:
                    return f"{own}, which failed, is there"
            case Claim("sees", str(state)):
                if visible_once(state) not in store:
                    return f"a reader takes {state} for visible, which it never was"
            case Claim("corrupt", about):
                return f"a reader takes {about} for damaged"
            case Claim("stopped", about):
                return f"a prune can't read {about}, and stops"
        return None

    def _victims(self, *, anew: bool = False) -> set[str]:
        """What prunes are to remove; `anew`: those of the run that uses the store again."""
        prunes = [actor for actor in self.actors.values() if isinstance(actor, Pruner)]
        return {state for prune in prunes if anew is (identity(ANOTHER_RUN) in prune.ours) for state in prune.victims}

    def _left_over(self, store: Store, tidies: type[Pruner]) -> str | None:
        """What is there that nobody needs, after prunes, if everybody stops now.

        Two ordinary prunes are enough, except for objects that landed after a prune had listed their folder for the
        last time: of a save that was taken for dead, or whose PUTs land late. These are for a collection to find.
        """
        lands_late = {
            actor.state for actor in self.actors.values() if isinstance(actor, Writer) and (actor.fails or actor.twice)
        }
        for _ in range(2):
            store, claim = run_alone(store, Task(tidies("tidy", takes_for_dead=True).begin))
            if claim is not None:
                return self._broken(store, claim)
        lands_late |= {key.state for key in store if key.kind == "abort"}
        if left := [key for key in _garbage(store) if key.kind != "object" or key.state not in lands_late]:
            return f"two prunes leave {_named(left)}"
        store = all_that_lands(store)
        if wrong := _incomplete(store):
            return wrong
        for _ in range(2):
            store, _ = run_alone(store, Task(tidies("tidy", takes_for_dead=True, collects=True).begin))
        if left := _garbage(store):
            return f"two collections leave {_named(left)}"
        return None


def _visible(store: Store) -> dict[str, Key]:
    """The commit markers of the visible states."""
    dead = {key.state for key in store if key.kind == "tombstone"}
    return {key.state: key for key in store if key.kind == "marker" and key.state not in dead}


def _incomplete(store: Store) -> str | None:
    for record in _visible(store).values():
        if missing := record.content - store:
            return f"{record.state} is visible, and misses {_named(missing)}"
    return None


def _garbage(store: Store) -> list[Key]:
    """What no visible state needs, and is no record that outlives its state."""
    visible = _visible(store)
    needed = {key for record in visible.values() for key in (record, *record.content)}
    pins = {key for key in store if key.kind == "pin" and key.state in visible}
    return [key for key in store - needed - pins if key.kind not in _NEVER_GARBAGE]


def _named(keys: Sequence[Key] | frozenset[Key]) -> str:
    return ", ".join(sorted(map(str, keys)))
