"""A network that is slower than the memory of this machine: a proxy that lets through so many bytes a second, later."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from tests.servers import proxy

__all__ = ["slow_link"]

_BURST_S = 0.005


class _Wire:
    """One direction of a link, which all connections share.

    Args:
        bytes_per_s: How much fits through it.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0

    def carry(self, block: memoryview) -> memoryview:
        """Wait for as long as a block takes, behind those that came before it; all of it passes."""
        with self._lock:
            now = time.monotonic()
            # Who was woken a little late may catch up: a wire does not sleep.
            self._free_at = max(self._free_at, now - _BURST_S) + len(block) / self._bytes_per_s
            left_s = self._free_at - now
        if left_s > 0:
            time.sleep(left_s)
        return block


@contextlib.contextmanager
def slow_link(upstream: str, bytes_per_s: float, round_trip_s: float = 0.0) -> Iterator[str]:
    """Run a link to a server, which carries as much in either direction; yields the URL of its near end.

    Args:
        upstream: The server's URL.
        bytes_per_s: In each direction, for all connections together.
        round_trip_s: How long a byte takes to the server and back.
    """
    up, down = _Wire(bytes_per_s), _Wire(bytes_per_s)
    with proxy(upstream, lambda: up.carry, lambda: down.carry, delay_s=round_trip_s / 2) as url:
        yield url
