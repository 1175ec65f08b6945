"""The folder in which states wait: an ordinary store on the local disk, and what replication notes beside it."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

from statevault.errors import CorruptStateError, StateVaultError, StorageFullError
from statevault.format.keys import StateKey
from statevault.format.records import CommitRecord
from statevault.state_persistence.kept_states import KeptStates
from statevault.state_persistence.pruning.removal import give_up_stale
from statevault.state_persistence.publish.commit import SaveRequest, commit_snapshot
from statevault.state_persistence.publish.names import StateNames
from statevault.state_persistence.publish.reuse import Base
from statevault.state_persistence.records.catalog import Listing
from statevault.state_persistence.spool.config import Spool
from statevault.state_persistence.spool.ledger import FOLDER, DoneState, Ledger
from statevault.state_persistence.spool.lock import SpoolLock
from statevault.state_persistence.spool.reserve import Reserve
from statevault.state_persistence.spool.reserving_storage import ReservingStorage
from statevault.state_persistence.spool.room import SpoolRoom
from statevault.state_persistence.spool.view import SpoolView
from statevault.storage import LocalStorage, Storage

__all__ = ["SpoolFolder"]

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_COLLECTIONS = 24 * 3600.0


class SpoolFolder:
    """A spool's folder. May be used by several threads, and beside other processes.

    Args:
        config: Where, and how much it may hold.
        remote: The URL of the remote store, without credentials.
        storage: The objects in the folder; for tests.

    Attributes:
        config: As given.
        storage: The objects in the folder.
        states: The store in it.
        side: The same, for copies.
        room: Keeps it to its size.

    Raises:
        StoreNotFoundError: The path is that of a file.
    """

    def __init__(self, config: Spool, remote: str, *, storage: Storage | None = None) -> None:
        self.config = config
        self._reserve = Reserve(config.root)
        self.storage = ReservingStorage(storage or LocalStorage(config.root), self._reserve)
        self.states = KeptStates(self.storage)
        self.side = self.states._copy_side()  # noqa: SLF001 - a store as well
        self.room = SpoolRoom(config, self.states, self.view, self._reserve)
        self._collected_at = -math.inf
        self._ledger = Ledger(self.storage, remote)
        self._users = SpoolLock(Path(config.root, FOLDER, "users.lock"))
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Take part in its use. Who comes while nobody else is there clears away what killed processes have left.

        Raises:
            StorageError: The folder can't be used.
        """
        if self._pid != os.getpid():  # a forked child: a thread of its parent may have held the lock
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self.room.start_anew()
            self._reserve.start_anew()
        with self._lock:
            if self._users.is_held:
                return
            if self._users.try_acquire() and self.states.exists():
                self._clear_debris()
            self._users.share()
            self._reserve.fill()

    def close(self) -> None:
        """Give everything back."""
        self._users.release()
        self.states._close_storages()  # noqa: SLF001 - a store as well

    def view(self) -> SpoolView:
        """What lies in it now.

        Raises:
            FormatError: The folder holds something else than a store.
            StorageError: The disk failed.
        """
        # The states first: one that is replicated and removed in between is then known as done, or not at all.
        records = self.side.catalog.records(self.side.catalog.listing().visible)
        readable = tuple(record for record in records if not isinstance(record, CorruptStateError))
        return SpoolView(readable, self._ledger.read())

    def has(self, state: str) -> bool:
        """Whether a state lies in it.

        Raises:
            StorageError: And the others of :meth:`view`.
        """
        return any(key.state == state for key in self.side.catalog.listing().visible)

    def pending_keys(self) -> list[StateKey]:
        """The states that are to be replicated, oldest first.

        Raises:
            StorageError: And the others of :meth:`view`.
        """
        return [StateKey(record.sequence, record.state) for record in self.view().pending]

    def unfinished_keys(self) -> list[StateKey]:
        """The states that are to be replicated, and those whose pins are.

        Raises:
            StorageError: And the others of :meth:`view`.
        """
        view = self.view()
        records = [*(record for record, _ in view.with_waiting_pins), *view.pending]
        return [StateKey(record.sequence, record.state) for record in records]

    def note_copying(self, state: str | None, *, by: str) -> None:
        """Note which state is being copied, so that nobody drops it; for the process that replicates.

        Args:
            state: Its name; None for none.
            by: Who copies it, as the remote knows it.

        Raises:
            StorageError: The disk failed.
        """
        record = self._ledger.read()
        if (record.copying, record.writer) != (state, by):
            self._ledger.write(record.model_copy(update={"copying": state, "writer": by}))

    def note_remote(self, listing: Listing) -> None:
        """Note what the remote store is known by, and forget what was replicated to another one that was there before.

        For the process that replicates.

        Raises:
            StorageError: The disk failed.
        """
        ledger = self._ledger.read()
        current = ledger.at(listing.ids, is_empty=not listing.objects)
        if current != ledger:
            self._ledger.write(current)
        if ledger.done and not current.done:
            _logger.warning(
                "%s was wiped: what is in the spool %s is replicated again", self._ledger.remote, self.storage.url
            )

    def note_done(self, record: CommitRecord, remote_name: str | None, *, ids: Collection[str]) -> None:
        """Note that nothing is to be replicated of a state any more but its pins; for the process that replicates.

        Args:
            record: Its marker in the spool.
            remote_name: Its name at the remote; None if it could not be replicated.
            ids: What the remote store is known by.

        Raises:
            StorageError: The disk failed.
        """
        visible = {key.state for key in self.side.catalog.listing().visible}
        done = DoneState(manifest=record.manifest.digest, state=remote_name, pins_wait=remote_name is not None)
        self._ledger.write(self._ledger.read().at(ids).with_done(record.state, done, among=visible))

    def note_pinned(self, record: CommitRecord) -> None:
        """Note that the pins of a state are at the remote; for the process that replicates.

        Args:
            record: Its marker in the spool.

        Raises:
            StorageError: The disk failed.
        """
        ledger = self._ledger.read()
        if ledger.is_done(record) and ledger.done[record.state].pins_wait:
            self._ledger.write(ledger.with_pins(record.state))

    def commit(self, names: StateNames, request: SaveRequest) -> tuple[CommitRecord, Base]:
        """Publish a snapshot in the spool. On a full disk, states are dropped until it fits, but never the newest.

        Args:
            names: As for :func:`~statevault.state_persistence.publish.commit.commit_snapshot`.
            request: As for it.

        Raises:
            StorageFullError: The disk is full, and nothing more may be dropped.
            Exception: And the others of that function.
        """
        self.enter()
        try:
            committed = self._commit_in_the_room_there_is(names, request)
            try:
                self.room.bound()
            except StateVaultError as error:
                # The state is safe; the next save bounds the spool again.
                _logger.warning("the spool %s could not be brought to its size: %s", self.storage.url, error)
        finally:
            self._reserve.fill()
        return committed

    def _commit_in_the_room_there_is(self, names: StateNames, request: SaveRequest) -> tuple[CommitRecord, Base]:
        while True:
            try:
                return commit_snapshot(self.storage, self.side.catalog, names, request)
            except StorageFullError as error:
                self._make_room(error)
                if request.name is not None:
                    error.add_note("There is room now, but a name is used once only: save again under another one.")
                    raise

    def _make_room(self, error: StorageFullError) -> None:
        """Drop states, or say in the error of a save why none could be dropped, and raise it."""
        try:
            if self.room.make():
                return
        except StorageFullError:
            error.add_note(
                f"Nor could states of the spool {self.storage.url} be dropped, as there is no room for the records of "
                "that: free some."
            )
            raise error from None
        error.add_note(
            f"The spool {self.storage.url} has nothing left to drop but its newest state, and those that are pinned or "
            "under way."
        )
        raise error

    def collect(self) -> None:
        """Collect garbage once a day, and at the start: records of the many states that have come and gone.

        Raises:
            StateVaultError: It was not possible; it is tried again a day later.
        """
        now = time.monotonic()
        if now - self._collected_at >= _SECONDS_BETWEEN_COLLECTIONS and self.states.exists():
            self._collected_at = now
            self.states.gc()

    def _clear_debris(self) -> None:
        side = self.side
        try:
            given_up = give_up_stale(side.storage, side.catalog, by=side.writer, stale_after=timedelta.min)
            if given_up:
                self.states.gc()
        except StateVaultError as error:
            _logger.warning("debris of crashed saves stays in the spool %s: %s", self.storage.url, error)
