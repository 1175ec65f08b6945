"""Who pins a state, and perhaps unpins it (``docs/format.md``, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.explorer import Claim, Key, Program, then
from tests.protocol.store import Delete, Find, Put, pin

__all__ = ["Pinner"]


@dataclass(frozen=True)
class Pinner:
    """One attempt to pin a state.

    Attributes:
        name: The random digits of the pin.
        state: What it pins, if that is visible.
        unpins: It takes the pin back, some time after it holds.
    """

    name: str
    state: str
    unpins: bool = False

    def begin(self) -> Program:
        """Look whether the state is visible."""
        markers = yield Find("marker", self.here)
        if not markers or (yield Find("tombstone", self.here)):
            return then(None)
        return then(self.put)

    def put(self) -> Program:
        """PUT the pin: who looks for pins from now on sees it."""
        yield Put(self.own)
        return then(self.look_for_intents)

    def look_for_intents(self) -> Program:
        """Look who is about to remove the state, and did not see the pin."""
        listed = yield Find("intent")
        for key in sorted(listed):
            # An intent that goes away between LIST and GET has its tombstones in place: they are seen below.
            if self.state in key.content and (yield Find("intent", frozenset({key.state}))):
                return then(self.fail)
        return then(self.look_for_fences)

    def look_for_fences(self) -> Program:
        """Look whether the state has been given up or removed: last, since an intent goes after its tombstones."""
        if (yield Find("abort", self.here)) or (yield Find("tombstone", self.here)):
            return then(self.fail)
        # The claim ends with the first step of taking the pin back.
        return then(self.unpin if self.unpins else None, claim=Claim("holds", self.own))

    def unpin(self) -> Program:
        """DELETE the pin."""
        yield Delete(self.own)
        return then(None)

    def fail(self) -> Program:
        """Take the pin back: somebody removes the state."""
        yield Delete(self.own)
        return then(None, claim=Claim("pin failed", self.own))

    @property
    def own(self) -> Key:
        """The pin."""
        return pin(self.state, self.name)

    @property
    def here(self) -> frozenset[str]:
        """The state, as calls take it."""
        return frozenset({self.state})
