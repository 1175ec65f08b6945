"""A TCP proxy that breaks connections: the network between a client and a server on its bad days."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

__all__ = ["breaking_proxy"]


@contextlib.contextmanager
def breaking_proxy(upstream: str, answer_bytes: Sequence[int | None]) -> Iterator[str]:
    """Run a proxy in front of a server; yields its URL.

    Args:
        upstream: The server's URL.
        answer_bytes: For each connection in turn, after how many bytes of answers it breaks; None, and
            connections after the last one given, do not break. Requests always go through.
    """
    host, port = urlsplit(upstream).hostname, urlsplit(upstream).port
    limits = list(answer_bytes)
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = [listener]

    def serve(client: socket.socket, limit: int | None) -> None:
        server = socket.create_connection((host or "127.0.0.1", port or 80))
        open_sockets.extend((client, server))
        threading.Thread(target=_pump, args=(client, server, None), daemon=True).start()
        _pump(server, client, limit)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            limit = limits.pop(0) if limits else None
            threading.Thread(target=serve, args=(client, limit), daemon=True).start()

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


def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    """Copy bytes until the source ends, or `limit` of them are over; then break both connections."""
    passed = 0
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            room = len(data) if limit is None else limit - passed
            sink.sendall(data[:room])
            passed += len(data)
            if limit is not None and passed > limit:
                break
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
