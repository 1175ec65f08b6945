"""The storage of a spool, in which what makes room has room on a full disk as well.

Without their notes nothing that is at the remote is removed, so that they are among it.
"""

from __future__ import annotations

from typing_extensions import override

from statevault.format.keys import ABORTS, INTENTS, TOMBSTONES
from statevault.state_persistence.spool.ledger import FOLDER
from statevault.state_persistence.spool.reserve import Reserve
from statevault.storage import Body, Storage, StorageWrapper

__all__ = ["ReservingStorage"]

_MAKES_ROOM = (ABORTS, INTENTS, TOMBSTONES, FOLDER)


class ReservingStorage(StorageWrapper):
    """Passes calls on. Records of removals, and the notes of the replication, may take the place of the reserve.

    Args:
        inner: The storage.
        reserve: Gives way to them.
    """

    def __init__(self, inner: Storage, reserve: Reserve) -> None:
        super().__init__(inner)
        self._reserve = reserve

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        def put() -> int:
            return super(ReservingStorage, self).put(key, body, create_only=create_only)

        return self._reserve.instead(put) if key.startswith(_MAKES_ROOM) else put()

    @override
    def get_into(self, key: str, start: int, target: memoryview) -> None:
        self.inner.get_into(key, start, target)
