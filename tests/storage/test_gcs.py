"""What Google Cloud Storage, its emulators and gcsfs do that a storage must not pass on."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError, TransportError
from typing_extensions import override

from statevault.errors import (
    InvalidNameError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StorageOptionError,
    StorageTimeoutError,
    StorageUnreachableError,
    StoreNotFoundError,
)
from statevault.storage import RetryPolicy, Storage, open_storage
from statevault.storage.gcs.storage import GcsStorage
from tests.servers import (
    ScriptedAnswer,
    ScriptedRequest,
    Servers,
    StorageTarget,
    breaking_proxy,
    free_port,
    scripted_server,
    target_names,
)

_AT_ONCE = RetryPolicy(first_delay_s=0.01, max_delay_s=0.01)
_PIECE = 16 << 20

pytestmark = pytest.mark.skipif("fake-gcs" not in target_names(), reason="STATEVAULT_TEST_SKIP_SERVERS=1")


@pytest.fixture
def gcs(servers: Servers) -> StorageTarget:
    return servers.target("fake-gcs")


def opened(endpoint: str, *, retry: RetryPolicy | None = None, timeout: float = 20.0) -> Storage:
    return open_storage("gs://bucket/root", {"endpoint_url": endpoint, "timeout": timeout}, retry=retry)


def json_error(status: int, reason: str = "") -> ScriptedAnswer:
    error = {"code": status, "message": "as told", "errors": [{"reason": reason}]}
    return ScriptedAnswer(status, json.dumps({"error": error}).encode())


def test_an_emulator_is_found_by_its_variable_and_never_asked_over_grpc(gcs: StorageTarget) -> None:
    """gcsfs asks for a bucket's kind over gRPC, which takes a minute to fail; so do the paths that it makes."""
    script = f"""
        from statevault.storage import open_storage

        storage = open_storage({gcs.url!r})
        storage.put("key", b"x")
        path = storage.path("key")
        assert path.read_bytes() == b"x"
        assert type(path.fs).__module__ == "gcsfs.core", type(path.fs)
    """
    env = {**os.environ, "STORAGE_EMULATOR_HOST": str(gcs.storage_options["endpoint_url"])}
    env.pop("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", None)
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=env)
    assert done.returncode == 0, done.stderr


def test_an_emulator_works_when_somebody_else_has_imported_gcsfs_before(gcs: StorageTarget) -> None:
    script = f"""
        import gcsfs
        from statevault.storage import open_storage

        storage = open_storage({gcs.url!r}, {dict(gcs.storage_options)!r})
        storage.put("key", b"x")
        assert storage.get("key") == b"x"
    """
    env = {**os.environ}
    env.pop("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", None)
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=env)
    assert done.returncode == 0, done.stderr


def test_a_conditional_put_whose_first_answer_was_lost_is_no_conflict(gcs: StorageTarget) -> None:
    with breaking_proxy(str(gcs.storage_options["endpoint_url"]), [0]) as endpoint:
        storage = open_storage(gcs.url, {"endpoint_url": endpoint}, retry=_AT_ONCE)
        assert storage.put("key", b"mine", create_only=True) == 4
        assert gcs.raw.get("key") == b"mine"
        with pytest.raises(ObjectExistsError):
            storage.put("key", b"other", create_only=True)


def test_an_upload_in_pieces_goes_on_where_the_server_says() -> None:
    content = bytes(range(256)) * (2 * _PIECE // 256) + b"the end"
    received = bytearray()
    answers: list[str] = []

    def server(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "POST":
            return ScriptedAnswer(200, headers={"Location": f"http://{request.headers['Host']}/upload?id=1"})
        span = request.headers["Content-Range"].removeprefix("bytes ")
        answers.append(span)
        if len(answers) == 2:
            return ScriptedAnswer(503)  # Nothing of this piece is kept.
        if not span.startswith("*"):
            first = int(span.partition("-")[0])
            assert first == len(received)
            # The first piece is kept only in part.
            received.extend(request.body[: 1 << 20] if len(answers) == 1 else request.body)
        if len(received) == len(content):
            return ScriptedAnswer(200, b"{}")
        return ScriptedAnswer(308, headers={"Range": f"bytes=0-{len(received) - 1}"})

    with scripted_server(server) as endpoint:
        assert opened(endpoint).put("key", iter([content])) == len(content)
    assert bytes(received) == content
    assert answers[2] == "bytes */*".removeprefix("bytes ")


def test_a_server_that_takes_nothing_of_an_upload_is_given_up() -> None:
    def server(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "POST":
            return ScriptedAnswer(200, headers={"Location": f"http://{request.headers['Host']}/upload?id=1"})
        return ScriptedAnswer(308)

    with scripted_server(server) as endpoint, pytest.raises(StorageError, match="0 bytes"):
        opened(endpoint).put("key", bytes(_PIECE + 1))


def test_a_failed_upload_is_cancelled() -> None:
    cancelled = threading.Event()

    def server(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "POST":
            return ScriptedAnswer(200, headers={"Location": f"http://{request.headers['Host']}/upload?id=1"})
        if request.method == "DELETE":
            cancelled.set()
            return ScriptedAnswer(499)
        last = request.headers["Content-Range"].removesuffix("/*").rpartition("-")[2]
        return ScriptedAnswer(308, headers={"Range": f"bytes=0-{last}"})

    def body() -> Iterator[bytes]:
        yield bytes(2 * _PIECE)
        yield bytes(_PIECE)
        raise RuntimeError("the source broke")

    with scripted_server(server) as endpoint:
        with pytest.raises(RuntimeError, match="the source broke"):
            opened(endpoint).put("key", body())
        assert cancelled.wait(300)


def test_a_connection_that_breaks_in_a_body_is_transient_and_tried_again(gcs: StorageTarget) -> None:
    content = bytes(range(256)) * 8192
    gcs.raw.put("key", content)
    with breaking_proxy(str(gcs.storage_options["endpoint_url"]), [500_000, 700_000]) as endpoint:
        with pytest.raises(StorageUnreachableError) as caught:
            open_storage(gcs.url, {"endpoint_url": endpoint}, retry=None).get("key")
        assert caught.value.transient
        assert open_storage(gcs.url, {"endpoint_url": endpoint}, retry=_AT_ONCE).get("key") == content


def test_a_missing_bucket_is_not_taken_for_a_missing_object(gcs: StorageTarget) -> None:
    for name in ("get", "head", "list"):
        storage = open_storage("gs://no-such-bucket/root", gcs.storage_options)
        with pytest.raises(StoreNotFoundError, match="no-such-bucket"):
            getattr(storage, name)("key")
    with pytest.raises(StoreNotFoundError, match="no-such-bucket"):
        open_storage("gs://no-such-bucket/root", gcs.storage_options).put("key", b"x")
    with pytest.raises(ObjectNotFoundError):
        open_storage(gcs.url, gcs.storage_options).get("key")


@pytest.mark.parametrize(
    ("status", "reason", "kind", "transient"),
    [
        (500, "", StorageError, True),
        (503, "", StorageError, True),
        (429, "rateLimitExceeded", StorageError, True),
        (403, "userRateLimitExceeded", StorageError, True),
        (408, "", StorageError, True),
        (401, "authError", StorageAccessError, False),
        (403, "forbidden", StorageAccessError, False),
        (400, "invalid", StorageError, False),
    ],
)
def test_what_a_server_says_decides_the_error(
    status: int, reason: str, kind: type[StorageError], *, transient: bool
) -> None:
    with scripted_server(lambda _: json_error(status, reason)) as endpoint, pytest.raises(StorageError) as caught:
        opened(endpoint).get("key")
    assert type(caught.value) is kind
    assert caught.value.transient == transient
    if kind is StorageAccessError:
        assert "GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value)


def test_a_busy_server_is_asked_again() -> None:
    answers = [json_error(503), json_error(429), ScriptedAnswer(200, b"hello")]
    with scripted_server(lambda _: answers.pop(0)) as endpoint:
        assert opened(endpoint, retry=_AT_ONCE).get("key") == b"hello"


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(StorageUnreachableError, match="STORAGE_EMULATOR_HOST") as caught:
        opened(f"http://127.0.0.1:{free_port()}").get("key")
    assert caught.value.transient


def test_a_server_that_does_not_answer_is_a_timeout() -> None:
    never = threading.Event()
    try:
        with scripted_server(lambda _: ScriptedAnswer(after=never)) as endpoint:
            with pytest.raises(StorageTimeoutError) as caught:
                opened(endpoint, timeout=0.3).get("key")
            assert caught.value.transient
            with pytest.raises(StorageTimeoutError):
                opened(endpoint, timeout=0.3).delete(["a", "b"])
    finally:
        never.set()


_UNUSABLE_KEYS: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "which is not there"),
    "missing.json": (None, "which is not there"),
    "empty": (b"", "which holds no JSON"),
    "text": (b"hello", "which holds no JSON"),
    "binary": (b"\xff\xfe\x00", "which holds no JSON"),
    "list.json": (b"[]", "which holds JSON, but no key"),
    "text.json": (b'"ya29.token"', "which holds JSON, but no key"),
}


@pytest.mark.parametrize("name", _UNUSABLE_KEYS)
@pytest.mark.parametrize("given", ["token", "GOOGLE_APPLICATION_CREDENTIALS"])
def test_a_key_file_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: str
) -> None:
    content, reason = _UNUSABLE_KEYS[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if given != "token":
        monkeypatch.setenv(given, str(tmp_path / name))
    with pytest.raises(StorageOptionError, match=reason) as caught:
        open_storage("gs://bucket", {"token": str(tmp_path / name)} if given == "token" else {})
    assert f"{given} of gs://bucket names {tmp_path / name}, " in str(caught.value)


def test_a_folder_and_a_pipe_are_no_key_files(tmp_path: Path) -> None:
    with pytest.raises(StorageOptionError, match="is a folder"):
        open_storage("gs://bucket", {"token": str(tmp_path)})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageOptionError, match="is no file"):
        open_storage("gs://bucket", {"token": str(tmp_path / "pipe")})


@pytest.mark.parametrize("path", ["keys/agent", "~/key.json", "agent.json", "./agent", "agent.txt"])
def test_a_path_of_no_file_is_not_taken_for_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageOptionError, match="token of gs://bucket names .* not there"):
        open_storage("gs://bucket", {"token": path})


@pytest.mark.parametrize("token", ["ya29." + "a" * 400, "ya29.a/b", "1/abcdef", "a" * 5000])
def test_a_token_is_not_taken_for_a_path(token: str) -> None:
    open_storage("gs://bucket", {"token": token}).close()


def test_what_may_be_a_token_is_not_repeated() -> None:
    with pytest.raises(StorageOptionError, match="names a file, which is not there") as caught:
        open_storage("gs://bucket", {"token": "eyJ0eXAi/c2VjcmV0"})
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ({}, "lacks client_id, client_secret, refresh_token"),
        ({"client_id": "a", "client_secret": "b"}, "lacks refresh_token"),
        ({"type": "external_account"}, "GOOGLE_APPLICATION_CREDENTIALS"),
        ({"type": "service_account", "private_key": "very secret"}, "missing fields .*token_uri"),
        ({"private_key": "very secret", "client_email": "a@b", "token_uri": "http://c"}, "PEM"),
        ({"private_key": 5, "client_email": 6, "token_uri": 7}, "no usable key"),
    ],
)
def test_a_key_that_is_none_is_an_option_error(tmp_path: Path, key: dict[str, Any], reason: str) -> None:
    (tmp_path / "key.json").write_text(json.dumps(key))
    for given in (key, str(tmp_path / "key.json")):
        with pytest.raises(StorageOptionError, match=reason) as caught:
            open_storage("gs://bucket", {"token": given})
        assert "very secret" not in str(caught.value)
        assert "key.json" in str(caught.value) or given is key


def test_a_url_without_bucket_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="names no bucket"):
        GcsStorage("gs://")


class Relay:
    """Stands between a client and fake-gcs-server, to which an upload's session leads back as well.

    It says how far an upload came by itself, as fake-gcs-server finishes an upload when it is asked that.

    Args:
        gcs: The server.
        meddle: Is shown each request before it goes on; what it returns is the answer then.
        afterwards: The same for each request that has been answered, with the server's answer.
    """

    def __init__(
        self,
        gcs: StorageTarget,
        *,
        meddle: Callable[[ScriptedRequest], ScriptedAnswer | None] = lambda _: None,
        afterwards: Callable[[ScriptedRequest, ScriptedAnswer], ScriptedAnswer] = lambda _, answer: answer,
    ) -> None:
        self.requests: list[str] = []
        self._upstream = str(gcs.storage_options["endpoint_url"])
        self._parts: dict[str, ScriptedAnswer] = {}
        self._meddle = meddle
        self._afterwards = afterwards

    def __call__(self, request: ScriptedRequest) -> ScriptedAnswer:
        span = request.headers.get("Content-Range", "")
        self.requests.append(f"{request.method} {span}".strip())
        if (answer := self._meddle(request)) is not None:
            return answer
        if span.startswith("bytes */"):
            answer = self._parts.get(request.path, ScriptedAnswer(308))
        else:
            answer = self._passed_on(request)
        if span:
            self._parts[request.path] = answer
        return self._afterwards(request, answer)

    def _passed_on(self, request: ScriptedRequest) -> ScriptedAnswer:
        server = http.client.HTTPConnection(self._upstream.removeprefix("http://"), timeout=600)
        try:
            server.request(request.method, request.path, request.body, dict(request.headers))
            response = server.getresponse()
            body = response.read()
        finally:
            server.close()
        headers = {name: response.headers[name] for name in ("Range", "Content-Range") if name in response.headers}
        if "Location" in response.headers:
            here = f"http://{request.headers['Host']}"
            headers["Location"] = response.headers["Location"].replace(self._upstream, here)
        return ScriptedAnswer(response.status, body, headers)


_BIG = bytes(range(256)) * (2 * _PIECE // 256) + b"the end"


def is_part(request: ScriptedRequest) -> bool:
    return request.method == "PUT"


def lost_sessions(status: int, *lost: int) -> Callable[[ScriptedRequest], ScriptedAnswer | None]:
    """Answer the parts with these numbers, and all later ones of the same upload, with `status`."""
    counted = itertools.count()
    gone: set[str] = set()

    def meddle(request: ScriptedRequest) -> ScriptedAnswer | None:
        if not is_part(request):
            return None
        if next(counted) in lost:
            gone.add(request.path)
        return json_error(status) if request.path in gone else None

    return meddle


@contextlib.contextmanager
def relayed(gcs: StorageTarget, relay: Relay, **options: Any) -> Iterator[Storage]:
    with (
        scripted_server(relay) as endpoint,
        contextlib.closing(open_storage(gcs.url, {"endpoint_url": endpoint, **options}, retry=None)) as storage,
    ):
        yield storage


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 1), (2, 5), (1, 2)], ids=str)
def test_an_upload_whose_session_is_lost_starts_again(gcs: StorageTarget, status: int, lost: tuple[int, ...]) -> None:
    relay = Relay(gcs, meddle=lost_sessions(status, *lost))
    with relayed(gcs, relay) as storage:
        assert storage.put("key", [_BIG[:5], _BIG[5:]]) == len(_BIG)
    assert gcs.raw.get("key") == _BIG
    assert relay.requests.count("POST") == 1 + len(lost)


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_whose_sessions_are_all_lost_is_given_up(gcs: StorageTarget, status: int) -> None:
    relay = Relay(gcs, meddle=lost_sessions(status, *range(1000)))
    with relayed(gcs, relay) as storage, pytest.raises(StorageError, match="upload") as caught:
        storage.put("key", _BIG)
    assert caught.value.transient
    assert not isinstance(caught.value, ObjectNotFoundError)
    assert relay.requests.count("POST") == 3
    assert gcs.raw.keys() == []


def test_bytes_that_come_only_once_are_not_sent_again(gcs: StorageTarget) -> None:
    relay = Relay(gcs, meddle=lost_sessions(410, 1))
    with relayed(gcs, relay) as storage, pytest.raises(StorageError, match="upload") as caught:
        storage.put("key", iter([_BIG]))
    assert caught.value.transient
    assert relay.requests.count("POST") == 1
    assert gcs.raw.keys() == []


@pytest.mark.parametrize("create_only", [False, True])
@pytest.mark.parametrize("size", [5, len(_BIG)])
def test_an_upload_that_the_server_has_finished_and_forgotten_is_there(
    gcs: StorageTarget, size: int, *, create_only: bool
) -> None:
    """The last answer is lost, and nothing is known of the upload any more by whoever is asked how far it came."""
    broken = False

    def afterwards(request: ScriptedRequest, answer: ScriptedAnswer) -> ScriptedAnswer:
        nonlocal broken
        if not broken and answer.status == 200 and (is_part(request) or size == 5):
            broken = True
            return json_error(503 if is_part(request) else 410)
        return answer

    def meddle(request: ScriptedRequest) -> ScriptedAnswer | None:
        if request.method == "POST" and broken and create_only:
            return json_error(412)  # fake-gcs-server has no conditions for uploads in pieces
        return json_error(410) if request.headers.get("Content-Range", "").startswith("bytes */") else None

    relay = Relay(gcs, meddle=meddle, afterwards=afterwards)
    with relayed(gcs, relay) as storage:
        assert storage.put("key", _BIG[:size], create_only=create_only) == size
        assert gcs.raw.get("key") == _BIG[:size]
        if create_only:
            with pytest.raises(ObjectExistsError):
                storage.put("key", bytes(size), create_only=True)


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("size", [5, len(_BIG)])
def test_a_put_is_never_told_that_there_is_no_object(gcs: StorageTarget, status: int, size: int) -> None:
    answers = [json_error(status)]
    relay = Relay(
        gcs,
        meddle=lambda request: answers.pop() if request.method == "POST" and answers else None,
    )
    with relayed(gcs, relay) as storage:
        assert storage.put("key", _BIG[:size]) == size
    assert gcs.raw.get("key") == _BIG[:size]


def test_a_bucket_that_is_gone_in_the_middle_is_named(gcs: StorageTarget) -> None:
    gone = threading.Event()
    relay = Relay(gcs, meddle=lambda _: json_error(404) if gone.is_set() else None)
    with relayed(gcs, relay) as storage:
        storage.put("key", b"x")
        gone.set()
        with pytest.raises(StoreNotFoundError, match="no bucket"):
            storage.put("key", _BIG)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_when_it_is_asked_how_far_it_came_is_asked_again(gcs: StorageTarget, status: int) -> None:
    fails = {1, 2}
    counted = itertools.count()
    relay = Relay(
        gcs,
        meddle=lambda request: json_error(status) if is_part(request) and next(counted) in fails else None,
    )
    with relayed(gcs, relay) as storage:
        assert storage.put("key", iter([_BIG])) == len(_BIG)
    assert gcs.raw.get("key") == _BIG
    assert relay.requests.count("POST") == 1


@pytest.mark.parametrize("stored", ["", "bytes=0-1048575", "bytes=0-99999999999", "nonsense"])
def test_an_upload_of_which_the_server_has_lost_bytes_starts_again(gcs: StorageTarget, stored: str) -> None:
    counted = itertools.count()

    def afterwards(request: ScriptedRequest, answer: ScriptedAnswer) -> ScriptedAnswer:
        if is_part(request) and next(counted) == 1:
            return ScriptedAnswer(308, headers={"Range": stored} if stored else {})
        return answer

    relay = Relay(gcs, afterwards=afterwards)
    with relayed(gcs, relay) as storage:
        assert storage.put("key", _BIG) == len(_BIG)
    assert gcs.raw.get("key") == _BIG
    assert relay.requests.count("POST") == 2


def test_an_upload_is_not_done_before_the_server_says_so(gcs: StorageTarget) -> None:
    """It has all bytes, and says that it waits for more."""
    last = f"PUT bytes {2 * _PIECE}-{len(_BIG) - 1}/{len(_BIG)}"

    def afterwards(_: ScriptedRequest, answer: ScriptedAnswer) -> ScriptedAnswer:
        whole = {"Range": f"bytes=0-{len(_BIG) - 1}"}
        return ScriptedAnswer(308, headers=whole) if relay.requests[-1] == last else answer

    relay = Relay(gcs, afterwards=afterwards)
    with relayed(gcs, relay) as storage:
        assert storage.put("key", _BIG) == len(_BIG)
    assert gcs.raw.get("key") == _BIG
    assert relay.requests[-2:] == [last, f"PUT bytes */{len(_BIG)}"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_upload_that_the_server_has_finished_too_early_starts_again(gcs: StorageTarget, number: int) -> None:
    """As fake-gcs-server does when it is asked how far an upload came."""
    counted = itertools.count()

    def meddle(request: ScriptedRequest) -> ScriptedAnswer | None:
        early = is_part(request) and next(counted) == number
        return ScriptedAnswer(200, json.dumps({"size": str(_PIECE)}).encode()) if early else None

    relay = Relay(gcs, meddle=meddle)
    with relayed(gcs, relay) as storage:
        assert storage.put("key", _BIG) == len(_BIG)
    assert gcs.raw.get("key") == _BIG
    assert relay.requests.count("POST") == 2


def test_a_server_that_takes_nothing_more_after_a_failure_is_given_up() -> None:
    counted = itertools.count()

    def server(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "POST":
            return ScriptedAnswer(200, headers={"Location": f"http://{request.headers['Host']}/upload?id=1"})
        return ScriptedAnswer(503) if next(counted) == 0 else ScriptedAnswer(308)

    with scripted_server(server) as endpoint, pytest.raises(StorageError, match="0 bytes"):
        opened(endpoint).put("key", bytes(_PIECE + 1))


def test_a_session_without_an_address_is_an_error() -> None:
    with scripted_server(lambda _: ScriptedAnswer(200)) as endpoint, pytest.raises(StorageError, match="Location"):
        opened(endpoint).put("key", bytes(_PIECE + 1))


_REMOVED = RefreshError("the account was removed")  # type: ignore[no-untyped-call]


class Renewable(Credentials):
    """Credentials whose tokens are ``token-1``, ``token-2``, …

    Args:
        most: How many of them there are.
    """

    def __init__(self, most: int = 1000) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given = 0
        self._most = most

    @override
    def refresh(self, request: object) -> None:
        if self.given >= self._most:
            raise _REMOVED
        self.given += 1
        self.token = f"token-{self.given}"


def bearer(request: ScriptedRequest) -> str:
    return next(value for name, value in request.headers.items() if name.lower() == "authorization")


def refused_once(number: int) -> Callable[[ScriptedRequest], ScriptedAnswer | None]:
    """Refuse the token of the request with this number from there on."""
    counted = itertools.count()
    refused: set[str] = set()

    def meddle(request: ScriptedRequest) -> ScriptedAnswer | None:
        if next(counted) == number:
            refused.add(bearer(request))
        return json_error(401, "authError") if bearer(request) in refused else None

    return meddle


def upload(storage: Storage) -> None:
    assert storage.put("key", iter([_BIG])) == len(_BIG)
    assert storage.put("small", b"x") == 1


def read(storage: Storage) -> None:
    assert storage.get("there") == b"hello"
    assert storage.get("there", 1, 3) == b"el"
    assert storage.head("there").size == 5
    assert [info.key for info in storage.list()] == ["there"]


def clear(storage: Storage) -> None:
    storage.delete(["there", "missing", "another"])
    assert list(storage.list()) == []


@pytest.mark.parametrize(("call", "requests"), [(upload, 5), (read, 4), (clear, 4)])
def test_a_token_that_is_refused_in_the_middle_is_renewed_once(
    gcs: StorageTarget, call: Callable[[Storage], None], requests: int
) -> None:
    for number in range(requests):
        open_storage(gcs.url, gcs.storage_options).delete(gcs.raw.keys())
        gcs.raw.put("there", b"hello")
        relay = Relay(gcs, meddle=refused_once(number))
        credentials = Renewable()
        with relayed(gcs, relay, token=credentials) as storage:
            call(storage)
        assert credentials.given == 2
        # Requests for deletions are made at the same time: more than one may have had the old token.
        assert len(relay.requests) == requests + 1 if call is not clear else len(relay.requests) > requests
    assert call is not upload or gcs.raw.get("key") == _BIG


@pytest.mark.parametrize("renewable", [True, False])
def test_a_token_that_is_refused_for_good_is_an_access_error(*, renewable: bool) -> None:
    asked = []

    def server(request: ScriptedRequest) -> ScriptedAnswer:
        asked.append(bearer(request))
        return json_error(401, "authError")

    credentials = Renewable(1000 if renewable else 1)
    with scripted_server(server) as endpoint:
        storage = open_storage("gs://bucket/root", {"endpoint_url": endpoint, "token": credentials}, retry=_AT_ONCE)
        for call in (lambda: storage.get("key"), lambda: storage.put("key", b"x"), lambda: storage.delete(["key"])):
            asked.clear()
            with pytest.raises(StorageAccessError, match="as told.*GOOGLE_APPLICATION_CREDENTIALS"):
                call()
            assert len(asked) == 2


def test_a_token_server_that_is_busy_is_asked_again(gcs: StorageTarget) -> None:
    gcs.raw.put("key", b"hello")
    failures: list[Exception] = [
        RefreshError("busy", retryable=True),  # type: ignore[no-untyped-call]
        TransportError("no connection"),  # type: ignore[no-untyped-call]
    ]

    class Busy(Renewable):
        @override
        def refresh(self, request: object) -> None:
            if failures:
                raise failures.pop()
            super().refresh(request)

    with scripted_server(Relay(gcs, meddle=refused_once(0))) as endpoint:
        options = {"endpoint_url": endpoint, "token": Busy()}
        with pytest.raises(StorageUnreachableError) as caught:
            open_storage(gcs.url, options, retry=None).get("key")
        assert caught.value.transient
        assert open_storage(gcs.url, options, retry=_AT_ONCE).get("key") == b"hello"
