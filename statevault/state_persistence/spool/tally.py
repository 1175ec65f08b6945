"""How replication went so far: counts, the phase, and what the log is told of outages."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from statevault.errors import StateVaultError, StorageError
from statevault.state_persistence.spool.status import ReplicationPhase

__all__ = ["Tally"]

_logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_REPORTS = 600.0
_SECONDS_BETWEEN_OUTAGES = 60.0  # that are told of, where the network comes and goes


@dataclass(slots=True)
class _Outage:
    began_at: float
    told: ReplicationPhase | None = None
    """As what the log was told of it last."""


class Tally:
    """What is counted of one replication. All methods may be called from any thread.

    Args:
        remote: The URL of the remote store, for the log.
        refused_delay_s: About how many seconds after a refusal it is tried again, for the log.

    Attributes:
        phase: What it does just now.
        failures: How many calls failed.
        replicated: How many states were replicated.
        damaged: How many could not be, since they are damaged.
        sent_bytes: Bytes of files that were put.
        last_replicated: The name of the state that was replicated last.
        last_replicated_at: When that was.
        last_error: What went wrong last.
    """

    def __init__(self, remote: str, *, refused_delay_s: float) -> None:
        self._remote = remote
        self._refused_delay_s = refused_delay_s
        self._lock = threading.Lock()
        self._outage: _Outage | None = None
        self._logged_at = -math.inf
        self.phase = ReplicationPhase.IDLE
        self.failures = 0
        self.replicated = 0
        self.damaged = 0
        self.sent_bytes = 0
        self.last_replicated: str | None = None
        self.last_replicated_at: datetime | None = None
        self.last_error = ""

    @property
    def has_failed(self) -> bool:
        """Whether the last call failed."""
        return self.phase in {ReplicationPhase.RETRYING, ReplicationPhase.REFUSED}

    def count_failed_call(self, error: StorageError) -> None:
        """A call failed. The log is told when it is the first such of an outage, and then now and then."""
        now = time.monotonic()
        phase = ReplicationPhase.RETRYING if error.transient else ReplicationPhase.REFUSED
        with self._lock:
            self.failures += 1
            self.last_error = str(error)
            self.phase = phase
            self._outage = outage = self._outage or _Outage(now)
            # An outage may turn into a refusal, which somebody has to do something about.
            limit_s = _SECONDS_BETWEEN_REPORTS if outage.told is phase else _SECONDS_BETWEEN_OUTAGES
            if now - self._logged_at < limit_s:
                return
            self._logged_at = now
            outage.told = phase
        if phase is ReplicationPhase.RETRYING:
            _logger.warning("Replication to %s is interrupted, and tried again: %s", self._remote, error)
        else:
            _logger.warning(
                "%s refuses what is replicated; it is tried again in about %.0f s: %s",
                self._remote,
                self._refused_delay_s,
                error,
            )

    def note_answer(self) -> None:
        """A call did not fail: whatever outage there was is over."""
        with self._lock:
            outage, self._outage = self._outage, None
            if outage is None:
                return
            self.phase = ReplicationPhase.COPYING
        if outage.told is not None:
            _logger.info("Replication to %s goes on after %.0f s", self._remote, time.monotonic() - outage.began_at)

    def count_failed_try(self, error: Exception, *, again_in_s: float | None = None) -> None:
        """The try of a state failed, by a call that was counted or by something else.

        Args:
            error: What went wrong.
            again_in_s: When the next try is, for the log; None if that is not known.
        """
        described = str(error) or repr(error)
        with self._lock:
            if described == self.last_error:
                return
            self.failures += 1
            self.last_error = described
        is_bug = not isinstance(error, StateVaultError)
        again = "" if again_in_s is None else f", and is tried again in {again_in_s:.1f} s"
        _logger.warning("A state was not replicated%s: %s", again, described, exc_info=error if is_bug else None)

    def count_replicated(self, state: str, sent_bytes: int) -> None:
        """A state was replicated."""
        with self._lock:
            self.replicated += 1
            self.sent_bytes += sent_bytes
            self.last_replicated = state
            self.last_replicated_at = datetime.now(UTC)
        _logger.info("Replicated %s to %s: %d bytes sent", state, self._remote, sent_bytes)

    def count_damaged(self, state: str, error: str) -> None:
        """A state can't be replicated."""
        with self._lock:
            self.damaged += 1
            self.last_error = error
        _logger.error("%s is damaged in the spool, and can't be replicated: %s", state, error)
