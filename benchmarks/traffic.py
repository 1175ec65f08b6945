"""Counting the requests and bytes that go to a server, whichever client sends them: a proxy that reads along.

What a method sends is counted in a run of its own, whose times nobody looks at.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.servers import proxy

__all__ = ["Traffic", "counting_proxy"]


@dataclass(slots=True)
class Traffic:
    """What has gone to a server so far.

    Attributes:
        requests: How many, by HTTP method.
        sent_bytes: Bytes in the bodies of requests.
        received_bytes: Bytes of the answers, headers included.
    """

    requests: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    received_bytes: int = 0

    def copy(self) -> Traffic:
        """Return what is counted up to now."""
        return Traffic(Counter(self.requests), self.sent_bytes, self.received_bytes)

    def since(self, earlier: Traffic) -> Traffic:
        """Return what has come since."""
        return Traffic(
            self.requests - earlier.requests,
            self.sent_bytes - earlier.sent_bytes,
            self.received_bytes - earlier.received_bytes,
        )


class _Requests:
    """Reads the requests of one connection: a method and a length each."""

    def __init__(self, traffic: Traffic, lock: threading.Lock) -> None:
        self._traffic = traffic
        self._lock = lock
        self._head = b""
        self._body_left = 0

    def read(self, block: memoryview) -> memoryview:
        """Take the next bytes that the client sends; all of them pass."""
        data = block
        while data:
            if self._body_left:
                taken = min(self._body_left, len(data))
                self._body_left -= taken
                data = data[taken:]
                continue
            before = len(self._head)
            self._head += bytes(data)
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                break
            data = data[end + 4 - before :]
            self._begin(self._head[:end])
            self._head = b""
        return block

    def _begin(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "chunked" in headers.get("transfer-encoding", ""):
            msg = f"a client sends {first!r} in HTTP chunks, which this proxy can't count"
            raise ValueError(msg)
        self._body_left = int(headers.get("content-length", "0"))
        with self._lock:
            self._traffic.requests[first.partition(" ")[0]] += 1
            self._traffic.sent_bytes += self._body_left


@contextlib.contextmanager
def counting_proxy(upstream: str) -> Iterator[tuple[str, Traffic]]:
    """Run a proxy in front of a server; yields its URL and what it counts.

    Args:
        upstream: The server's URL, ``http://host:port``.
    """
    traffic, lock = Traffic(), threading.Lock()

    def count_answer(block: memoryview) -> memoryview:
        with lock:
            traffic.received_bytes += len(block)
        return block

    with proxy(upstream, lambda: _Requests(traffic, lock).read, lambda: count_answer) as url:
        yield url, traffic
