"""How a save gets its number while others save, remove and collect, and somebody puts what is none of a save's.

``docs/format.md``, section 1, with few numbers in place of many. What makes data safe does not depend on numbers, so
that they have a model of their own, of the steps that matter to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.protocol.explorer import Choose, Claim, Exploration, Key, Program, Store, System, Task, then
from tests.protocol.store import Delete, Put

__all__ = [
    "LAST",
    "UNREAD",
    "Collector",
    "Numbered",
    "Record",
    "Remover",
    "Saver",
    "Vandal",
    "key_of",
    "listed",
    "visible",
]

UNREAD = 2
"""Up to here numbers count whatever their objects hold."""
LAST = 7
"""The largest number; beyond :data:`UNREAD` there are more of them than saves."""


class Record(NamedTuple):
    """What the key and the object of a commit or a tombstone say.

    Attributes:
        number: Its place in the order.
        name: The state's name.
        sound: Whether it can be read.
        follows: Places of the states whose saves had been acknowledged when this one began; None if no save put it.
    """

    number: int
    name: str
    sound: bool = True
    follows: frozenset[tuple[int, str]] | None = None

    @property
    def place(self) -> tuple[int, str]:
        """Its place in the order of states."""
        return self.number, self.name


def key_of(kind: str, record: Record) -> Key:
    """The object of a commit or a tombstone."""
    return Key(kind, f"{record.number}.{record.name}", record)


@dataclass(frozen=True)
class _Look:
    """LIST everything.

    Attributes:
        tells_time: Whether whoever looks also reads the clock, which no two look at in the same instant.
    """

    tells_time: bool = False
    kind: str = "record"

    def outcomes(self, store: Store) -> Iterator[tuple[Store, Store]]:
        """The store, and the clock as it was."""
        if not self.tells_time:
            yield store, store
            return
        (clock,) = (key for key in store if key.kind == "clock")
        yield store - {clock} | {Key("clock", "", clock.content + 1)}, store


def listed(store: Store, kind: str) -> list[Record]:
    """All commits, or tombstones."""
    return [key.content for key in store if key.kind == kind]


def visible(store: Store) -> list[Record]:
    """The visible states, in their order."""
    dead = {record.name for record in listed(store, "tombstone")}
    return sorted(record for record in listed(store, "commit") if record.name not in dead)


@dataclass(frozen=True)
class Saver:
    """Saves some states, one after the other, each under a name from the time.

    Attributes:
        saves: How many.
        unread: See :data:`UNREAD`.
        last: See :data:`LAST`.
    """

    saves: int = 2
    unread: int = UNREAD
    last: int = LAST

    def begin(self) -> Program:
        """LIST the records, and choose."""
        store = yield _Look(tells_time=True)
        number = self.choose(store)
        if number is None:
            return then(None, claim=Claim("stopped", ""))
        clock = next(key.content for key in store if key.kind == "clock")
        follows = frozenset(record.place for record in visible(store) if record.follows is not None)
        return then(self.commit, Record(number, f"at {clock}", follows=follows))

    def commit(self, record: Record) -> Program:
        """PUT the marker."""
        yield Put(key_of("commit", record))
        return then(replace(self, saves=self.saves - 1).begin) if self.saves > 1 else then(None)

    def choose(self, store: Store) -> int | None:
        """One more than the largest number that counts."""
        return min(max(self.counting(store), default=0) + 1, self.last)

    def counting(self, store: Store) -> Iterator[int]:
        """The numbers that count."""
        for record in (*listed(store, "commit"), *listed(store, "tombstone")):
            if record.number <= self.unread:
                yield record.number
        for record in visible(store):
            if record.number > self.unread and record.sound:
                yield record.number


@dataclass(frozen=True)
class Vandal:
    """Puts one thing, which is no save's.

    Attributes:
        forges: Whether it can be a marker that passes for a state's.
    """

    forges: bool = False

    def begin(self) -> Program:
        """Any number, in any key."""
        numbers = (1, UNREAD, UNREAD + 1, LAST - 1, LAST)
        kinds = [("commit", False), ("tombstone", False), ("tombstone", True), *[("commit", True)] * self.forges]
        kind, sound, number = yield Choose(tuple((kind, sound, n) for kind, sound in kinds for n in numbers))
        yield Put(key_of(kind, Record(number, "zzz", sound)))
        return then(None)


@dataclass(frozen=True)
class Remover:
    """Removes a state, in some save's place or not."""

    def begin(self) -> Program:
        """LIST the records."""
        chosen = yield Choose((None, *visible((yield _Look()))))
        return then(None) if chosen is None else then(self.remove, chosen)

    def remove(self, chosen: Record) -> Program:
        """PUT the tombstone, then DELETE the marker."""
        yield Put(key_of("tombstone", chosen._replace(sound=True, follows=None)))
        yield Delete(key_of("commit", chosen))
        return then(None)


@dataclass(frozen=True)
class Collector:
    """Deletes the tombstones of which nothing else is left, but for the largest of those that count."""

    def begin(self) -> Program:
        """LIST the records, and DELETE."""
        store = yield _Look()
        here = {record.name for record in listed(store, "commit")}
        places = (*listed(store, "commit"), *listed(store, "tombstone"))
        last = max((record.number for record in places if record.number <= UNREAD), default=0)
        gone = [record for record in listed(store, "tombstone") if record.name not in here and record.number != last]
        return then(self.delete, tuple(sorted(gone)))

    def delete(self, gone: Sequence[Record]) -> Program:
        """One by one."""
        for record in gone:
            yield Delete(key_of("tombstone", record))
        return then(None)


@dataclass(frozen=True)
class Numbered:
    """Who works on a store at the same time, and what must hold of the numbers.

    Attributes:
        actors: By name.
        store: What lies there at the start.
    """

    actors: Mapping[str, Saver | Vandal | Remover | Collector]
    store: Store = field(default=frozenset({Key("clock", "", 1)}))

    def explore(self) -> Exploration:
        """Visit every state that can be reached."""
        processes = {name: Task(actor.begin) for name, actor in self.actors.items()}
        return System(self.store, processes, lambda store: (), self._invariant).explore()

    def _invariant(self, store: Store, claims: Sequence[Claim | None]) -> str | None:
        if any(claim is not None and claim.what == "stopped" for claim in claims):
            return "a save finds no number"
        forges = any(isinstance(actor, Vandal) and actor.forges for actor in self.actors.values())
        places = {record.place: record for record in visible(store)}
        for record in places.values():
            if not 1 <= record.number <= LAST:
                return f"{record.number} is no number"
            for before in (record.follows or frozenset()) & places.keys():
                if before >= record.place:
                    return f"{record.place} was saved after {before}, and does not come after it"
                if before[0] == record.number and not forges:
                    return f"only the names tell that {record.place} came after {before}"
        return None
