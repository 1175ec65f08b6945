"""How a spool is to work."""

from __future__ import annotations

import math
import os
from dataclasses import KW_ONLY, dataclass

from statevault.storage import RetryPolicy, local_folder, normalized_url

__all__ = ["Spool"]

# A call is tried again for an hour: what of a state is at the remote already need not be sent again then.
_RETRY = RetryPolicy(max_attempts=10_000, first_delay_s=1.0, max_delay_s=60.0, deadline_s=3600.0)


@dataclass(frozen=True, slots=True)
class Spool:
    """A folder in which states are committed, and wait until they are at the remote store.

    Attributes:
        path: A folder of a local disk, which need not exist. It is an ordinary store.
        max_bytes: How much it may hold, beside the state that is being saved; None for as much as the disk does.
        bandwidth: Bytes per second that are put to the remote at most; None for no limit.
        keep_replicated: How many of the newest states stay in it when they are at the remote. With one at least, a save
            writes only what changed, and a restart loads from the local disk.
        retry: How a call to the remote is tried again, until the try of the whole state has failed; the waits between
            such tries grow in the same way, and never end.
        refused_delay_s: Seconds until it is tried again after an error that does not go away by itself, such as wrong
            credentials; somewhat more or less, so that the agents of a fleet do not all come at once.
        linger_s: Seconds for which :meth:`StateStore.close` waits for what is pending, if the remote answers.

    Raises:
        InvalidNameError: `path` is no local path.
        ValueError: A number is out of range.
    """

    path: str | os.PathLike[str]
    _: KW_ONLY
    max_bytes: int | None = None
    bandwidth: float | None = None
    keep_replicated: int = 1
    retry: RetryPolicy = _RETRY
    refused_delay_s: float = 300.0
    linger_s: float = 10.0

    def __post_init__(self) -> None:
        local_folder(self.path, "a spool")
        if self.max_bytes is not None and self.max_bytes < 0:
            raise ValueError(f"max_bytes is a number of bytes, or None for no limit, not {self.max_bytes}")
        if self.bandwidth is not None and not 0 < self.bandwidth < math.inf:
            raise ValueError(f"bandwidth is more than 0 bytes per second, or None for no limit, not {self.bandwidth}")
        if self.keep_replicated < 0:
            raise ValueError(f"keep_replicated is not negative, as {self.keep_replicated} is")
        if not (self.refused_delay_s > 0 and self.linger_s >= 0):
            raise ValueError("refused_delay_s is more than 0 seconds, and linger_s is not negative")

    @property
    def root(self) -> str:
        """The folder, absolute."""
        return normalized_url(self.path)

    @classmethod
    def of(cls, spool: Spool | str | os.PathLike[str]) -> Spool:
        """A spool as users give it: itself, or its path."""
        return spool if isinstance(spool, Spool) else cls(spool)
