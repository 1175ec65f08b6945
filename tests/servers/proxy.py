"""A TCP proxy in front of a server: it shows somebody what passes, slows it down, or breaks the connection."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self, TypeAlias
from urllib.parse import urlsplit

__all__ = ["Gate", "breaking_proxy", "proxy"]

_BLOCK = 1 << 18
_BLOCKS_UNDER_WAY = 64

Gate: TypeAlias = Callable[[memoryview], memoryview]
"""Is shown each block of one direction of one connection, which waits meanwhile, and returns what of it passes: all of
it, or its beginning, behind which the connection breaks."""


@contextlib.contextmanager
def proxy(
    upstream: str, upwards: Callable[[], Gate], downwards: Callable[[], Gate], *, delay_s: float = 0.0
) -> Iterator[str]:
    """Run a proxy; yields its URL.

    Args:
        upstream: The server's URL, ``http://host:port``.
        upwards: Makes, for each connection in turn, the gate of the bytes to the server.
        downwards: The same for those to the client.
        delay_s: How long what has passed a gate is under way; others may be, at the same time.
    """
    host, port = urlsplit(upstream).hostname or "127.0.0.1", urlsplit(upstream).port or 80
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = [listener]

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            open_sockets.append(client)
            try:
                server = socket.create_connection((host, port))
            except OSError:
                client.close()
                continue
            open_sockets.append(server)
            for end in (client, server):
                # A request that comes in two pieces must not wait for what TCP saves up.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, gate in ((client, server, upwards()), (server, client, downwards())):
                threading.Thread(target=_pump, args=(source, sink, gate, delay_s), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # shutdown() wakes accept(); close() alone does not.
        for opened in open_sockets:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        thread.join()


def breaking_proxy(upstream: str, answer_bytes: Sequence[int | None]) -> contextlib.AbstractContextManager[str]:
    """Run a proxy that breaks connections, as a network does on its bad days; yields its URL.

    Args:
        upstream: The server's URL.
        answer_bytes: For each connection in turn, after how many bytes of answers it breaks; None, and
            connections after the last one given, do not break. Requests always go through.
    """
    limits = list(answer_bytes)
    return proxy(upstream, lambda: _pass_all, lambda: _gate_of(limits.pop(0) if limits else None))


def _pass_all(block: memoryview) -> memoryview:
    return block


def _gate_of(limit: int | None) -> Gate:
    if limit is None:
        return _pass_all
    left = limit

    def gate(block: memoryview) -> memoryview:
        nonlocal left
        passing = block[:left]
        left -= len(passing)
        return passing

    return gate


def _pump(source: socket.socket, sink: socket.socket, gate: Gate, delay_s: float) -> None:
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    with contextlib.suppress(OSError), _DelayLine(sink, delay_s) if delay_s else contextlib.nullcontext(sink) as way:
        while count := source.recv_into(buffer):
            passing = gate(view[:count])
            way.sendall(passing)
            if len(passing) < count:
                break
    # When one direction ends, both connections do.
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class _DelayLine:
    """Sends what it is given a while later, in order; its end waits until all is sent."""

    def __init__(self, sink: socket.socket, delay_s: float) -> None:
        self._sink = sink
        self._delay_s = delay_s
        self._under_way: queue.Queue[tuple[float, bytes] | None] = queue.Queue(_BLOCKS_UNDER_WAY)
        self._thread = threading.Thread(target=self._deliver, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._under_way.put(None)
        self._thread.join()

    def sendall(self, block: memoryview) -> None:
        self._under_way.put((time.monotonic() + self._delay_s, bytes(block)))

    def _deliver(self) -> None:
        broken = False
        while (item := self._under_way.get()) is not None:
            due, block = item
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not broken:
                    self._sink.sendall(block)
            except OSError:
                broken = True  # what comes after it is taken and lost, so that nobody waits for room
