"""A TCP proxy with a switch: the network between an agent and its storage, up or down as the test says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Network"]

_SETTLE_TIMEOUT_S = 300.0


class Network:
    """Passes connections on to a server, breaks all of them, refuses new ones; use it in a ``with`` block.

    Args:
        upstream: The server's URL.

    Attributes:
        url: Where the server is to be found through it.
        broken: How many connections were broken or refused.
    """

    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        self._server = (address.hostname or "127.0.0.1", address.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.broken = 0
        self._changed = threading.Condition()
        self._down = threading.Event()
        self._open: set[socket.socket] = set()
        self._pumps = 0
        self._acceptor = threading.Thread(target=self._accept, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # shutdown() wakes accept(); close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(_SETTLE_TIMEOUT_S)
        self.break_connections()
        self.settle()

    def go_down(self) -> None:
        """Break all connections, and each new one from now on."""
        with self._changed:
            self._down.set()
        self.break_connections()

    def come_up(self) -> None:
        """Let new connections pass."""
        with self._changed:
            self._down.clear()

    def break_connections(self) -> None:
        """Break the connections that are open, in the midst of whatever they carry."""
        with self._changed:
            self.broken += len(self._open) // 2
            for end in self._open:
                _shut(end)

    def settle(self) -> None:
        """Wait until no connection is open.

        Raises:
            TimeoutError: One stays open: somebody holds on to it.
        """
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        with self._changed:
            while self._pumps:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{len(self._open) // 2} connections to the storage are still open")
                self._changed.wait(left)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._down.is_set():
                    self.broken += 1
                    client.close()
                    continue
            server = socket.create_connection(self._server)
            with self._changed:
                self._open |= {client, server}
                self._pumps += 2
                if self._down.is_set():  # it went down meanwhile
                    _shut(client)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), name="network-pump", daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Copy bytes until the source ends; the last of the two pumps of a connection closes it."""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        _shut(source)
        _shut(sink)
        with self._changed:
            self._open.discard(source)
            if sink not in self._open:
                source.close()
                sink.close()
            self._pumps -= 1
            self._changed.notify_all()


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
