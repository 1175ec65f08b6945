"""Prunes that do not follow the protocol, each in one step: see :mod:`tests.protocol.mutants`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.protocol.explorer import Choose, Key, Program, then
from tests.protocol.pruner import Listed, Pruner, Reading, bases_of
from tests.protocol.store import CHAIN, Delete, Find, Put, abort, intent, tombstone

__all__ = [
    "AbortAfterLook",
    "BelievesInMemory",
    "BreaksSession",
    "ClearsAllSessions",
    "ClearsBases",
    "ClearsBeforeSweep",
    "ClearsTombstones",
    "ClearsWhatBasesReuse",
    "ClearsWhatCameLate",
    "GivesUpCommitted",
    "IgnoresLostBase",
    "IgnoresLostState",
    "IgnoresSessions",
    "IntentEndsAnyway",
    "IntentEndsFirst",
    "LeavesPins",
    "ListsCommitsBeforeSessions",
    "ListsFoldersOfMarkersOnly",
    "ListsOwnFoldersOnly",
    "ListsPinsFirst",
    "ListsSessionsBeforeData",
    "ListsSessionsBeforeTombstones",
    "ListsTombstonesLast",
    "ReadsManifestOfBase",
    "SheltersOwnFolderOfBase",
    "WithoutAbort",
    "WithoutIntent",
    "WithoutLookForIdBeforeDeletes",
    "WithoutLookForIdBeforeTombstones",
    "WithoutLookForIdOfVictims",
    "WithoutPins",
]


class ListsPinsFirst(Pruner):
    """P0: the pins before the intent."""

    def announce(self, batch: frozenset[str]) -> Program:
        own = intent(self.name, batch)
        pins = yield Find("pin", batch)
        yield Put(own)
        return then(self.bury, own, batch - {key.state for key in pins})


class WithoutIntent(Pruner):
    """P0: no intent."""

    def announce(self, batch: frozenset[str]) -> Program:
        pins = yield Find("pin", batch)
        return then(self.bury, intent(self.name, batch), batch - {key.state for key in pins})


class WithoutPins(Pruner):
    """P0: the pins are not looked for after the intent."""

    def begin(self) -> Program:
        markers = yield Find("marker", self.victims)
        dead = yield Find("tombstone", self.victims)
        pins = yield Find("pin", self.victims)
        batch = frozenset({key.state for key in markers} - {key.state for key in (*dead, *pins)})
        return then(self.announce, batch) if batch else then(self.find_stale)

    def announce(self, batch: frozenset[str]) -> Program:
        own = intent(self.name, batch)
        yield Put(own)
        return then(self.bury, own, batch)


class IntentEndsFirst(Pruner):
    """P0: the intent goes before the tombstones come."""

    def bury(self, own: Key, batch: frozenset[str], answered: bool = True) -> Program:
        yield Delete(own)
        for state in sorted(batch):
            yield Put(tombstone(state))
        return then(self.find_stale)


class IntentEndsAnyway(Pruner):
    """P0: the intent goes although the outcome of a tombstone is not known."""

    def bury(self, own: Key, batch: frozenset[str], answered: bool = True) -> Program:
        for state in sorted(batch):
            yield Put(tombstone(state), unsure=self.unsure)
        yield Delete(own)
        return then(self.find_stale)


class BreaksSession(Pruner):
    """P1: a stale session is just deleted."""

    def give_up(self, states: tuple[str, ...]) -> Program:
        if not states:
            return then(self.list_dead)
        found = yield Find("session", frozenset({states[0]}))
        if not (yield Find("marker", frozenset({states[0]}))) and (yield Choose((True, False))):
            for key in found:
                yield Delete(key)
        return then(self.give_up, states[1:])


class WithoutAbort(Pruner):
    """P1: no abort."""

    def give_up(self, states: tuple[str, ...]) -> Program:
        if not states:
            return then(self.list_dead)
        if (yield Choose((True, False))) and not (yield Find("marker", frozenset({states[0]}))):
            yield Put(tombstone(states[0]))
        return then(self.give_up, states[1:])


class AbortAfterLook(Pruner):
    """P1: the abort after the look for the marker."""

    def give_up(self, states: tuple[str, ...]) -> Program:
        if not states:
            return then(self.list_dead)
        if (yield Choose((True, False))) and not (yield Find("marker", frozenset({states[0]}))):
            yield Put(abort(states[0]))
            yield Put(tombstone(states[0]))
        return then(self.give_up, states[1:])


class GivesUpCommitted(Pruner):
    """P1: the marker is not looked for."""

    def give_up(self, states: tuple[str, ...]) -> Program:
        if not states:
            return then(self.list_dead)
        if (yield Choose((True, False))):
            yield Put(abort(states[0]))
            yield Put(tombstone(states[0]))
        return then(self.give_up, states[1:])


@dataclass(frozen=True)
class ListsSessionsBeforeTombstones(Pruner):
    """P4 before P0."""

    seen: frozenset[Key] | None = None

    def begin(self) -> Program:
        if self.seen is None:
            sessions = yield Find("session")
            return then(replace(self, seen=sessions).begin)
        return (yield from super().begin())

    def list_sessions(self, listed: Listed) -> Program:
        yield from ()
        return then(self.list_commits, listed._replace(sessions=self.seen or frozenset()))


class ListsTombstonesLast(Pruner):
    """P2 after P5."""

    def list_dead(self) -> Program:
        yield from ()
        return then(self.list_data, Listed(), CHAIN)

    def list_commits(self, listed: Listed) -> Program:
        markers = yield Find("marker")
        dead = frozenset(key.state for key in (yield Find("tombstone")))
        data = frozenset(key for key in listed.data if key.state in dead)
        return then(self.protect, Listed(dead, markers | listed.sessions, data, listed.sessions, markers))


class ListsCommitsBeforeSessions(Pruner):
    """P5 before P4."""

    def list_sessions(self, listed: Listed) -> Program:
        markers = yield Find("marker")
        sessions = yield Find("session")
        return then(self.protect, listed._replace(markers=markers, sessions=sessions))


class ListsSessionsBeforeData(Pruner):
    """P4 before P3."""

    def list_data(self, listed: Listed, folders: tuple[str, ...]) -> Program:
        sessions = yield Find("session")
        data: frozenset[Key] = frozenset()
        for folder in folders:
            data |= yield Find("object", frozenset({folder}))
        return then(self.list_commits, listed._replace(sessions=sessions, data=data))


class ListsOwnFoldersOnly(Pruner):
    """P3 without the folders that the markers of the dead name."""

    def choose_folders(self, listed: Listed) -> Program:
        yield from ()
        folders = {key.state for key in listed.records if key.kind != "pin"}
        return then(self.list_data, listed, tuple(sorted(folders & listed.dead)))


class ListsFoldersOfMarkersOnly(Pruner):
    """P3 without the folders of the dead that have a session and no marker."""

    def choose_folders(self, listed: Listed) -> Program:
        markers = frozenset(key for key in listed.records if key.kind == "marker")
        return (yield from super().choose_folders(listed._replace(records=markers)))


class IgnoresSessions(Pruner):
    """P6 without sessions."""

    def list_sessions(self, listed: Listed) -> Program:
        yield from ()
        return then(self.list_commits, listed)


class SheltersOwnFolderOfBase(Pruner):
    """P6: of a base only what lies in its own folder."""

    def shelter(self, listed: Listed) -> Reading[frozenset[str] | None]:
        yield from ()
        return bases_of(listed)


class IgnoresLostBase(Pruner):
    """P6: a base whose marker has gone needs nothing."""

    def shelter(self, listed: Listed) -> Reading[frozenset[str] | None]:
        return (yield from super().shelter(listed)) or frozenset()


class ReadsManifestOfBase(Pruner):
    """P6: a dead base is read as a visible state is, and if its manifest has gone it needs nothing."""

    def shelter(self, listed: Listed) -> Reading[frozenset[str] | None]:
        yield from ()
        return frozenset()

    def protect(self, listed: Listed) -> Program:
        needed: frozenset[Key] = frozenset()
        for record in sorted((key for key in listed.markers if key.state in bases_of(listed)), key=str):
            needed |= (yield from self.needs(record)) or frozenset()
        return (yield from super().protect(listed._replace(data=listed.data - needed)))

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        return super().to_clear(listed, bases_of(listed))


class IgnoresLostState(Pruner):
    """P6: a state whose manifest has gone needs nothing."""

    def needs(self, record: Key) -> Reading[frozenset[Key] | None]:
        return (yield from super().needs(record)) or frozenset()


class ClearsBases(Pruner):
    """P8: the markers of what is sheltered go as well."""

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        return super().to_clear(listed, frozenset())


class ClearsWhatBasesReuse(Pruner):
    """P8: of what is sheltered only the bases' own markers stay."""

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        return super().to_clear(listed, bases_of(listed))


class ClearsWhatCameLate(Pruner):
    """P8: also what P2 had not seen."""

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        return super().to_clear(listed._replace(records=listed.markers | listed.sessions), sheltered)


class ClearsAllSessions(Pruner):
    """P8: also the sessions of saves that go on."""

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        return tuple(sorted({*super().to_clear(listed, sheltered), *listed.sessions}, key=str))


class ClearsBeforeSweep(Pruner):
    """P8 before P7."""

    def sweep(self, garbage: tuple[Key, ...], records: tuple[Key, ...]) -> Program:
        return (yield from super().sweep((*records, *garbage), ()))


class ClearsTombstones(Pruner):
    """P8: the tombstones and aborts go as well."""

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        records = super().to_clear(listed, sheltered)
        states = sorted({key.state for key in records} & listed.dead)
        return (*records, *(record for state in states for record in (abort(state), tombstone(state))))


class LeavesPins(Pruner):
    """P8: without pins."""

    def to_clear(self, listed: Listed, sheltered: frozenset[str]) -> tuple[Key, ...]:
        return tuple(key for key in super().to_clear(listed, sheltered) if key.kind != "pin")


class WithoutLookForIdOfVictims(Pruner):
    """P0: victims are looked for by their names, in whatever store."""

    def begin(self) -> Program:
        markers = yield Find("marker", self.victims)
        batch = frozenset(key.state for key in markers)
        return then(self.bury, intent(self.name, batch), batch) if batch else then(None)


class WithoutLookForIdBeforeTombstones(Pruner):
    """P0: no look behind the intent whether it is still the same store."""

    def announce(self, batch: frozenset[str]) -> Program:
        own = intent(self.name, batch)
        yield Put(own)
        pins = yield Find("pin", batch)
        return then(self.bury, own, batch - {key.state for key in pins})


class WithoutLookForIdBeforeDeletes(Pruner):
    """P5: no look whether it is still the store of P2."""

    def list_commits(self, listed: Listed) -> Program:
        markers = yield Find("marker")
        return then(self.protect, listed._replace(markers=markers))


class BelievesInMemory(Pruner):
    """What it remembers counts in any store."""

    def in_store(self, ids: frozenset[Key]) -> Pruner:
        return self
