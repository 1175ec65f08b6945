"""Saves of the running agent: when, at most one at a time, and never at the cost of the agent.

This is the one place of the runtime that goes on after an error: a save that fails is logged, counted and
shown in the status, and is tried again at the next occasion. At the end it is the place that waits, and that knows
for how long and what is lost by waiting no longer.
"""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import JsonValue
from upath import UPath

from statevault.errors import SaveTimeoutError, StateVaultError
from statevault.state_persistence import StateStore, check_metadata
from statevault.state_persistence.concurrency.patience import Patience
from statevault.state_persistence.snapshot.prepared_save import PreparedSave
from statevault.storage.descriptors import DESCRIPTORS
from statevault.threads.cleanup import Cleanup
from statevault.threads.save_log import SaveLog, SavePhase, SaveReport

__all__ = ["SaveStatus", "SaveSupervisor", "keep_all", "never", "nothing"]

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPEATED_ERRORS = 60.0
_RETENTION_FAILED = "retention failed"


@dataclass(frozen=True, slots=True)
class SaveStatus:
    """How the saves of this run went.

    Attributes:
        saves: How many states were committed.
        failures: How many saves failed, in the snapshot or in the publish.
        cleanup_failures: How often retention failed after a save.
        pending: Whether a publish is under way.
        last_name: The name of the state committed last.
        last_duration_s: Seconds from the begin of its snapshot until it was seen to be committed.
        last_stall_s: For how many seconds the acting thread stood still for the last snapshot.
        last_size_bytes: Bytes of the last state's files; None while that is not known.
        last_committed_at: When that was, by the clock of this machine (UTC).
        last_error: What went wrong last; empty when nothing did.
        snapshot_s: Seconds that all snapshots took together.
        publish_s: Seconds that all publishes took together, failed ones included.
        final_s: Seconds that the save of the final state took.
        stalls: For how many snapshots the acting thread stood still.
        stall_s: For how many seconds it did so in all.
        size_bytes: Bytes of the files of all committed states, as far as known.
    """

    saves: int = 0
    failures: int = 0
    cleanup_failures: int = 0
    pending: bool = False
    last_name: str | None = None
    last_duration_s: float | None = None
    last_stall_s: float | None = None
    last_size_bytes: int | None = None
    last_committed_at: datetime | None = None
    last_error: str = ""
    snapshot_s: float = 0.0
    publish_s: float = 0.0
    final_s: float = 0.0
    stalls: int = 0
    stall_s: float = 0.0
    size_bytes: int = 0


def never() -> bool:
    """A save condition that never holds."""
    return False


def nothing() -> Mapping[str, JsonValue]:
    """No metadata."""
    return {}


def keep_all(path: UPath | None) -> None:
    """A retention that removes nothing."""


class SaveSupervisor:
    """Decides when to save, and sees to it that saves go well.

    Its methods are for the control thread, except :meth:`request` and :attr:`status`, which are for any.

    Attributes:
        log: What became of the last saves.
    """

    def __init__(
        self,
        store: StateStore,
        *,
        condition: Callable[[], bool] = never,
        metadata: Callable[[], Mapping[str, JsonValue]] = nothing,
        cleanup: Callable[[UPath | None], None] = keep_all,
        cleanup_interval_s: float = 60.0,
        final_timeout_s: float = 3600.0,
        report_interval_s: float = 10.0,
    ) -> None:
        """Make a supervisor.

        Args:
            store: Where to save.
            condition: Whether it is time to save.
            metadata: What to keep with the next state; asked while the threads stand still.
            cleanup: Applies retention after the state of that path was committed; with None, again without one.
                Called in a thread of its own.
            cleanup_interval_s: Seconds from the end of a `cleanup` until it is called with None.
            final_timeout_s: For how many seconds at most saves and retention are waited for at the end.
            report_interval_s: Seconds between two lines in the log that tell of such a wait.
        """
        self._store = store
        self._condition = condition
        self._metadata = metadata
        self._cleanup = cleanup
        self.log = SaveLog()
        self._status = SaveStatus()
        self._due = False
        self._prepared: PreparedSave | None = None
        self._pending: Future[UPath] | None = None
        # Of the last snapshot:
        self._report_id = ""
        self._began_at = 0.0
        self._preparing_s = 0.0
        self._snapshot_ended_at = 0.0
        self._background = Cleanup(self._after_commit, interval_s=cleanup_interval_s)
        self._sizes: deque[tuple[str, int | None]] = deque()  # of states that were committed, by name
        self._committed: dict[str, str] = {}  # the reports of those whose size is not known yet
        self._logged: dict[str, float] = {}
        self._final_timeout_s = final_timeout_s
        self._report_interval_s = report_interval_s
        self._patience: Patience | None = None  # from when the end begins
        self._final_is_settled = False

    @property
    def status(self) -> SaveStatus:
        """How the saves went so far."""
        return replace(self._status, pending=self._pending is not None)

    def request(self) -> SaveReport:
        """Want a save, whatever the condition says.

        Returns:
            What is known of it now; :attr:`log` has under its id what becomes of it.
        """
        return self.log.request()

    def is_wanted(self) -> bool:
        """Whether a snapshot was requested and can be taken now.

        It can't while a publish is under way: at most one snapshot lies in memory.
        """
        self._collect()
        return self.log.waiting and self._pending is None

    def is_due(self) -> bool:
        """Whether a snapshot is to be taken now, by request or by the condition.

        The condition is not asked while a publish is under way, so that a save that becomes due meanwhile is
        not forgotten.
        """
        self._due = self.is_wanted() or (self._pending is None and self._condition_holds())
        return self._due

    def _condition_holds(self) -> bool:
        try:
            return bool(self._condition())
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            self._count_failure("the condition for saving failed", error)
            return False

    def give_up(self, error: Exception) -> None:
        """The threads did not come to a stand: if that was for a save, it failed."""
        self._discard_prepared()
        if self._due:
            self._due = False
            self._count_failure("no state was saved: the threads did not pause", error, self.log.begin())

    def prepare_snapshot(self) -> None:
        """Save what only the training thread changes, which must stand still, while the agent acts on.

        If that fails, all of it is tried when all threads stand still.
        """
        self._discard_prepared()
        began_at = time.perf_counter()
        try:
            self._prepared = self._store.prepare_save()
        except Exception:
            _logger.debug("what was to be saved early could not be", exc_info=True)
        self._preparing_s = time.perf_counter() - began_at

    def _discard_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        self._preparing_s = 0.0
        if prepared is not None:
            prepared.discard()

    def take_snapshot(self) -> None:
        """Snapshot the components, or what is left of them, and publish in the background.

        The threads must stand still.
        """
        self._due = False
        self._report_id = self.log.begin()
        prepared, self._prepared = self._prepared, None
        self._began_at = time.perf_counter() - self._preparing_s
        self._preparing_s = 0.0
        save = self._store.save_state_async if prepared is None else prepared.finish
        try:
            self._pending = save(metadata=self._metadata_now())
        except Exception as error:  # noqa: BLE001 - see the module's docstring
            self._count_failure("no state was saved: the snapshot failed", error, self._report_id)
        self._snapshot_ended_at = time.perf_counter()
        snapshot_s = self._snapshot_ended_at - self._began_at
        self._status = replace(self._status, snapshot_s=self._status.snapshot_s + snapshot_s)
        self.log.update(self._report_id, snapshot_s=snapshot_s)
        if self._pending is not None:
            self.log.update(self._report_id, phase=SavePhase.PUBLISHING)

    def record_stall(self, stall_s: float) -> None:
        """Note for how long the acting thread stood still for the last snapshot."""
        self._status = replace(
            self._status,
            last_stall_s=stall_s,
            stalls=self._status.stalls + 1,
            stall_s=self._status.stall_s + stall_s,
        )
        self.log.update(self._report_id, stall_s=stall_s)

    def save_final(self, metadata: Mapping[str, JsonValue]) -> UPath:
        """Save when all threads have ended: wait for what is under way, save, and apply retention.

        Raises:
            SaveTimeoutError: It did not end in time; what runs is left behind.
            Exception: Whatever else made the save fail. Retention that fails is only counted.
        """
        self._end()
        self._discard_prepared()
        # It also fulfils what was asked for and not done before the end.
        report_id = self.log.begin()
        try:
            with DESCRIPTORS.to_the_last():
                self._await_publish("publishing the state before the final one")
                began_at = time.perf_counter()
                future = self._store.save_state_async(metadata={**self._metadata_now(), **metadata})
                self._await(future, "publishing the final state")
            path = future.result()
        except BaseException as error:
            self.forgo_final(error, report_id)
            raise
        self._final_is_settled = True
        duration_s = time.perf_counter() - began_at
        self._status = replace(self._status, final_s=duration_s)
        self._count_success(path, duration_s, report_id)
        return path

    def forgo_final(self, error: BaseException, report_id: str | None = None) -> None:
        """Note that no final state is saved, and why, unless one was or that was noted.

        What is under way is not waited for any more if the error is a signal's.
        """
        patience = self._end()
        if not isinstance(error, Exception):
            patience.end()
        if not self._final_is_settled:
            self._final_is_settled = True
            self._count_failure(f"the final state was not saved ({self._newest()})", error, report_id)

    def _metadata_now(self) -> Mapping[str, JsonValue]:
        try:
            return check_metadata(self._metadata())
        except Exception as error:  # noqa: BLE001 - a state is worth more than what is told about it
            self._log_error("a state is saved without its metadata, which could not be had or is no JSON", error)
            return {}

    def close(self) -> None:
        """Wait for the publish and the retention that are under way, unless the time for that is over.

        Raises:
            BaseException: What a signal handler raises in the meantime.
        """
        self._discard_prepared()
        if self.log.waiting:
            self.log.update(self.log.begin(), phase=SavePhase.FAILED, error="the system ended before it was saved")
        try:
            self._await_publish("publishing the last state")
        except BaseException as error:
            self._pending = None
            self._count_failure(f"the last state was left behind ({self._newest()})", error, self._report_id)
            if not isinstance(error, SaveTimeoutError):
                raise
        try:
            self._background.close(self._end())
        except BaseException as error:
            self._count_cleanup_failure(error)
            if not isinstance(error, SaveTimeoutError):
                raise
        self._collect()

    @property
    def seconds_left(self) -> float:
        """For how many seconds more the end may be waited for."""
        return self._end().left_s

    def _end(self) -> Patience:
        """The time for the end, which begins when it is first asked for."""
        if self._patience is None:
            self._patience = Patience(self._final_timeout_s, report_interval_s=self._report_interval_s)
        return self._patience

    def _await_publish(self, what: str) -> None:
        if self._pending is not None:
            self._await(self._pending, what)
            self._collect()

    def _await(self, future: Future[UPath], what: str) -> None:
        def ended(seconds: float) -> bool:
            return bool(concurrent.futures.wait([future], seconds).done)

        def told() -> str:
            error = f" (the last error: {self._status.last_error})" if self._status.last_error else ""
            return f"{what} to {self._store.url}{error}"

        self._end().wait(ended, told)

    def _collect(self) -> None:
        if self._pending is not None and self._pending.done():
            future, self._pending = self._pending, None
            now = time.perf_counter()
            self._status = replace(self._status, publish_s=self._status.publish_s + now - self._snapshot_ended_at)
            error = future.exception()
            if error is None:
                self._count_success(future.result(), now - self._began_at, self._report_id)
            else:
                self._count_failure("no state was saved: the publish failed", error, self._report_id)
        while self._sizes:
            name, size = self._sizes.popleft()
            self._status = replace(self._status, size_bytes=self._status.size_bytes + (size or 0))
            if name == self._status.last_name:
                self._status = replace(self._status, last_size_bytes=size)
            self.log.update(self._committed.pop(name), size_bytes=size)
        for error in self._background.take_failures():
            self._count_cleanup_failure(error)

    def _newest(self) -> str:
        newest = self._status.last_name
        return f"the newest that this run has saved is {newest}" if newest else "this run has saved none before"

    def _count_success(self, path: UPath, duration_s: float, report_id: str) -> None:
        self._status = replace(
            self._status,
            saves=self._status.saves + 1,
            last_name=path.name,
            last_duration_s=duration_s,
            last_size_bytes=None,
            last_committed_at=datetime.now(UTC),
        )
        self.log.update(report_id, phase=SavePhase.COMMITTED, name=path.name, duration_s=duration_s)
        self._committed[path.name] = report_id
        self._background.after(path)

    def _count_failure(self, what: str, error: BaseException, report_id: str | None = None) -> None:
        described = f"{what}: {error!r}"
        self._status = replace(self._status, failures=self._status.failures + 1, last_error=described)
        if report_id is not None:
            self.log.update(report_id, phase=SavePhase.FAILED, error=described)
        self._log_error(what, error)

    def _count_cleanup_failure(self, error: BaseException) -> None:
        self._status = replace(
            self._status,
            cleanup_failures=self._status.cleanup_failures + 1,
            last_error=f"{_RETENTION_FAILED}: {error!r}",
        )
        self._log_error(_RETENTION_FAILED, error)

    def _log_error(self, what: str, error: BaseException) -> None:
        if self._patience is not None:
            # Of a signal the stack says only where it was waited.
            _logger.error("%s: %s", what, error, exc_info=error if isinstance(error, Exception) else None)
            return
        # A condition that fails is asked many times a second: the same failure is logged once a minute.
        now = time.monotonic()
        if now - self._logged.get(what, -_SECONDS_BETWEEN_REPEATED_ERRORS) >= _SECONDS_BETWEEN_REPEATED_ERRORS:
            self._logged[what] = now
            _logger.error("%s; the agent goes on", what, exc_info=error)

    def _after_commit(self, path: UPath | None) -> None:
        """Look up how large the state is, and apply retention; in the thread for that."""
        if path is not None:
            self._sizes.append((path.name, self._size_of(path)))
        self._cleanup(path)

    def _size_of(self, path: UPath) -> int | None:
        try:
            return self._store.info(path.name).size
        except StateVaultError:
            # The state is safe; only its size stays unknown.
            _logger.debug("can't look up the size of %s", path.name, exc_info=True)
            return None
