"""An HTTP server whose every answer a test decides: for what real servers do too rarely to wait for."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from typing_extensions import override

__all__ = ["ScriptedAnswer", "ScriptedRequest", "forwarded", "scripted_server"]


@dataclass(frozen=True, slots=True)
class ScriptedRequest:
    """What the client sent.

    Attributes:
        port: From which it came; each connection has one of its own.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    port: int


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """What the server sends.

    Attributes:
        status: Of HTTP.
        body: The bytes that are sent.
        headers: Beside Content-Length.
        announced: What Content-Length says, if not the size of `body`; the connection is closed after it.
        after: Waited for before anything is sent.
        drip: If given, called before each byte of the body, which are sent one by one then.
        drips_head: Send what comes before the body in that way, too.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    announced: int | None = None
    after: threading.Event | None = None
    drip: Callable[[], None] | None = None
    drips_head: bool = False


@contextlib.contextmanager
def scripted_server(
    answer: Callable[[ScriptedRequest], ScriptedAnswer], *, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Run a server that asks `answer` for each of its answers; yields its URL.

    Args:
        answer: Decides.
        tls: What the server proves who it is with, if it speaks https.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            request = ScriptedRequest(
                self.command, self.path, dict(self.headers), self.rfile.read(size), self.client_address[1]
            )
            said = answer(request)
            if said.after is not None:
                said.after.wait()
            with contextlib.suppress(ConnectionError):
                length = len(said.body) if said.announced is None else said.announced
                headers = "".join(f"{name}: {value}\r\n" for name, value in said.headers.items())
                status = f"HTTP/1.1 {said.status} {self.responses.get(said.status, ('',))[0]}"
                head = f"{status}\r\n{headers}Content-Length: {length}\r\n\r\n".encode()
                self._send(head, said.drip if said.drips_head else None)
                if self.command != "HEAD":
                    self._send(said.body, said.drip)
            self.close_connection = said.announced is not None and self.command != "HEAD"

        def _send(self, data: bytes, drip: Callable[[], None] | None) -> None:
            if drip is None:
                self.wfile.write(data)
                return
            for byte in data:
                drip()
                self.wfile.write(bytes([byte]))

        do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _answer

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        # Not server_close(): it would wait for handlers that a test keeps hanging.
        server.socket.close()
        thread.join()


def forwarded(upstream: str, request: ScriptedRequest) -> ScriptedAnswer:
    """What a real server answers: for a script that gives it other manners.

    Args:
        upstream: The real server's URL.
        request: What it is asked.
    """
    address = urlsplit(upstream)
    with contextlib.closing(HTTPConnection(address.hostname or "", address.port, timeout=600)) as connection:
        # With the Host of the request: it is part of what was signed.
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders(request.body)
        answer = connection.getresponse()
        body = answer.read()
    own = {"content-length", "transfer-encoding", "connection"}
    headers = {name: value for name, value in answer.getheaders() if name.lower() not in own}
    length = answer.getheader("Content-Length") if request.method == "HEAD" else None
    return ScriptedAnswer(answer.status, body, headers, announced=None if length is None else int(length))
