"""Somebody who wipes a store (``docs/format.md``, section 13)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.explorer import Program, then
from tests.protocol.store import Wipe

__all__ = ["Wiper"]


@dataclass(frozen=True)
class Wiper:
    """Wipes the store, once.

    Attributes:
        waits: Not while somebody acts on what store this is: the window that remains.
    """

    waits: bool = True

    def begin(self) -> Program:
        """Delete everything."""
        yield Wipe(waits=self.waits)
        return then(None)
