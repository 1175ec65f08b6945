"""Servers that send, or take, byte after byte, and each in time: a call has an end all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trustme

from statevault.errors import StorageTimeoutError
from statevault.storage import RetryingStorage, RetryPolicy, Storage, open_storage
from statevault.storage.gcs import client as gcs_client
from statevault.storage.s3 import deadlines
from tests.servers import ScriptedAnswer, ScriptedRequest, proxy, scripted_server

MIB = 1024**2
CREDENTIALS = {"key": "somebody", "secret": "something"}

CALLS: dict[str, Callable[[Storage], object]] = {
    "list": lambda storage: list(storage.list()),
    "get": lambda storage: storage.get("key"),
    "get_part": lambda storage: storage.get("key", 0, 60),
    "get_into": lambda storage: storage.get_into("key", 0, memoryview(bytearray(60))),
    "head": lambda storage: storage.head("key"),
    "put": lambda storage: storage.put("key", b"x"),
    "delete": lambda storage: storage.delete(["a", "b"]),
}
WITH_BODY = [call for call in CALLS if call != "head"]
SAID = {"list": "Can't list", "put": "Can't write key", "delete": "Can't delete"}


class Clock:
    """The time that deadlines see. A server lets it go on with each byte, as if it had waited."""

    def __init__(self) -> None:
        self.now = 0.0
        self._was_looked_at = threading.Event()

    def __call__(self) -> float:
        self._was_looked_at.set()
        return self.now

    def drip(self) -> None:
        """Wait until the byte before has come, and then, as it seems, for four seconds more."""
        if not self._was_looked_at.wait(10.0):
            raise ConnectionAbortedError
        self._was_looked_at.clear()
        self.now += 4.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deadlines, "monotonic", clock)
    return clock


def opened(endpoint: str, **client: object) -> Storage:
    options = {"endpoint_url": endpoint, **CREDENTIALS, "client_kwargs": client}
    return open_storage("s3://bucket/root", options, retry=None)


def dripping(clock: Clock, *, head: bool = False, status: int = 200) -> Callable[[ScriptedRequest], ScriptedAnswer]:
    answer = ScriptedAnswer(status, b" " * 60, {"ETag": '"e"'}, drip=clock.drip, drips_head=head)
    return lambda _: answer


# ------------------------------------------------------------------------------------------- what S3 sends


@pytest.mark.parametrize(("call", "status"), [*((call, 200) for call in WITH_BODY), ("list", 403), ("get_into", 503)])
def test_an_answer_that_drips_is_a_timeout_that_names_the_call(clock: Clock, call: str, status: int) -> None:
    with scripted_server(dripping(clock, status=status)) as endpoint:
        with pytest.raises(StorageTimeoutError, match=SAID.get(call, "Can't read key")) as caught:
            CALLS[call](opened(endpoint))
        assert caught.value.transient
        assert "less than 32768 bytes a second for 60 s" in str(caught.value)


@pytest.mark.parametrize("call", ["list", "get", "head"])
def test_so_is_one_that_drips_before_its_body(clock: Clock, call: str) -> None:
    with (
        scripted_server(dripping(clock, head=True)) as endpoint,
        pytest.raises(StorageTimeoutError, match="less than"),
    ):
        CALLS[call](opened(endpoint))


def test_an_answer_that_drips_in_chunks_is_a_timeout(clock: Clock) -> None:
    answer = ScriptedAnswer(200, b"1\r\n \r\n" * 60, {"Transfer-Encoding": "chunked"}, drip=clock.drip)
    with scripted_server(lambda _: answer) as endpoint, pytest.raises(StorageTimeoutError, match="less than"):
        list(opened(endpoint).list())


def test_a_server_that_asks_for_patience_again_and_again_is_a_timeout(clock: Clock) -> None:
    answer = ScriptedAnswer(100, b"HTTP/1.1 100 Continue\r\n\r\n" * 9, drip=clock.drip)
    with scripted_server(lambda _: answer) as endpoint, pytest.raises(StorageTimeoutError, match="less than"):
        opened(endpoint).get("key")


def test_an_object_that_is_put_together_has_more_time(clock: Clock) -> None:
    """S3 sends blanks meanwhile, so that the connection stays open."""
    completed = b" " * 60 + b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        if request.path.endswith("?uploads"):
            begun = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            return ScriptedAnswer(200, begun)
        is_last = request.method == "POST"
        return ScriptedAnswer(200, completed if is_last else b"", {"ETag": '"e"'}, drip=clock.drip if is_last else None)

    with scripted_server(answer) as endpoint:
        assert opened(endpoint).put("key", bytes(20 * MIB)) == 20 * MIB
    assert clock.now > 240.0


def test_a_timeout_is_tried_again(clock: Clock) -> None:
    answers = [ScriptedAnswer(200, b" " * 60, drip=clock.drip), ScriptedAnswer(200, b"content")]
    with scripted_server(lambda _: answers.pop(0)) as endpoint:
        storage = RetryingStorage(opened(endpoint), RetryPolicy(first_delay_s=0.0))
        assert storage.get("key") == b"content"


def test_what_is_fast_enough_may_take_as_long_as_it_takes(clock: Clock) -> None:
    deadline = deadlines._Deadline(60.0, 32 << 10)
    for _ in range(1000):
        clock.now += 1.9
        deadline.passed(64 << 10)


def test_what_was_fast_once_is_no_credit_for_hours(clock: Clock) -> None:
    deadline = deadlines._Deadline(60.0, 32 << 10)
    deadline.passed(1 << 40)
    clock.now = 59.0
    deadline.passed(1)
    clock.now = 61.0
    with pytest.raises(TimeoutError):
        deadline.passed(1)


# ------------------------------------------------------------------------------------------- what S3 takes


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """The file of whom a client trusts, and what a server proves itself with."""
    file = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(file))
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return str(file), context


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_takes_a_body_too_slowly_is_a_timeout(
    clock: Clock, scheme: str, certificates: tuple[str, ssl.SSLContext]
) -> None:
    def slowly(block: memoryview) -> memoryview:
        clock.now += 50.0
        return block

    authority, context = certificates
    answer = ScriptedAnswer(200, b"", {"ETag": '"e"'})
    with (
        scripted_server(lambda _: answer, tls=context if scheme == "https" else None) as server,
        proxy(server, lambda: slowly, lambda: lambda block: block) as endpoint,
        pytest.raises(StorageTimeoutError, match=r"Can't write key .*less than 8192 bytes a second") as caught,
    ):
        opened(endpoint.replace("http:", f"{scheme}:"), verify=authority).put("key", bytes(15 * MIB))
    assert caught.value.transient


@contextlib.contextmanager
def socket_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server below HTTP; yields where it listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    opened = [listener]

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                opened.append(listener.accept()[0])
                talk(opened[-1])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # shutdown() wakes whoever waits; close() alone does not.
        for each in opened:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in opened:
            each.close()


def drip_handshake(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"\x16\x03\x03\x40\x00")
    for _ in range(1000):
        connection.sendall(b"\x00")
        time.sleep(0.05)


def test_a_handshake_that_drips_is_a_timeout(certificates: tuple[str, ssl.SSLContext]) -> None:
    options = {**CREDENTIALS, "client_kwargs": {"verify": certificates[0]}, "config_kwargs": {"connect_timeout": 0.5}}
    with socket_server(drip_handshake) as place:
        storage = open_storage("s3://bucket/root", {"endpoint_url": f"https://{place}", **options}, retry=None)
        with pytest.raises(StorageTimeoutError, match="handshake"):
            storage.get("key")


# ------------------------------------------------------------------------------------------- GCS


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Options for a storage that waits a second."""
    monkeypatch.setattr(gcs_client, "_CONNECT_TIMEOUT_S", 0.2)
    return {"timeout": 0.3}


@pytest.mark.parametrize(("call", "head"), [*((call, False) for call in CALLS), ("list", True)])
def test_an_answer_of_gcs_that_drips_is_a_timeout(short_patience: dict[str, object], call: str, head: bool) -> None:
    answer = ScriptedAnswer(200, b" " * 200, drip=lambda: time.sleep(0.05), drips_head=head)
    with scripted_server(lambda _: answer) as endpoint:
        storage = open_storage("gs://bucket/root", {"endpoint_url": endpoint, **short_patience}, retry=None)
        with pytest.raises(StorageTimeoutError, match="The server did not answer in time") as caught:
            CALLS[call](storage)
    assert caught.value.transient


def test_gcs_that_takes_a_body_too_slowly_is_a_timeout(short_patience: dict[str, object]) -> None:
    stopped = threading.Event()

    def take(connection: socket.socket) -> None:
        while connection.recv(1):
            stopped.wait(0.05)

    with socket_server(take) as place:
        storage = open_storage("gs://bucket/root", {"endpoint_url": f"http://{place}", **short_patience}, retry=None)
        with pytest.raises(StorageTimeoutError, match="Can't write key"):
            storage.put("key", bytes(15 * MIB))
        stopped.set()


def test_what_gcs_takes_and_sends_puts_its_deadline_off_and_not_for_hours() -> None:
    async def passing() -> list[float]:
        patience = gcs_client._Patience(60.0)
        now = asyncio.get_running_loop().time()
        async with patience.limit:
            patience.limit.reschedule(now + 10.0)
            body = gcs_client._SentBody(bytes(1 << 20), patience)
            ends = []
            while body.read(64 << 10):
                ends.append((patience.limit.when() or 0.0) - now)
            return ends

    ends = asyncio.run(passing())
    assert ends[:3] == pytest.approx([12.0, 14.0, 16.0])
    assert ends[-1] == pytest.approx(42.0)
    assert len(ends) == 16


def test_its_deadline_is_never_far_away() -> None:
    async def passing() -> float:
        patience = gcs_client._Patience(60.0)
        async with patience.limit:
            patience.passed(1 << 40)
            return (patience.limit.when() or 0.0) - asyncio.get_running_loop().time()

    assert asyncio.run(passing()) <= 60.0
