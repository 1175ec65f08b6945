"""Counting the requests and bytes that go to a server, whichever client sends them: a proxy that reads along.

What a method sends is counted in a run of its own, whose times nobody looks at.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Traffic", "counting_proxy"]

_BLOCK = 1 << 18


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

    def feed(self, data: memoryview) -> None:
        """Take the next bytes that the client sent."""
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
                return
            data = data[end + 4 - before :]
            self._begin(self._head[:end])
            self._head = b""

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
    host, port = urlsplit(upstream).hostname or "127.0.0.1", urlsplit(upstream).port or 80
    traffic, lock = Traffic(), threading.Lock()
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = [listener]

    def upwards(client: socket.socket, server: socket.socket) -> None:
        requests = _Requests(traffic, lock)
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        with _ending(client, server):
            while count := client.recv_into(buffer):
                requests.feed(view[:count])
                server.sendall(view[:count])

    def downwards(server: socket.socket, client: socket.socket) -> None:
        buffer = bytearray(_BLOCK)
        view = memoryview(buffer)
        with _ending(server, client):
            while count := server.recv_into(buffer):
                with lock:
                    traffic.received_bytes += count
                client.sendall(view[:count])

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((host, port))
            except OSError:
                return
            open_sockets.extend((client, server))
            threading.Thread(target=upwards, args=(client, server), daemon=True).start()
            threading.Thread(target=downwards, args=(server, client), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", traffic
    finally:
        # shutdown() wakes accept(); close() alone does not.
        for opened in open_sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        thread.join()


@contextlib.contextmanager
def _ending(*ends: socket.socket) -> Iterator[None]:
    """When one direction ends, both connections do."""
    with contextlib.suppress(OSError):
        yield
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
