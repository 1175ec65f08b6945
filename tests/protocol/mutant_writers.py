"""Writers that do not follow the protocol, each in one step: see :mod:`tests.protocol.mutants`."""

from __future__ import annotations

from tests.protocol.explorer import Claim, Key, Program, then
from tests.protocol.store import Delete, Find, Put, identity, marker, objects_of, tombstone
from tests.protocol.writer import Writer

__all__ = [
    "BelievesInMarker",
    "BuildsOnWhatItRemembers",
    "LooksForAbortOnly",
    "LooksForFencesBeforeMarker",
    "LooksForTombstoneOnly",
    "MarkerBeforeData",
    "NamedByContent",
    "SessionAfterLook",
    "SessionEndsBeforeMarker",
    "TakesBackAfterMarker",
    "TakesBackSessionFirst",
    "TakesBackWithoutTombstone",
    "WithoutListAfterId",
    "WithoutLookForBase",
    "WithoutLookForFences",
    "WithoutLookForId",
    "WithoutSession",
]


class WithoutSession(Writer):
    """No step 2."""

    def announce(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        yield from ()
        return then(self.look_for_base, own, ids, reused)


class SessionAfterLook(Writer):
    """Step 3 before step 2."""

    def announce(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        if reused and (yield Find("tombstone", self.of_base)):
            reused = frozenset()
        yield Put(own)
        return then(self.upload, own, ids, reused)


class WithoutLookForBase(Writer):
    """No step 3."""

    def look_for_base(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        yield from ()
        return then(self.upload, own, ids, reused)


class NamedByContent(Writer):
    """An object of the same content has the same key, wherever it is needed."""

    def look_for_base(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        if (yield Find("tombstone", self.of_base)):
            for key in sorted(reused):
                yield Put(key)
        return then(self.upload, own, ids, reused)


class MarkerBeforeData(Writer):
    """Step 5 before step 4."""

    def upload(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        yield Put(marker(self.state, {*objects_of(self.state), *reused}))
        for key in objects_of(self.state):
            yield Put(key)
        return then(self.look_for_fences, own)


class SessionEndsBeforeMarker(Writer):
    """Step 7 before step 5."""

    def commit(self, own: Key, reused: frozenset[Key], tries: int = 1) -> Program:
        yield Delete(own)
        yield Put(marker(self.state, {*objects_of(self.state), *reused}))
        return then(self.look_for_fences, own)


class BelievesInMarker(Writer):
    """A lost answer to step 5 is taken for success."""

    def commit(self, own: Key, reused: frozenset[Key], tries: int = 1) -> Program:
        yield Put(marker(self.state, {*objects_of(self.state), *reused}), unsure=True)
        return then(self.look_for_fences, own)


class WithoutLookForFences(Writer):
    """No step 6."""

    def look_for_fences(self, own: Key) -> Program:
        yield from ()
        return then(self.end, own, claim=Claim("acknowledged", self.state))


class LooksForFencesBeforeMarker(Writer):
    """Step 6 before step 5."""

    def commit(self, own: Key, reused: frozenset[Key], tries: int = 1) -> Program:
        if (yield Find("abort", self.here)) or (yield Find("tombstone", self.here)):
            return then(None)
        yield Put(marker(self.state, {*objects_of(self.state), *reused}))
        return then(self.end, own, claim=Claim("acknowledged", self.state))


class LooksForAbortOnly(Writer):
    """Step 6 without the tombstone."""

    def look_for_fences(self, own: Key) -> Program:
        if (yield Find("abort", self.here)):
            return then(None)
        return then(self.end, own, claim=Claim("acknowledged", self.state))


class LooksForTombstoneOnly(Writer):
    """Step 6 without the abort."""

    def look_for_fences(self, own: Key) -> Program:
        if (yield Find("tombstone", self.here)):
            return then(None)
        return then(self.end, own, claim=Claim("acknowledged", self.state))


class TakesBackSessionFirst(Writer):
    """A failed save deletes its session before it puts its tombstone."""

    def take_back(self, own: Key) -> Program:
        for key in objects_of(self.state):
            yield Delete(key)
        yield Delete(own)
        yield Put(tombstone(self.state))
        return then(None)


class TakesBackWithoutTombstone(Writer):
    """A failed save leaves no record of itself."""

    def take_back(self, own: Key) -> Program:
        for key in objects_of(self.state):
            yield Delete(key)
        yield Delete(own)
        return then(None)


class TakesBackAfterMarker(Writer):
    """A save whose step 5 has no known outcome takes back its data."""

    def commit(self, own: Key, reused: frozenset[Key], tries: int = 1) -> Program:
        answered = yield Put(marker(self.state, {*objects_of(self.state), *reused}), unsure=True)
        return then(self.look_for_fences if answered else self.take_back, own)


class BuildsOnWhatItRemembers(Writer):
    """What it remembers of the base counts in any store."""

    def read_base(self, ids: frozenset[Key]) -> Program:
        yield from ()
        assert self.remembers is not None
        return then(self.build_on, self.remembers, ids)


class WithoutLookForId(Writer):
    """Step 4 without the look whether it is still the same store."""

    def look_for_id(self, own: Key, ids: frozenset[Key], reused: frozenset[Key]) -> Program:
        yield from ()
        return then(self.commit, own, reused)


class WithoutListAfterId(Writer):
    """A base is taken from a LIST that shows no id."""

    def begin(self) -> Program:
        markers = yield Find("marker", self.of_base)
        yield Put(identity())
        ids = frozenset({identity()})
        return then(self.build_on, *markers, ids) if markers else then(self.read_base, ids)
