"""Readers that do not follow the protocol, each in one step: see :mod:`tests.protocol.mutants`."""

from __future__ import annotations

from tests.protocol.explorer import Claim, Key, Program, then
from tests.protocol.reader import Reader
from tests.protocol.store import Find

__all__ = [
    "DoesNotExplain",
    "DoesNotLookAgain",
    "IgnoresTombstones",
    "ListsTombstonesFirst",
]


class ListsTombstonesFirst(Reader):
    """Tombstones before commits."""

    def begin(self) -> Program:
        dead = {key.state for key in (yield Find("tombstone"))}
        markers = yield Find("marker")
        return then(self.choose, frozenset(key for key in markers if key.state not in dead))


class IgnoresTombstones(Reader):
    """A state is taken for visible by its marker alone."""

    def list_tombstones(self, markers: frozenset[Key]) -> Program:
        yield from ()
        return then(self.choose, markers)


class DoesNotExplain(Reader):
    """Whatever is missing is taken for damage."""

    def explain(self, chosen: Key) -> Program:
        yield from ()
        return then(None, claim=Claim("corrupt", chosen.state))


class DoesNotLookAgain(Reader):
    """What is missing and was not removed is taken for damage."""

    def explain(self, chosen: Key) -> Program:
        dead = yield Find("tombstone", frozenset({chosen.state}))
        return then(None, claim=Claim("pruned" if dead else "corrupt", chosen.state))
