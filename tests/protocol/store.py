"""What lies in the modelled store, and the calls that read and change it (``docs/format.md``, sections 1 and 8).

Three states form a chain: B lies there from the start, S reuses its object and adds one, T reuses both and adds one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.protocol.explorer import Key, Store

__all__ = [
    "CHAIN",
    "Delete",
    "Find",
    "Put",
    "abort",
    "all_that_lands",
    "committed",
    "intent",
    "landings",
    "marker",
    "objects_of",
    "pin",
    "reuses",
    "session",
    "tombstone",
    "visible_once",
]

CHAIN = ("B", "S", "T")
_DATA = {"B": "x", "S": "y", "T": "z"}


def objects_of(state: str) -> tuple[Key, ...]:
    """What a save of a state puts into its folder, in this order: its one object, and its manifest."""
    return Key("object", state, _DATA[state]), Key("object", state, "manifest")


def session(state: str, base: str) -> Key:
    """The record that a save has begun; `base` is empty where it has none."""
    return Key("session", state, base)


def marker(state: str, needs: Iterable[Key]) -> Key:
    """The commit marker, which stands for what is read from it and from the manifest: all that the state needs."""
    return Key("marker", state, frozenset(needs))


def tombstone(state: str) -> Key:
    """The record that a state is gone."""
    return Key("tombstone", state)


def abort(state: str) -> Key:
    """The record that the writer of a state was taken for dead."""
    return Key("abort", state)


def intent(prune: str, states: Iterable[str]) -> Key:
    """The record that a prune is about to remove some states."""
    return Key("intent", prune, tuple(sorted(states)))


def pin(state: str, name: str) -> Key:
    """A pin; `name` stands for its random digits."""
    return Key("pin", state, name)


def visible_once(state: str) -> Key:
    """Not in any store: the model's note that a state was visible at some time."""
    return Key("visible once", state)


def reuses(of: Key) -> set[str]:
    """The other states in whose folders objects lie that the state of a marker needs."""
    return {key.state for key in of.content} - {of.state}


def committed(state: str, *reused: Key) -> Store:
    """All that a finished save leaves."""
    return _land(frozenset(objects_of(state)), marker(state, {*objects_of(state), *reused}))


def _land(store: Store, key: Key) -> Store:
    """The store with one more object, and with a note, which no actor reads, if that makes a state visible."""
    if key.kind == "marker" and tombstone(key.state) not in store:
        return store | {key, visible_once(key.state)}
    return store | {key}


@dataclass(frozen=True)
class Find:
    """LIST or HEAD: the keys of one kind; with `states`, only theirs."""

    kind: str
    states: frozenset[str] | None = None

    def outcomes(self, store: Store) -> Iterator[tuple[Store, frozenset[Key]]]:
        """The store does not change."""
        found = (key for key in store if key.kind == self.kind and (self.states is None or key.state in self.states))
        yield store, frozenset(found)

    def __str__(self) -> str:
        return f"FIND {self.kind}s" + ("" if self.states is None else f" of {', '.join(sorted(self.states))}")


@dataclass(frozen=True)
class Put:
    """PUT.

    Attributes:
        key: The object.
        twice: It may land once more, at any time later.
        unsure: No answer may come, and then it has landed, or not, or does so later. What is told is whether one came.
    """

    key: Key
    twice: bool = False
    unsure: bool = False

    @property
    def kind(self) -> str:
        """The kind of the object."""
        return self.key.kind

    def outcomes(self, store: Store) -> Iterator[tuple[Store, bool]]:
        """The calm outcome first."""
        late = Key("late", self.key.state, self.key)
        landed = _land(store, self.key)
        yield landed, True
        if self.twice:
            yield landed | {late}, True
        if self.unsure:
            yield landed, False
            yield store, False
            yield store | {late}, False

    def __str__(self) -> str:
        return f"PUT {self.key}"


@dataclass(frozen=True)
class Delete:
    """DELETE; it is no error if the object is not there."""

    key: Key

    @property
    def kind(self) -> str:
        """The kind of the object."""
        return self.key.kind

    def outcomes(self, store: Store) -> Iterator[tuple[Store, None]]:
        """Always the same."""
        yield store - {self.key}, None

    def __str__(self) -> str:
        return f"DELETE {self.key}"


def landings(store: Store) -> Iterator[tuple[str, Store]]:
    """What the network may do by itself: a PUT lands late, or a second time."""
    for key in sorted((key for key in store if key.kind == "late"), key=str):
        yield f"network: late PUT {key.content}", _land(store - {key}, key.content)


def all_that_lands(store: Store) -> Store:
    """The store when all PUTs have landed that still may."""
    for key in [key for key in store if key.kind == "late"]:
        store = _land(store - {key}, key.content)
    return store
