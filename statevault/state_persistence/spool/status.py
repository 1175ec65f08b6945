"""How replication goes, for people and for monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

__all__ = ["ReplicationPhase", "ReplicationStatus"]


class ReplicationPhase(Enum):
    """What replication does just now."""

    IDLE = "idle"
    """Everything is at the remote."""
    COPYING = "copying"
    """A state is on its way."""
    RETRYING = "retrying"
    """The last call failed, and is tried again."""
    REFUSED = "refused"
    """The last call failed in a way that does not go away by itself; it is tried again all the same, but slowly."""
    ELSEWHERE = "elsewhere"
    """Another process replicates this spool; this one takes over when that one ends."""
    STOPPED = "stopped"
    """The store is closed."""


@dataclass(frozen=True, slots=True)
class ReplicationStatus:
    """How replication goes.

    What is pending is seen in the spool, whoever saved it. Counts are of this process.

    Attributes:
        spool: The folder.
        remote: The URL of the remote store, without credentials.
        phase: What it does just now.
        pending: How many states wait to be replicated, the one under way included.
        pending_bytes: Bytes that their saves have added to the spool: about what has to be sent.
        oldest_pending_age_s: For how many seconds the oldest of them has waited, by the clock of this machine; None if
            none is pending.
        copying: The name of the state under way, if any; also when another process replicates it.
        replicated: How many states were replicated.
        sent_bytes: Bytes of files that were put for them.
        dropped: How many states were dropped to bound the spool, before they were replicated.
        damaged: How many could not be replicated because they are damaged in the spool.
        failures: How many calls failed. A call that is tried again counts each time.
        last_replicated: The name of the state that was replicated last; its name in the spool.
        last_replicated_at: When that was, by the clock of this machine (UTC).
        last_error: What went wrong last; empty when nothing did.
    """

    spool: str
    remote: str
    phase: ReplicationPhase = ReplicationPhase.IDLE
    pending: int = 0
    pending_bytes: int = 0
    oldest_pending_age_s: float | None = None
    copying: str | None = None
    replicated: int = 0
    sent_bytes: int = 0
    dropped: int = 0
    damaged: int = 0
    failures: int = 0
    last_replicated: str | None = None
    last_replicated_at: datetime | None = None
    last_error: str = ""
