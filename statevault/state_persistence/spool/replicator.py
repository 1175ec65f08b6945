"""Replication: one thread that copies what waits in a spool to the remote, oldest first, one state after the other.

* What is copied is committed, and is committed at the remote before the next one is begun.
* What was replicated is noted in the spool behind the commit at the remote. Whoever dies in between finds it there.
* Nothing that fails ends the thread, or a save. A failure is logged once in an outage and then now and then, counted,
  and shown in the status.
* The thread of one process works on a spool at a time; those of others look now and then whether it is their turn.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from statevault.errors import (
    InvalidNameError,
    SaveFencedError,
    SaveTimeoutError,
    StateVaultError,
    StorageError,
    StoreReplacedError,
)
from statevault.format.keys import VAULT, StateKey
from statevault.format.records import CommitRecord
from statevault.state_persistence.concurrency.patience import Patience
from statevault.state_persistence.copies.copying import CopiedState, CopySide, copy_states
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.spool.arrivals import Arrivals
from statevault.state_persistence.spool.bandwidth import PacedStorage, TokenBucket
from statevault.state_persistence.spool.folder import SpoolFolder
from statevault.state_persistence.spool.ledger import FOLDER
from statevault.state_persistence.spool.lock import SpoolLock
from statevault.state_persistence.spool.remote_catalog import RemoteCatalog
from statevault.state_persistence.spool.signals import Signals
from statevault.state_persistence.spool.status import ReplicationPhase, ReplicationStatus
from statevault.state_persistence.spool.takeover import give_up_copies
from statevault.state_persistence.spool.tally import Tally
from statevault.state_persistence.spool.uplink import Uplink
from statevault.state_persistence.spool.view import SpoolView
from statevault.storage import RetryingStorage, Storage

__all__ = ["Replicator"]

_logger = logging.getLogger(__name__)
# Not the global generator, which is the agent's.
_OWN_RANDOM = random.SystemRandom()

_LOOK_AGAIN_S = 5.0
"""How often the spool is looked at for what other processes have saved, and whether they have ended."""
_SHORTEST_WAIT_S = 0.1
_STOP_S = 5.0
"""How long the thread is waited for when it was told to stop: it takes back what it has put of a state."""


class _StoppedError(StorageError):
    """The copy of a state was broken off because the store is closed."""


class Replicator:
    """Replicates one spool to one remote. All methods may be called from any thread.

    Args:
        folder: The spool.
        remote: The storage of the remote store.
        by: Who writes there.
    """

    def __init__(self, folder: SpoolFolder, remote: Storage, *, by: str) -> None:
        self._folder = folder
        self._config = folder.config
        self._signals = Signals()
        self._plain_remote = remote
        bandwidth = self._config.bandwidth
        self._bucket = None if bandwidth is None else TokenBucket(bandwidth, sleep=self._signals.sleep)
        uplink = Uplink(PacedStorage(remote, self._pace), on_failure=self._failed, on_success=self._answered)
        storage = RetryingStorage(uplink, self._config.retry, sleep=self._sleep_before_retry)
        self._remote = RemoteCatalog(storage)
        self._target = CopySide(storage, self._remote, by)
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._signals.start_anew()
        self._starting = threading.RLock()  # a signal handler may come in between
        self._owner = SpoolLock(Path(self._config.root, FOLDER, "replication.lock"))
        self._thread: threading.Thread | None = None
        self._tally = Tally(self._target.storage.url, refused_delay_s=self._config.refused_delay_s)
        self._tries = 0
        self._has_looked = False
        self._arrivals = Arrivals(self._folder, self._target, self._tally)

    # -- for the store

    def notify(self) -> None:
        """There is something to do, or may be. The thread is started where it does not run."""
        if self._pid != os.getpid():
            self._start_anew()  # a forked child: the thread is its parent's, and so is the lock's state
        self._signals.tell_news()
        with self._starting:
            if self._thread is None and not self._signals.is_stopping:
                thread = threading.Thread(target=self._run, name="statevault-replicate", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # there is no thread to be had; the next save tries again
                    self._tally.count_failed_try(StateVaultError(f"replication can't be started: {error}"))
                else:
                    self._thread = thread

    def hurry(self) -> None:
        """Try again now what waits to be tried again."""
        self._signals.hurry()
        self.notify()

    def forget(self, names: Iterable[str]) -> None:
        """Take back what is just being copied of these states, which were removed."""
        self._arrivals.refuse(names)

    def status(self) -> ReplicationStatus:
        """How it goes. Looks into the spool, not at the remote."""
        failure = ""
        pending: list[CommitRecord] = []
        copying = None
        try:
            view = self._folder.view()
            pending, copying = view.pending, view.ledger.copying
        except StateVaultError as error:
            failure = str(error)
        ages = [(datetime.now(UTC) - record.created_at).total_seconds() for record in pending[:1]]
        tally = self._tally
        return ReplicationStatus(
            spool=self._config.root,
            remote=self._target.storage.url,
            phase=tally.phase,
            pending=len(pending),
            pending_bytes=sum(record.new_size + record.manifest.length for record in pending),
            oldest_pending_age_s=max(0.0, ages[0]) if ages else None,
            copying=copying if copying in {record.state for record in pending} else None,
            replicated=tally.replicated,
            sent_bytes=tally.sent_bytes,
            dropped=self._folder.room.dropped,
            damaged=tally.damaged,
            failures=tally.failures,
            last_replicated=tally.last_replicated,
            last_replicated_at=tally.last_replicated_at,
            last_error=failure or tally.last_error,
        )

    def wait(self, patience: Patience) -> None:
        """Wait until all states that are pending now are replicated, with their pins, or dropped.

        Raises:
            SaveTimeoutError: The time is over.
            StateVaultError: The store is closed.
            StorageError: The spool's disk failed.
        """
        states = set(self._folder.unfinished_keys())
        self.hurry()

        def ended(seconds: float) -> bool:
            # In this order: a state is pending until it is noted, and only then counted.
            return self._wait_for(
                lambda: states.isdisjoint(self._folder.unfinished_keys()) and not self._arrivals.is_noting, seconds
            )

        patience.wait(ended, lambda: self._told(states))

    def close(self, patience: Patience) -> None:
        """Stop. What is pending is waited for as long as the remote answers, and :attr:`Spool.linger_s` at most.

        Args:
            patience: How long in all, at most.
        """
        with suppress(StateVaultError):
            self._linger(min(self._config.linger_s, patience.left_s))
        self._signals.stop()
        with self._starting:
            thread = self._thread
        if thread is not None:

            def ended(seconds: float) -> bool:
                thread.join(seconds)
                return not thread.is_alive()

            try:
                Patience(min(_STOP_S, max(1.0, patience.left_s))).wait(ended, lambda: "ending the replication")
            except SaveTimeoutError as error:
                _logger.warning("%s; it is left behind, and what is pending goes on at the next start", error)
        with suppress(StateVaultError):
            pending = self._folder.pending_keys()
            if pending:
                _logger.info("%d states wait in %s for the next start", len(pending), self._config.root)

    @property
    def has_ended(self) -> bool:
        """Whether its thread runs no more."""
        return self._thread is None or not self._thread.is_alive()

    def _linger(self, seconds: float) -> None:
        if seconds <= 0 or self._tally.has_failed or not self._folder.unfinished_keys():
            return
        failures = self._tally.failures
        self.hurry()

        def nothing_to_wait_for() -> bool:
            lost_hope = self._tally.failures > failures or self._tally.phase is ReplicationPhase.ELSEWHERE
            return lost_hope or not self._folder.unfinished_keys()

        self._wait_for(nothing_to_wait_for, seconds)

    def _wait_for(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait for what the thread does.

        Raises:
            StateVaultError: There is no thread that would do it.
        """
        has_thread = self._thread is not None
        if self._signals.wait_for(holds, seconds if has_thread else 0.0):
            return True
        if self._signals.is_stopping or not has_thread:
            why = "the store is closed" if self._signals.is_stopping else self._tally.last_error
            raise StateVaultError(f"{why}: what waits in {self._config.root} goes on at the next start")
        return False

    def _told(self, states: set[StateKey]) -> str:
        left = len(states.intersection(self._folder.unfinished_keys()))
        error = f" (the last error: {self._tally.last_error})" if self._tally.last_error else ""
        return f"replicating {left} states of {self._config.root} to {self._target.storage.url}{error}"

    # -- the thread

    def _run(self) -> None:
        try:
            while not self._signals.is_stopping:
                heard = self._signals.heard
                seconds = self.run_once()
                self._signals.has_changed()
                # After a failure, what is saved meanwhile changes nothing.
                self._signals.rest(seconds, heard, for_hurry_only=self._tally.has_failed)
        finally:
            self._owner.release()
            with self._starting:
                self._tally.phase = ReplicationPhase.STOPPED
                self._thread = None
            self._signals.has_changed()

    def run_once(self) -> float:
        """Replicate all that is pending, as far as that goes; what the thread does again and again.

        Returns:
            For how many seconds there is nothing to do then, unless somebody says otherwise.
        """
        try:
            self._folder.enter()
            if not self._owner.try_acquire():
                self._tally.phase = ReplicationPhase.ELSEWHERE
                return _LOOK_AGAIN_S
            self._collect_garbage()
            self._look_at_remote()
            view = self._folder.view()
            self._arrivals.carry_over_pins(view)
            if view.pending:
                self._copy(view)
                return 0.0
            self._folder.room.trim()  # what a process did not come to that died, or was told of an error
            self._arrivals.forget()
            self._tally.phase = ReplicationPhase.IDLE
            return _LOOK_AGAIN_S
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            return self._seconds_until_next_try(error)

    def look_again(self) -> None:
        """Find out whether the remote is still the store that was replicated to."""
        self._has_looked = False
        self.notify()

    def _look_at_remote(self) -> None:
        """Before anything else is done: a remote that was wiped lacks what was replicated."""
        ledger = self._folder.view().ledger
        if self._has_looked or not (ledger.ids or ledger.done):
            return
        self._has_looked = True
        try:
            # Without the patience of a copy: if it can't be reached, the next copy finds out.
            self._folder.note_remote(Catalog(self._plain_remote).listing())
        except StateVaultError as error:
            _logger.debug("what the remote has is not known: %s", error)

    def _collect_garbage(self) -> None:
        try:
            self._folder.collect()
        except StateVaultError as error:
            _logger.warning("garbage stays in the spool %s: %s", self._config.root, error)

    def _copy(self, view: SpoolView) -> None:
        """Copy what is pending. States that are saved meanwhile come next."""
        self._tally.phase = ReplicationPhase.COPYING
        records = {record.state: record for record in view.pending}
        keys = [StateKey(record.sequence, record.state) for record in view.pending]
        following = dict(zip(records, [*list(records)[1:], None], strict=True))
        # The one before them, of which they reuse most, is shown to the copy as one that is there already.
        anchors = [(record, name) for record in view.done if (name := view.remote_name(record)) is not None]
        anchor = anchors[-1] if anchors else None
        self._remote.expect(view.ledger.ids, records, anchor)
        if anchor is not None:
            keys.insert(0, StateKey(anchor[0].sequence, anchor[0].state))
        current = next(iter(records))
        by = self._target.writer

        def note(copied: CopiedState) -> None:
            nonlocal current
            if copied.state in records:
                self._note(records[copied.state], copied)
                current = following[copied.state] or ""
                self._folder.note_copying(following[copied.state], by=by)

        if view.ledger.writer not in {None, by}:
            # It had the lock that this process has now: it is dead.
            give_up_copies(self._target.storage, of=str(view.ledger.writer), by=by)
        self._folder.note_copying(current, by=by)
        try:
            copy_states(self._folder.side, self._target, keys, on_state=note)
        except StoreReplacedError:
            self._has_looked = False  # the next round looks, and copies what the other store lacks
        except InvalidNameError as error:
            # It can never be replicated under its name, and those behind it shall not wait for ever.
            self._note(records[current], CopiedState(current, "damaged", error=str(error)))
            self._folder.note_copying(None, by=by)

    def _note(self, record: CommitRecord, copied: CopiedState) -> None:
        self._tries = 0
        self._arrivals.note(record, copied)
        self._signals.has_changed()

    # -- what goes wrong

    def _failed(self, error: StorageError) -> None:
        self._signals.note_failed_call()
        if not self._signals.is_stopping:
            self._tally.count_failed_call(error)
            self._signals.has_changed()

    def _answered(self) -> None:
        self._tally.note_answer()

    def _seconds_until_next_try(self, error: Exception) -> float:
        if self._signals.is_stopping:
            return 0.0
        transient = isinstance(error, SaveFencedError) or (isinstance(error, StorageError) and error.transient)
        self._tries += 1
        seconds = (
            max(_SHORTEST_WAIT_S, self._config.retry.delay_s(self._tries, _OWN_RANDOM.random()))
            if transient
            else self._config.refused_delay_s * _OWN_RANDOM.uniform(0.75, 1.25)
        )
        self._tally.count_failed_try(error, again_in_s=seconds)
        self._tally.phase = ReplicationPhase.RETRYING if transient else ReplicationPhase.REFUSED
        return seconds

    # -- waiting

    def _pace(self, key: str, count: int) -> None:
        if self._bucket is not None:
            self._bucket.take(count)
        # Records go all the same: a copy that is broken off takes back what it has put.
        if self._signals.is_stopping and not key.startswith(VAULT):
            raise self._stopped()

    def _sleep_before_retry(self, seconds: float) -> None:
        self._signals.sleep_before_retry(seconds)
        if self._signals.is_stopping:
            raise self._stopped()

    def _stopped(self) -> StorageError:
        url = self._target.storage.url
        return _StoppedError(f"the copy to {url} was broken off, since the store is closed", url=url)
