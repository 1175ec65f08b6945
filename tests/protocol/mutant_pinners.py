"""Who pins and does not follow the protocol, each in one step: see :mod:`tests.protocol.mutants`."""

from __future__ import annotations

from tests.protocol.explorer import Claim, Key, Program, then
from tests.protocol.pinner import Pinner
from tests.protocol.store import Delete, Find, Put, pin

__all__ = [
    "LeavesFailedPin",
    "LooksForFencesBeforeIntents",
    "PutsPinLast",
    "SharesPin",
    "WithoutLookForAbort",
    "WithoutLookForIntents",
    "WithoutLookForTombstone",
]


class LooksForFencesBeforeIntents(Pinner):
    """The tombstone is looked for before the intents."""

    def look_for_intents(self) -> Program:
        if (yield Find("abort", self.here)) or (yield Find("tombstone", self.here)):
            return then(self.fail)
        if any(self.state in key.content for key in (yield Find("intent"))):
            return then(self.fail)
        return then(None, claim=Claim("holds", self.own))


class WithoutLookForIntents(Pinner):
    """The intents are not looked for."""

    def look_for_intents(self) -> Program:
        yield from ()
        return then(self.look_for_fences)


class WithoutLookForAbort(Pinner):
    """The abort is not looked for."""

    def look_for_fences(self) -> Program:
        if (yield Find("tombstone", self.here)):
            return then(self.fail)
        return then(None, claim=Claim("holds", self.own))


class WithoutLookForTombstone(Pinner):
    """The tombstone is not looked for."""

    def look_for_fences(self) -> Program:
        if (yield Find("abort", self.here)):
            return then(self.fail)
        return then(None, claim=Claim("holds", self.own))


class PutsPinLast(Pinner):
    """The pin is put when nothing speaks against it."""

    def put(self) -> Program:
        yield from ()
        return then(self.look_for_intents)

    def look_for_fences(self) -> Program:
        if (yield Find("abort", self.here)) or (yield Find("tombstone", self.here)):
            return then(self.fail)
        yield Put(self.own)
        return then(None, claim=Claim("holds", self.own))


class SharesPin(Pinner):
    """The key of a pin has no random digits: who fails takes back what another one holds."""

    @property
    def own(self) -> Key:
        return pin(self.state, "")

    def fail(self) -> Program:
        yield Delete(self.own)
        return then(None)


class LeavesFailedPin(Pinner):
    """A pin that failed stays."""

    def fail(self) -> Program:
        yield from ()
        return then(None, claim=Claim("pin failed", self.own))
