"""The connections of the web API: what a client may keep the server waiting for, and what the log is told of it."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from statevault.console import (
    StatesListing,
    SystemSource,
    WebApiClient,
    WebApiError,
    WebApiServer,
    connections,
    web_api,
)
from statevault.console.connections import MAX_CONNECTIONS, OnceAMinute
from statevault.threads import TickStatistics
from tests.console.running import LIMIT_S, until
from tests.threads.system import System

HEAD = b"Host: localhost\r\n"
STATUS = b"GET /api/status HTTP/1.1\r\n" + HEAD
RESUME = b"POST /api/resume HTTP/1.1\r\n" + HEAD


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebApiServer]:
    """A server of a system that was not started, with all its answers."""
    system = System(tmp_path)
    source = SystemSource(system.control, TickStatistics, StatesListing(system.store.url, system.store.names))
    with WebApiServer("127.0.0.1", 0) as listening:
        listening.start(web_api(source, queue_size=1000))
        yield listening
    system.store.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, server: WebApiServer) -> WebApiServer:
    """One that waits for its clients for a fifth of a second."""
    monkeypatch.setattr(connections, "_CLIENT_TIMEOUT_S", 0.2)
    return server


def connected(server: WebApiServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)


def status(server: WebApiServer) -> int:
    return httpx.get(f"{server.url}/api/status", timeout=LIMIT_S, trust_env=False).status_code


def until_closed(connection: socket.socket, more: bytes = b"") -> bytes:
    """What comes until the server hangs up, while a client sends a little more again and again."""
    answer = b""
    connection.settimeout(0.02)
    end = time.monotonic() + LIMIT_S
    while True:
        assert time.monotonic() < end, "the server still waits"
        try:
            if more:
                connection.sendall(more)
            piece = connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:  # it has hung up while something was on the way to it
            return answer
        if not piece:
            return answer
        answer += piece


@pytest.mark.parametrize(
    ("beginning", "more", "answered"),
    [
        (b"", b"", False),
        (b"", b"a", False),
        (STATUS, b"", False),
        (STATUS + b"A: ", b"a", False),
        (STATUS + b"\r\n", b"", True),
        (STATUS + b"\r\n", b"G", True),
        (RESUME + b"Content-Length: 1000000\r\n\r\n", b"a", True),
        (RESUME + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", True),
        (RESUME + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", b"", True),
    ],
)
def test_a_client_that_keeps_the_server_waiting_loses_its_connection(
    impatient: WebApiServer, beginning: bytes, more: bytes, answered: bool
) -> None:
    with connected(impatient) as connection:
        connection.sendall(beginning)
        answer = until_closed(connection, more)
    # What is no request is told to be none.
    assert answer.startswith(b"HTTP/1.1 200 OK") if answered else b" 200 " not in answer
    assert status(impatient) == 200


def test_a_client_that_does_not_take_its_answers_loses_its_connection(impatient: WebApiServer) -> None:
    with connected(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(LIMIT_S)
        with pytest.raises(ConnectionError):  # and no time-out
            while True:
                connection.sendall(b"GET /api/openapi.json HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert status(impatient) == 200


def test_a_request_that_comes_in_pieces_and_one_behind_another_are_answered(server: WebApiServer) -> None:
    with connected(server) as connection:
        for piece in (STATUS[:9], STATUS[9:], b"\r\n" + STATUS, b"Connection: close\r\n\r\n"):
            connection.sendall(piece)
            time.sleep(0.01)
        assert until_closed(connection).count(b"HTTP/1.1 200 OK") == 2


def test_held_connections_give_way_to_new_ones_the_oldest_first(server: WebApiServer) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connected(server)) for _ in range(3 * MAX_CONNECTIONS)]
        assert status(server) == 200
        until(lambda: sum(has_lost(connection) for connection in held) >= 2 * MAX_CONNECTIONS)
        assert not has_lost(held[-1])


def has_lost(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_an_answer_that_takes_long_is_not_lost_to_idle_connections(tmp_path: Path) -> None:
    go_on, asked = threading.Event(), threading.Event()

    def slow() -> list[str]:
        asked.set()
        go_on.wait(LIMIT_S)
        return ["a.state"]

    with slowly_listed(tmp_path, slow) as server, ExitStack() as stack:
        names: list[list[str]] = []
        client = stack.enter_context(WebApiClient("127.0.0.1", server.port))
        thread = threading.Thread(target=lambda: names.append(client.get_system().states.newest))
        thread.start()
        assert asked.wait(LIMIT_S)
        held = [stack.enter_context(connected(server)) for _ in range(2 * MAX_CONNECTIONS)]
        until(lambda: any(has_lost(connection) for connection in held))
        go_on.set()
        thread.join(LIMIT_S)
        assert names == [["a.state"]]


def test_a_storage_that_hangs_takes_few_threads_and_not_the_status(tmp_path: Path) -> None:
    go_on = threading.Event()
    with slowly_listed(tmp_path, lambda: ["a.state"] if go_on.wait(LIMIT_S) else []) as server, ExitStack() as stack:
        before = threading.active_count()
        for _ in range(40):
            stack.enter_context(connected(server)).sendall(b"GET /api/v1/system HTTP/1.1\r\n" + HEAD + b"\r\n")
            assert status(server) == 200
        assert threading.active_count() <= before + 8
        go_on.set()
        with WebApiClient("127.0.0.1", server.port) as client:

            def described() -> bool:
                with suppress(WebApiError):
                    return client.get_system().states.newest == ["a.state"]
                return False

            until(described)


@contextmanager
def slowly_listed(folder: Path, names: object) -> Iterator[WebApiServer]:
    """A server of a system whose storage is slow to list its states."""
    system = System(folder)
    source = SystemSource(system.control, TickStatistics, StatesListing(system.store.url, names))  # type: ignore[arg-type]
    with WebApiServer("127.0.0.1", 0) as server:
        server.start(web_api(source))
        yield server
    system.store.close()


def test_nonsense_and_broken_connections_are_told_of_once_a_minute(
    server: WebApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        STATUS + b"A: " + b"a" * 100_000,
        STATUS + b"\0\r\n\r\n",
    ]
    upgrade = STATUS + b"Upgrade: websocket\r\nConnection: upgrade, close\r\n\r\n"
    logger = logging.getLogger(connections.__name__)
    (previous,) = logger.filters
    logger.removeFilter(previous)
    logger.addFilter(OnceAMinute(clock=lambda: 0.0))
    try:
        for _ in range(20):
            for sent in (*nonsense, upgrade):
                with connected(server) as connection:
                    connection.sendall(sent)
                    until_closed(connection)
            with connected(server) as connection:
                connection.sendall(STATUS)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        assert status(server) == 200
    finally:
        logger.filters[:] = [previous]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == len(set(lines)) <= 3
    assert "Invalid HTTP request received." in lines


def test_a_message_passes_once_a_minute_whatever_its_arguments() -> None:
    now = 0.0
    seldom = OnceAMinute(clock=lambda: now)

    def passes(message: str, *arguments: object) -> bool:
        return seldom.filter(logging.LogRecord("x", logging.WARNING, "", 0, message, arguments, None))

    assert passes("no %s", "room")
    assert not passes("no %s", "time")
    assert passes("nothing")
    now = 59.0
    assert not passes("no %s", "room")
    now = 60.0
    assert passes("no %s", "room")


def test_the_end_does_not_wait_for_clients(tmp_path: Path) -> None:
    system = System(tmp_path)
    source = SystemSource(system.control, TickStatistics, StatesListing(system.store.url, system.store.names))
    with ExitStack() as stack:
        server = stack.enter_context(WebApiServer("127.0.0.1", 0))
        server.start(web_api(source))
        idle, half = (stack.enter_context(connected(server)) for _ in range(2))
        half.sendall(STATUS)
        server.close()
        until(lambda: has_lost(idle) and has_lost(half))
    system.store.close()
    assert "statevault-web-api" not in {thread.name for thread in threading.enumerate()}
