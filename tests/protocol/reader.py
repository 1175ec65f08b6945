"""A reader (``docs/format.md``, section 6)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.explorer import Choose, Claim, Key, Program, then
from tests.protocol.store import Find

__all__ = ["Reader"]


@dataclass(frozen=True)
class Reader:
    """Reads one state, any of those that it sees."""

    def begin(self) -> Program:
        """LIST commits."""
        markers = yield Find("marker")
        return then(self.list_tombstones, markers) if markers else then(None)

    def list_tombstones(self, markers: frozenset[Key]) -> Program:
        """LIST tombstones."""
        dead = {key.state for key in (yield Find("tombstone"))}
        return then(self.choose, frozenset(key for key in markers if key.state not in dead))

    def choose(self, visible: frozenset[Key]) -> Program:
        """Any of the visible states."""
        if not visible:
            return then(None)
        chosen = yield Choose(tuple(sorted(visible, key=str)))
        return then(self.read, chosen, (chosen, *sorted(chosen.content)), claim=Claim("sees", chosen.state))

    def read(self, chosen: Key, keys: tuple[Key, ...]) -> Program:
        """GET the marker, the manifest and the objects, one by one."""
        if not keys:
            return then(None, claim=Claim("read", chosen.state))
        key, *rest = keys
        if key not in (yield Find(key.kind, frozenset({key.state}))):
            return then(self.explain, chosen)
        return then(self.read, chosen, tuple(rest))

    def explain(self, chosen: Key) -> Program:
        """Something is missing: was the state removed, or the store wiped?"""
        here = frozenset({chosen.state})
        has_gone = (yield Find("tombstone", here)) or chosen not in (yield Find("marker", here))
        return then(None, claim=Claim("pruned" if has_gone else "corrupt", chosen.state))
