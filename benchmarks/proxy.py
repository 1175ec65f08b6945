"""A TCP proxy in front of a server, which shows each block of bytes to somebody before it passes it on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias
from urllib.parse import urlsplit

__all__ = ["Onlooker", "proxy"]

_BLOCK = 1 << 18

Onlooker: TypeAlias = Callable[[memoryview], None]
"""Is called with each block of one direction of one connection; the block waits until it returns."""


@contextlib.contextmanager
def proxy(upstream: str, upwards: Callable[[], Onlooker], downwards: Callable[[], Onlooker]) -> Iterator[str]:
    """Run a proxy; yields its URL.

    Args:
        upstream: The server's URL, ``http://host:port``.
        upwards: Makes, for each connection, what looks at the bytes to the server.
        downwards: The same for those to the client.
    """
    host, port = urlsplit(upstream).hostname or "127.0.0.1", urlsplit(upstream).port or 80
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = [listener]

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((host, port))
            except OSError:
                return
            open_sockets.extend((client, server))
            for end in (client, server):
                # A request that comes in two pieces must not wait for what TCP saves up.
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(client, server, upwards()), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client, downwards()), daemon=True).start()

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


def _pump(source: socket.socket, sink: socket.socket, onlooker: Onlooker) -> None:
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    with contextlib.suppress(OSError):
        while count := source.recv_into(buffer):
            onlooker(view[:count])
            sink.sendall(view[:count])
    # When one direction ends, both connections do.
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
