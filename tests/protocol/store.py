"""What lies in the modelled store, and the calls that read and change it (``docs/format.md``, sections 1 and 8).

Three states form a chain: B lies there from the start, S reuses its object and adds one, T reuses both and adds one.

Where a store is wiped, another run uses it again, under the same names: what it puts has the same keys, and other
content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.protocol.explorer import Key, Store

__all__ = [
    "ANOTHER_RUN",
    "CHAIN",
    "WIPED",
    "Await",
    "Delete",
    "Find",
    "Put",
    "Wipe",
    "abort",
    "all_that_lands",
    "committed",
    "identity",
    "intent",
    "landings",
    "manifest_of",
    "marker",
    "objects_of",
    "pin",
    "reuses",
    "session",
    "tombstone",
    "visible_once",
    "window",
]

CHAIN = ("B", "S", "T")
_DATA = {"B": "x", "S": "y", "T": "z"}
ANOTHER_RUN = "'"
"""What marks the content of what the run puts that uses a store again."""


def objects_of(state: str, run: str = "") -> tuple[Key, ...]:
    """What a save of a state puts into its folder, in this order: its one object, and its manifest."""
    return Key("object", state, _DATA[state] + run), Key("object", state, "manifest" + run)


def session(state: str, base: str, run: str = "") -> Key:
    """The record that a save has begun; `base` is empty where it has none."""
    return Key("session", state, base + run)


def identity(run: str = "") -> Key:
    """The id of the store, as a run has put it that found none."""
    return Key("id", "", run)


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


WIPED = Key("wiped", "")
"""Not in any store: the model's note that it was wiped."""


def window(name: str) -> Key:
    """Not in any store: the model's note that somebody has looked which store this is, and acts on it.

    That time is short, and remains: the model takes no wipe to fall into it.
    """
    return Key("window", name)


def visible_once(state: str) -> Key:
    """Not in any store: the model's note that a state was visible at some time."""
    return Key("visible once", state)


def manifest_of(record: Key) -> Key:
    """The manifest that a marker names."""
    manifests: set[Key] = {key for key in record.content if key.content.startswith("manifest")}
    return next(key for key in manifests if key.state == record.state)


def reuses(of: Key) -> set[str]:
    """The other states in whose folders objects lie that the state of a marker needs."""
    return {key.state for key in of.content} - {of.state}


def committed(state: str, *reused: Key, run: str = "") -> Store:
    """All that a finished save leaves."""
    own = objects_of(state, run)
    return _land(frozenset({identity(run), *own}), marker(state, {*own, *reused}))


def _land(store: Store, key: Key) -> Store:
    """The store with an object, in the place of another one of its key.

    And with a note, which no actor reads, if that makes a state visible; the marker ends the writer's window.
    """
    store = _without(store, key) | {key}
    if key.kind == "marker":
        store -= {window(key.state)}
        if tombstone(key.state) not in store:
            store |= {visible_once(key.state)}
    return store


def _without(store: Store, key: Key) -> Store:
    """The store without what has this key, whatever its content."""
    if key.kind not in ("object", "marker", "session"):
        return store - {key}
    return frozenset(other for other in store if _place(other) != _place(key))


def _place(key: Key) -> Key:
    return Key(key.kind, key.state, key.content.rstrip(ANOTHER_RUN) if key.kind == "object" else "")


@dataclass(frozen=True)
class Find:
    """LIST or HEAD: the keys of one kind; with `states`, only theirs.

    Attributes:
        kind: Of which kind.
        states: Of which states; None for all.
        begins: Whose window begins with it, if something is found.
    """

    kind: str
    states: frozenset[str] | None = None
    begins: str = ""

    def outcomes(self, store: Store) -> Iterator[tuple[Store, frozenset[Key]]]:
        """The store does not change."""
        found = frozenset(
            key for key in store if key.kind == self.kind and (self.states is None or key.state in self.states)
        )
        yield store | {window(self.begins)} if found and self.begins else store, found

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
        yield _without(store, self.key), None

    def __str__(self) -> str:
        return f"DELETE {self.key}"


@dataclass(frozen=True)
class Wipe:
    """All that is there goes, at once.

    Attributes:
        waits: Not while somebody acts on what store this is.
    """

    waits: bool = True
    kind: str = ""

    def outcomes(self, store: Store) -> Iterator[tuple[Store, None]]:
        """One at most."""
        if not self.waits or not any(key.kind == "window" for key in store):
            yield frozenset({WIPED, *(key for key in store if key.kind == "visible once")}), None

    def __str__(self) -> str:
        return "WIPE"


@dataclass(frozen=True)
class Await:
    """Not a call: nothing is done before something is there."""

    key: Key

    @property
    def kind(self) -> str:
        """The kind of what is waited for."""
        return self.key.kind

    def outcomes(self, store: Store) -> Iterator[tuple[Store, None]]:
        """One, once it is there."""
        if self.key in store:
            yield store, None

    def __str__(self) -> str:
        return f"await {self.key}"


def landings(store: Store) -> Iterator[tuple[str, Store]]:
    """What the network may do by itself: a PUT lands late, or a second time."""
    for key in sorted((key for key in store if key.kind == "late"), key=str):
        yield f"network: late PUT {key.content}", _land(store - {key}, key.content)


def all_that_lands(store: Store) -> Store:
    """The store when all PUTs have landed that still may."""
    for key in [key for key in store if key.kind == "late"]:
        store = _land(store - {key}, key.content)
    return store
