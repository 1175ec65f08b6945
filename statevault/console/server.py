"""The server of the web API: uvicorn in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from statevault.console.connections import BoundedServer
from statevault.console.errors import AddressInUseError
from statevault.errors import StateVaultError
from statevault.process_limits import scarce

__all__ = ["WebApiServer"]

_logger = logging.getLogger(__name__)

_BACKLOG = 128
# Answers take milliseconds, unless they wait for a storage that does not answer.
_LONGEST_END_S = 3


class WebApiServer:
    """Listens from the moment it is made, and serves from :meth:`start` to :meth:`close`.

    So an address that can't be had is an error before anything else has begun.
    """

    def __init__(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: A name or an address; all addresses of a name are listened at.
            port: The port; 0 for any that is free.

        Raises:
            AddressInUseError: Something else listens there.
            OSError: The host is unknown, or the address is not one of this machine, or not permitted.
        """
        self._sockets = _listen(host, port)
        self._url = _url(host, self.port)
        self._server: BoundedServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port, also where any was asked for."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where the server is to be found."""
        return self._url

    def start(self, app: ASGIApp) -> None:
        """Serve an application; requests that came in before are answered as well.

        Raises:
            StateVaultError: The system gives no thread.
        """
        # uvicorn's logging and signals are left out: those of the process belong to the program.
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_LONGEST_END_S,
        )
        self._server = BoundedServer(config, self._sockets)
        thread = threading.Thread(target=self._run, args=(self._server,), name="statevault-web-api", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise StateVaultError(f"the thread of the web API can't be started: {scarce(error) or error}") from error
        self._thread = thread
        # It loads modules: whatever takes the descriptors of the process comes after.
        self._server.is_up.wait()
        _logger.info("the web API is at %s", self.url)

    def close(self) -> None:
        """Answer what is under way, and listen no more."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(2 * _LONGEST_END_S)
            if self._thread.is_alive():
                _logger.warning("the web API at %s did not end in time; its thread is left behind", self.url)
        for each in self._sockets:
            each.close()

    def _run(self, server: BoundedServer) -> None:
        try:
            # The plain loop, whatever the program has made the default.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(server.serve())
        except (Exception, SystemExit):
            # The agent goes on: it can live without being watched.
            _logger.exception("the web API at %s has ended", self.url)
        finally:
            server.is_up.set()


def _listen(host: str, port: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(f"web_api_address: the host {host!r} is unknown: {error.strerror}") from error
    sockets: list[socket.socket] = []
    problems: list[OSError] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        if sockets:
            # The same port at all addresses, also where any was asked for.
            address = (address[0], sockets[0].getsockname()[1], *address[2:])  # noqa: PLW2901
        each = socket.socket(family, kind, protocol)
        try:
            # Ports of connections that have just ended may be used again; two listeners are refused all the same.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(address)
            # At once: until then Linux would let another one bind as well.
            each.listen(_BACKLOG)
        except OSError as error:
            each.close()
            problems.append(error)
            if error.errno == errno.EADDRINUSE:
                break
        else:
            sockets.append(each)
    in_use = any(problem.errno == errno.EADDRINUSE for problem in problems)
    if sockets and not in_use:
        return sockets  # "localhost" may have an IPv6 address on a machine that has no IPv6
    for each in sockets:
        each.close()
    if in_use:
        raise AddressInUseError(
            f"the web API can't listen at {_url(host, port)}: the port is in use, perhaps by another agent. "
            f"Choose another one, web_api_address=({host!r}, {port + 1}), or do without: web_api_address=None"
        ) from problems[-1]
    raise OSError(
        problems[-1].errno, f"the web API can't listen at {_url(host, port)}: {problems[-1].strerror}"
    ) from problems[-1]


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
