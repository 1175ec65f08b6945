"""The folder in which states wait: an ordinary store on the local disk, and what replication notes beside it."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from statevault.errors import CorruptStateError, StateVaultError, StorageFullError
from statevault.format.keys import StateKey
from statevault.format.manifest import Manifest
from statevault.format.records import CommitRecord
from statevault.state_persistence.kept_states import KeptStates
from statevault.state_persistence.pruning.removal import give_up_stale
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.publish.commit import SaveRequest, commit_snapshot
from statevault.state_persistence.publish.names import StateNames
from statevault.state_persistence.retention import StoredSizes
from statevault.state_persistence.spool.config import Spool
from statevault.state_persistence.spool.ledger import FOLDER, DoneState, Ledger, LedgerRecord
from statevault.state_persistence.spool.lock import SpoolLock
from statevault.state_persistence.spool.thinning import SpooledState, states_to_drop
from statevault.storage import LocalStorage, Storage

__all__ = ["SpoolFolder", "SpoolView"]

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_WARNINGS = 600.0
_SECONDS_BETWEEN_COLLECTIONS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class SpoolView:
    """What lies in a spool at one moment.

    Attributes:
        records: All states whose marker can be read, oldest first.
        ledger: What was replicated.
    """

    records: tuple[CommitRecord, ...]
    ledger: LedgerRecord

    @property
    def pending(self) -> list[CommitRecord]:
        """The states that are to be replicated, oldest first."""
        return [record for record in self.records if not self.ledger.is_done(record)]

    @property
    def done(self) -> list[CommitRecord]:
        """The others, oldest first."""
        return [record for record in self.records if self.ledger.is_done(record)]

    @property
    def with_waiting_pins(self) -> list[tuple[CommitRecord, str]]:
        """Those of them whose pins may not be at the remote yet, with their names there."""
        return [
            (record, name)
            for record in self.done
            if self.ledger.done[record.state].pins_wait and (name := self.remote_name(record)) is not None
        ]

    def remote_name(self, record: CommitRecord) -> str | None:
        """The name of a state at the remote; None if it is not known to be there."""
        return self.ledger.done[record.state].state if self.ledger.is_done(record) else None

    def name_at_remote(self, name: str) -> str:
        """The name at the remote of a state that was saved under a name; any other name as it is."""
        found = (self.remote_name(record) for record in self.records if record.state == name)
        return next(found, None) or self.ledger.renamed.get(name, name)


class SpoolFolder:
    """A spool's folder. May be used by several threads, and beside other processes.

    Args:
        config: Where, and how much it may hold.
        remote: The URL of the remote store, without credentials.
        storage: The objects in the folder; for tests.

    Raises:
        StoreNotFoundError: The path is that of a file.
    """

    def __init__(self, config: Spool, remote: str, *, storage: Storage | None = None) -> None:
        self.config = config
        self.storage = storage or LocalStorage(config.root)
        self.states = KeptStates(self.storage)
        self.side = self.states._copy_side()  # noqa: SLF001 - a store as well
        self.dropped = 0
        self._told_at = -math.inf
        self._collected_at = -math.inf
        self._ledger = Ledger(self.storage, remote)
        self._shared = SharedObjects.in_store(self.storage, self.side.catalog)
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
        with self._lock:
            if self._users.is_held:
                return
            if self._users.try_acquire() and self.states.exists():
                self._clear_debris()
            self._users.share()

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

    def note_done(self, record: CommitRecord, remote_name: str | None) -> None:
        """Note that nothing is to be replicated of a state any more but its pins; for the process that replicates.

        Args:
            record: Its marker in the spool.
            remote_name: Its name at the remote; None if it could not be replicated.

        Raises:
            StorageError: The disk failed.
        """
        visible = {key.state for key in self.side.catalog.listing().visible}
        done = DoneState(manifest=record.manifest.digest, state=remote_name, pins_wait=remote_name is not None)
        self._ledger.write(self._ledger.read().with_done(record.state, done, among=visible))

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

    def commit(self, names: StateNames, request: SaveRequest) -> tuple[CommitRecord, Manifest]:
        """Publish a snapshot in the spool. On a full disk, states are dropped until it fits, but never the newest.

        Args:
            names: As for :func:`~statevault.state_persistence.publish.commit.commit_snapshot`.
            request: As for it.

        Raises:
            StorageFullError: The disk is full, and nothing more may be dropped.
            Exception: And the others of that function.
        """
        self.enter()
        while True:
            try:
                committed = commit_snapshot(self.storage, self.side.catalog, names, request)
                break
            except StorageFullError as error:
                if not self._make_room():
                    error.add_note(
                        f"The spool {self.storage.url} has nothing left to drop but its newest state, and those that "
                        "are pinned or under way."
                    )
                    raise
                if request.name is not None:
                    error.add_note("There is room now, but a name is used once only: save again under another one.")
                    raise
        try:
            self.bound()
        except StateVaultError as error:
            # The state is safe; the next save bounds the spool again.
            _logger.warning("the spool %s could not be brought to its size: %s", self.storage.url, error)
        return committed

    def bound(self) -> None:
        """Drop states until the spool holds no more than it may.

        Raises:
            StorageError: The disk failed.
        """
        if self.config.max_bytes is not None:
            with self._lock:
                self._drop(self.config.max_bytes)

    def trim(self) -> None:
        """Remove the states that are at the remote, but for the newest.

        Raises:
            StorageError: The disk failed.
        """
        view = self.view()
        there = [record.state for record in view.done if view.remote_name(record) is not None]
        surplus = there[: max(0, len(there) - self.config.keep_replicated)]
        if surplus:
            self.states.remove(surplus, reason="replicated")

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

    def _make_room(self) -> bool:
        """Drop states because the disk is full: what is at the remote, or else half of what may go."""
        with self._lock:
            view = self.view()
            sizes = self._sizes(view)
            pending = [record.state for record in view.pending]
            if view.done and self._drop(sizes.together(pending)):
                return True
            return self._drop(sizes.together(pending) // 2)

    def _drop(self, max_bytes: int) -> bool:
        view = self.view()
        protected = self.states.protected()
        done = {record.state for record in view.done}
        states = [
            SpooledState(
                name=record.state,
                sequence=record.sequence,
                is_done=record.state in done,
                is_protected=record.state in protected or record.state == view.ledger.copying,
            )
            for record in view.records
        ]
        sizes = self._sizes(view)

        def size_of(names: Collection[str]) -> int:
            return sizes.together(names)

        chosen = states_to_drop(states, size_of, max_bytes)
        if not chosen:
            return False
        result = self.states.remove(chosen, reason="dropped to bound the spool")
        lost = [name for name in result.removed if name not in done]
        if lost:
            self.dropped += len(lost)
            now = time.monotonic()
            is_told = now - self._told_at < _SECONDS_BETWEEN_WARNINGS
            self._told_at = self._told_at if is_told else now
            _logger.log(
                logging.INFO if is_told else logging.WARNING,
                "The spool %s is full: dropped %d states that were not replicated yet, such as %s",
                self.storage.url,
                len(lost),
                lost[0],
            )
        return bool(result.removed)

    def _sizes(self, view: SpoolView) -> StoredSizes:
        self._shared.forget_others([StateKey(record.sequence, record.state) for record in view.records])
        return StoredSizes(view.records, self._shared)
