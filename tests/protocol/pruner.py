"""A prune or a collection: steps P0 to P8 (``docs/format.md``, section 7)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from tests.protocol.explorer import Choose, Claim, Key, Program, then
from tests.protocol.store import (
    ANOTHER_RUN,
    Delete,
    Find,
    Put,
    abort,
    identity,
    intent,
    manifest_of,
    reuses,
    tombstone,
    window,
)

__all__ = ["Listed", "Pruner", "Reading", "bases_of"]

_R = TypeVar("_R")
Reading: TypeAlias = Generator["Choose | Find", Any, _R]
"""A part of a program, and what it returns."""


class Listed(NamedTuple):
    """What P2 to P5 saw.

    Attributes:
        dead: States with a tombstone.
        records: The sessions that P2 saw, and the markers and pins of dead states.
        data: What lies in the folders of P3, which are of dead states.
        sessions: All sessions.
        markers: All commit markers.
        ids: The ids of the store that P2 saw.
    """

    dead: frozenset[str] = frozenset()
    records: frozenset[Key] = frozenset()
    data: frozenset[Key] = frozenset()
    sessions: frozenset[Key] = frozenset()
    markers: frozenset[Key] = frozenset()
    ids: frozenset[Key] = frozenset()


@dataclass(frozen=True)
class Pruner:
    """A prune, or a collection.

    Attributes:
        name: Of its intent.
        victims: States to remove.
        takes_for_dead: It may take any session for stale. Which one is, is left open: no clock decides what is safe.
        collects: It lists the whole store.
        unsure: The answers to its tombstones may be lost.
        remembers: It may know any marker and manifest from before, and not read it again.
        memory: Markers as it knows them from before: those of their names are not read.
        ours: The ids of the store as it knows it.
    """

    name: str
    victims: frozenset[str] = frozenset()
    takes_for_dead: bool = False
    collects: bool = False
    unsure: bool = False
    remembers: bool = False
    memory: frozenset[Key] = frozenset()
    ours: frozenset[Key] = frozenset({identity()})

    def begin(self) -> Program:
        """P0: those of the victims that are visible; none, if they were chosen in another store."""
        if not self.victims:
            return then(self.find_stale)
        markers = yield Find("marker", self.victims)
        if (yield from self.is_another()):
            return then(None)
        dead = yield Find("tombstone", self.victims)
        batch = frozenset({key.state for key in markers} - {key.state for key in dead})
        return then(self.announce, batch) if batch else then(self.find_stale)

    def announce(self, batch: frozenset[str]) -> Program:
        """P0: the intent, and only then the pins; and whether it is still the store in which they were chosen."""
        own = intent(self.name, batch)
        yield Put(own)
        pins = yield Find("pin", batch)
        if (yield from self.is_another(begins=self.name)):
            yield Delete(own)
            return then(None)
        return then(self.bury, own, batch - {key.state for key in pins})

    def is_another(self, *, begins: str = "") -> Reading[bool]:
        """Whether the store is another one than it knows."""
        ids = yield Find("id", begins=begins)
        return self.ours.isdisjoint(ids)

    def bury(self, own: Key, batch: frozenset[str], answered: bool = True) -> Program:
        """P0: the tombstones, one by one; the intent goes only when all are known to be there."""
        if batch:
            state = min(batch)
            now = yield Put(tombstone(state), unsure=self.unsure)
            return then(self.bury, own, batch - {state}, answered and now)
        if answered:
            yield Delete(own)
        yield Delete(window(self.name))
        return then(self.find_stale)

    def find_stale(self) -> Program:
        """P1."""
        if not self.takes_for_dead:
            return then(self.list_dead)
        sessions = yield Find("session")
        return then(self.give_up, tuple(sorted({key.state for key in sessions})))

    def give_up(self, states: tuple[str, ...]) -> Program:
        """P1, session by session: abort first, look for the marker after."""
        if not states:
            return then(self.list_dead)
        here = frozenset({states[0]})
        if (yield Choose((True, False))):
            yield Put(abort(states[0]))
            if not (yield Find("marker", here)):
                yield Put(tombstone(states[0]))
        return then(self.give_up, states[1:])

    def list_dead(self) -> Program:
        """P2: one LIST of all records, which takes its time."""
        markers = yield Find("marker")
        ids = yield Find("id")
        here = self.in_store(ids)
        pins = yield Find("pin")
        sessions = yield Find("session")
        dead = frozenset(key.state for key in (yield Find("tombstone")))
        of_the_dead = frozenset(key for key in markers | pins if key.state in dead)
        return then(here.choose_folders, Listed(dead, of_the_dead | sessions, ids=ids))

    def in_store(self, ids: frozenset[Key]) -> Pruner:
        """It, with what it knows of the store with these ids."""
        return _forgetful(self) if self.ours.isdisjoint(ids) else self

    def choose_folders(self, listed: Listed) -> Program:
        """P3: of which folders."""
        if self.collects:
            return then(self.list_data, listed, tuple(sorted(listed.dead)))
        folders = {key.state for key in listed.records if key.kind != "pin"}
        for key in sorted((key for key in listed.records if key.kind == "marker" and reuses(self.known(key))), key=str):
            if (yield from self.reads(key)):
                folders |= reuses(self.known(key))
        return then(self.list_data, listed, tuple(sorted(folders & listed.dead)))

    def reads(self, record: Key) -> Reading[bool]:
        """GET a marker: whether it knows now what that says."""
        if self.known(record) in self.memory:
            return True
        if self.remembers and (yield Choose((False, True))):
            return True
        return bool((yield Find("marker", frozenset({record.state}))))

    def list_data(self, listed: Listed, folders: tuple[str, ...]) -> Program:
        """P3, folder by folder."""
        if not folders:
            return then(self.list_sessions, listed)
        found = yield Find("object", frozenset({folders[0]}))
        return then(self.list_data, listed._replace(data=listed.data | found), folders[1:])

    def list_sessions(self, listed: Listed) -> Program:
        """P4. A session that goes away between LIST and GET has ended."""
        keys = yield Find("session")
        sessions: frozenset[Key] = frozenset()
        for key in sorted(keys):
            sessions |= yield Find("session", frozenset({key.state}))
        return then(self.list_commits, listed._replace(sessions=sessions))

    def list_commits(self, listed: Listed) -> Program:
        """P5; and whether it is still the store of P2."""
        markers = yield Find("marker")
        ids = yield Find("id", begins=self.name)
        if listed.ids and listed.ids.isdisjoint(ids):
            return then(self.list_dead)
        return then(self.protect, listed._replace(markers=markers))

    def protect(self, listed: Listed) -> Program:
        """P6. Where the states have gone that it wants to read, it can't know what to protect: it begins again."""
        sheltered = yield from self.shelter(listed)
        if sheltered is None:
            return then(self.list_dead)
        data = {key for key in listed.data if key.state not in sheltered}
        for record in sorted(listed.markers, key=str):
            if record.state not in listed.dead and any(key.state in reuses(self.known(record)) for key in data):
                needs = yield from self.needs(record)
                if needs is None:
                    return then(self.explain, record.state)
                data -= needs
        return then(self.sweep, tuple(sorted(data)), self.to_clear(listed, sheltered))

    def shelter(self, listed: Listed) -> Reading[frozenset[str] | None]:
        """P6: for a live session all that lies in the folders in which its base has objects, if that one is dead.

        Its manifest is not read: another prune may have taken it that saw the session end, and its state needing less.

        Returns:
            These folders, or None if the marker of a base has gone.
        """
        sheltered: set[str] = set()
        for record in sorted((key for key in listed.markers if key.state in bases_of(listed)), key=str):
            if not (yield from self.reads(record)):
                return None
            sheltered |= {record.state, *reuses(self.known(record))}
        return frozenset(sheltered)

    def needs(self, record: Key) -> Reading[frozenset[Key] | None]:
        """P6: what a visible state refers to; None if its manifest has gone."""
        record = self.known(record)
        if record in self.memory:
            return frozenset(record.content)
        if self.remembers and (yield Choose((False, True))):
            return frozenset(record.content)
        found = yield Find("object", frozenset({record.state}))
        return frozenset(record.content) if manifest_of(record) in found else None

    def known(self, record: Key) -> Key:
        """A marker, or what it takes for it."""
        return next((known for known in self.memory if known.state == record.state), record)

    def explain(self, state: str) -> Program:
        """P6: has another prune removed a state meanwhile?

        Then what was saved on top of it meanwhile may need what it needed, and is not in these lists.
        """
        dead = yield Find("tombstone", frozenset({state}))
        return then(self.list_dead) if dead else then(None, claim=Claim("stopped", state))

    def sweep(self, garbage: tuple[Key, ...], records: tuple[Key, ...]) -> Program:
        """P7."""
        for key in garbage:
            yield Delete(key)
        return then(self.clear, records)

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        """P8: markers, sessions and pins of dead states, and the sessions that visible ones have left.

        Not what is sheltered: by its marker the next prune finds it. Nor what came since P2, and data perhaps with it.
        """
        gone = listed.dead - sheltered
        ended = listed.dead | {key.state for key in listed.markers}
        found = [
            *(key for key in listed.records if key.kind in ("marker", "pin") and key.state in gone),
            *(key for key in listed.records & listed.sessions if key.state in ended),
        ]
        return tuple(sorted(found, key=str))

    def clear(self, records: tuple[Key, ...]) -> Program:
        """P8."""
        for key in records:
            yield Delete(key)
        yield Delete(window(self.name))
        return then(None)


def bases_of(listed: Listed) -> frozenset[str]:
    """The dead states that are bases of live sessions."""
    bases = (key.content.rstrip(ANOTHER_RUN) for key in listed.sessions if key.state not in listed.dead)
    return frozenset(bases) & listed.dead


@cache  # so that it is the same each time: a task is known by its actor
def _forgetful(pruner: Pruner) -> Pruner:
    return replace(pruner, memory=frozenset())
