"""What the client of S3 makes of s3fs' options, and how it sends and receives."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiobotocore.session import AioSession

from statevault.errors import StorageError, StorageOptionError, StorageUnreachableError
from statevault.storage import Storage, client, open_storage
from statevault.storage.s3.client import instant
from statevault.storage.s3.stream import SentBody, StoppedError
from tests.servers import ScriptedAnswer, ScriptedRequest, scripted_server


class Bucket:
    """Answers as a server that takes everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[ScriptedRequest] = []

    def __call__(self, request: ScriptedRequest) -> ScriptedAnswer:
        self.requests.append(request)
        if request.method == "POST" and request.path.endswith("?uploads"):
            return ScriptedAnswer(
                200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            )
        if request.method == "POST":
            return ScriptedAnswer(200, b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
        return ScriptedAnswer(200, b"content" if request.method == "GET" else b"", {"ETag": '"e"'})

    def headers(self, method: str) -> dict[str, str]:
        (request,) = (request for request in self.requests if request.method == method)
        return {name.lower(): value for name, value in request.headers.items()}


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def endpoint(bucket: Bucket) -> Iterator[str]:
    with scripted_server(bucket) as endpoint:
        yield endpoint


def opened(endpoint: str, **options: Any) -> Storage:
    return open_storage("s3://bucket/root", {"endpoint_url": endpoint, **options}, retry=None)


def signer(bucket: Bucket) -> str:
    """The access key that the only GET was signed with."""
    return bucket.headers("GET")["authorization"].partition("Credential=")[2].partition("/")[0]


# ------------------------------------------------------------------------------------------- s3fs' options


def test_anonymous_requests_are_not_signed(bucket: Bucket, endpoint: str) -> None:
    assert opened(endpoint, anon=True).get("key") == b"content"
    assert "authorization" not in bucket.headers("GET")


def test_username_and_password_are_other_words_for_key_and_secret(bucket: Bucket, endpoint: str) -> None:
    opened(endpoint, username="somebody", password="secret").get("key")
    assert signer(bucket) == "somebody"


def test_a_token_is_sent(bucket: Bucket, endpoint: str) -> None:
    opened(endpoint, key="k", secret="s", token="the token").get("key")
    assert bucket.headers("GET")["x-amz-security-token"] == "the token"


def test_a_profile_is_read(bucket: Bucket, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text("[edge]\naws_access_key_id = of-edge\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    opened(endpoint, profile="edge").get("key")
    assert signer(bucket) == "of-edge"


_EMPTY = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "AWS_DEFAULTS_MODE",
    "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
    "AWS_DATA_PATH",
]


@pytest.mark.parametrize("names", [*([name] for name in _EMPTY), _EMPTY], ids="-".join)
def test_an_empty_variable_is_as_one_that_is_not_set(
    names: list[str], bucket: Bucket, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(f"[default]\nregion = eu-north-1\nendpoint_url = {endpoint}\n")
    (tmp_path / ".aws/credentials").write_text("[default]\naws_access_key_id = of-file\naws_secret_access_key = s\n")
    for name in _EMPTY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in names:
        monkeypatch.setenv(name, "")
    assert open_storage("s3://bucket/root", retry=None).get("key") == b"content"
    assert signer(bucket) == "of-file"
    assert "/eu-north-1/s3/" in bucket.headers("GET")["authorization"]


def test_an_empty_variable_hides_no_other(bucket: Bucket, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "")
    monkeypatch.setenv("AWS_PROFILE", "nosuch")
    with pytest.raises(StorageOptionError, match="nosuch"):
        open_storage("s3://bucket/root", retry=None)
    monkeypatch.setenv("AWS_PROFILE", "")
    assert open_storage("s3://bucket/root", {"key": "k", "secret": "s"}, retry=None).get("key") == b"content"


def test_the_region_is_part_of_the_signature(bucket: Bucket, endpoint: str) -> None:
    opened(endpoint, key="k", secret="s", client_kwargs={"region_name": "eu-north-1"}).get("key")
    assert "/eu-north-1/s3/" in bucket.headers("GET")["authorization"]


def test_what_the_user_adds_is_said_in_the_requests_that_know_it(bucket: Bucket, endpoint: str) -> None:
    storage = opened(
        endpoint, key="k", secret="s", requester_pays=True, s3_additional_kwargs={"ServerSideEncryption": "AES256"}
    )
    storage.put("key", b"x")
    storage.get("key")
    assert bucket.headers("PUT")["x-amz-server-side-encryption"] == "AES256"
    assert "x-amz-server-side-encryption" not in bucket.headers("GET")
    assert bucket.headers("PUT")["x-amz-request-payer"] == bucket.headers("GET")["x-amz-request-payer"] == "requester"


def test_a_session_that_the_user_has_made_lends_its_credentials_and_region(bucket: Bucket, endpoint: str) -> None:
    session = AioSession()
    session.set_credentials("of-session", "s")
    session.set_config_variable("region", "eu-north-1")
    opened(endpoint, session=session).get("key")
    assert signer(bucket) == "of-session"
    assert "/eu-north-1/s3/" in bucket.headers("GET")["authorization"]


def test_options_of_its_event_loop_are_left_out(endpoint: str) -> None:
    config = {"connector_args": {"keepalive_timeout": 5}}
    assert opened(endpoint, key="k", secret="s", config_kwargs=config).get("key") == b"content"


def test_what_a_call_says_itself_wins(bucket: Bucket, endpoint: str) -> None:
    opened(endpoint, key="k", secret="s", s3_additional_kwargs={"Bucket": "other"}).put("key", b"x")
    assert bucket.requests[0].path == "/bucket/root/key"


def test_credentials_that_expire_in_an_upload_are_read_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_RENEW_INTERVAL_S", 0.0)
    expired = ScriptedAnswer(403, b"<Error><Code>ExpiredToken</Code></Error>")
    session = AioSession()
    session.set_credentials("old", "s")

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "PUT":
            session.set_credentials("new", "s")
        is_old = "Credential=old" in request.headers["Authorization"]
        return expired if request.method == "PUT" and is_old else bucket(request)

    with scripted_server(answer) as server:
        opened(server, session=session).put("key", bytes(20 << 20))
    assert sum(len(request.body) for request in bucket.requests if request.method == "PUT") == 20 << 20


# ------------------------------------------------------------------------------------------- bodies


def test_a_body_is_signed_and_sent_without_asking_first(bucket: Bucket, endpoint: str) -> None:
    opened(endpoint, key="k", secret="s").put("key", b"x" * 1_000_000)
    headers = bucket.headers("PUT")
    assert "expect" not in headers
    assert headers["content-length"] == "1000000"
    assert len(headers["x-amz-content-sha256"]) == 64
    assert bucket.requests[0].body == b"x" * 1_000_000


def test_the_hash_of_a_body_can_be_left_out(bucket: Bucket, endpoint: str) -> None:
    config = {"s3": {"payload_signing_enabled": False}}
    opened(endpoint, key="k", secret="s", config_kwargs=config).put("key", b"x")
    assert bucket.headers("PUT")["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert bucket.requests[0].path == "/bucket/root/key", "other options of S3 stay as they are"


@pytest.mark.parametrize("count", [59, 61, 100])
def test_an_answer_of_another_length_is_no_success_and_goes_no_further_than_asked(count: int) -> None:
    """As of a server that does not know ranges, or counts wrong."""
    memory = bytearray(100)
    headers = {"Content-Range": "bytes 0-59/100"}
    with scripted_server(lambda _: ScriptedAnswer(206, b"x" * count, headers=headers)) as endpoint:
        storage = opened(endpoint, key="k", secret="s")
        with pytest.raises(StorageUnreachableError, match=f"broke off: {count} of 60 bytes came"):
            storage.get_into("key", 0, memoryview(memory)[20:80])
        with pytest.raises(StorageUnreachableError, match=f"broke off: {count} of 60 bytes came"):
            storage.get("key", 0, 60)
    assert memory == bytes(20) + b"x" * min(count, 60) + bytes(20 + 60 - min(count, 60))


def test_a_connection_that_breaks_within_an_answer_is_no_success() -> None:
    answer = ScriptedAnswer(206, b"x" * 30, headers={"Content-Range": "bytes 0-59/100"}, announced=60)
    with scripted_server(lambda _: answer) as endpoint:
        with pytest.raises(StorageUnreachableError, match="closed after 30 of 60 bytes") as caught:
            opened(endpoint, key="k", secret="s").get_into("key", 0, memoryview(bytearray(60)))
        assert caught.value.transient


def test_an_upload_that_fails_ends_its_other_parts_and_then_itself(bucket: Bucket) -> None:
    """A part that arrived after the abort would stay."""
    order: list[str] = []

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "DELETE":
            order.append("abort")
            return ScriptedAnswer(204)
        if request.method == "PUT" and parse_qs(urlsplit(request.path).query)["partNumber"] == ["1"]:
            return ScriptedAnswer(400, b"<Error><Code>InvalidArgument</Code></Error>")
        if request.method == "PUT":
            time.sleep(0.3)
            # One that was cut off is none.
            order.extend(["part"] * (len(request.body) == int(request.headers["Content-Length"])))
        return bucket(request)

    with scripted_server(answer) as server, pytest.raises(StorageError, match="InvalidArgument"):
        opened(server, key="k", secret="s").put("key", bytes(40 << 20))
    assert order.count("abort") == 1
    assert order[-1] == "abort"


def test_a_part_is_tried_three_times() -> None:
    tries = []

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "PUT":
            tries.append(request.path)
            return ScriptedAnswer(503, b"<Error><Code>SlowDown</Code></Error>")
        return Bucket()(request)

    with scripted_server(answer) as server, pytest.raises(StorageError, match="SlowDown"):
        opened(server, key="k", secret="s").put("key", bytes(20 << 20))
    assert max(tries.count(path) for path in tries) == 3


def test_a_body_is_read_in_large_pieces_that_are_no_copies() -> None:
    data = bytes(range(256)) * 4096
    body = SentBody([memoryview(data)[:1000], memoryview(data)[1000:]])
    pieces = []
    while piece := body.read(16):
        pieces.append(piece)
    assert len(pieces) == 9
    assert b"".join(pieces) == data
    assert all(piece.obj is data for piece in pieces)


def test_a_body_knows_its_place() -> None:
    body = SentBody([memoryview(b"01234"), memoryview(b""), memoryview(b"56789")])
    assert body.seek(0, os.SEEK_END) == 10
    assert body.seek(4) == body.tell() == 4
    assert body.seek(2, os.SEEK_CUR) == 6
    assert bytes(body.read()) == b"6789"
    assert not body.read()


def test_a_body_that_is_stopped_gives_no_more() -> None:
    stop = threading.Event()
    body = SentBody([memoryview(bytes(1_000_000))], stop)
    assert body.read(1)
    stop.set()
    with pytest.raises(StoppedError):
        body.read(1)


def test_a_server_that_redirects_without_saying_where_to_is_asked_twice() -> None:
    requests = []

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        requests.append((request.method, request.path))
        return ScriptedAnswer(301, b"<Error><Code>PermanentRedirect</Code></Error>")

    with scripted_server(answer) as server, pytest.raises(StorageError, match="AWS_DEFAULT_REGION"):
        opened(server, key="k", secret="s").get("key")
    assert requests == [("GET", "/bucket/root/key"), ("HEAD", "/bucket")]


def test_a_bucket_in_another_region_is_found() -> None:
    regions = []

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        region = request.headers["Authorization"].split("/")[2]
        regions.append((request.method, region))
        if region == "eu-north-1":
            return ScriptedAnswer(200, b"content")
        body = b"<Error><Code>PermanentRedirect</Code></Error>"
        return ScriptedAnswer(301, body, {"x-amz-bucket-region": "eu-north-1"} if request.method == "HEAD" else {})

    with scripted_server(answer) as server:
        storage = opened(server, key="k", secret="s", client_kwargs={"region_name": "us-east-1"})
        assert [storage.get("key"), storage.get("key")] == [b"content", b"content"]
    assert regions == [("GET", "us-east-1"), ("HEAD", "us-east-1"), *[("GET", "eu-north-1")] * 2]


def test_a_connection_is_used_again(bucket: Bucket, endpoint: str) -> None:
    storage = opened(endpoint, key="k", secret="s")
    for _ in range(3):
        storage.get("key")
        storage.get_into("key", 0, memoryview(bytearray(7)))
        storage.put("key", b"x")
    assert len({request.port for request in bucket.requests}) == 1


@pytest.mark.parametrize(
    "said", ["2026-11-22T05:18:17.000Z", "Sun, 22 Nov 2026 05:18:17 GMT", "2026-11-22 06:18:17+01:00", 1795324697]
)
def test_times_are_read_in_every_form(said: str | int) -> None:
    assert instant(said) == datetime(2026, 11, 22, 5, 18, 17, tzinfo=UTC)


def test_what_is_no_time_is_an_error() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        instant("yesterday")


def test_it_says_who_asks(bucket: Bucket, endpoint: str) -> None:
    opened(endpoint, key="k", secret="s").get("key")
    assert bucket.headers("GET")["user-agent"].startswith("statevault")
    bucket.requests.clear()
    opened(endpoint, key="k", secret="s", config_kwargs={"user_agent": "me"}).get("key")
    assert bucket.headers("GET")["user-agent"] == "me"


def test_a_server_that_is_no_server_is_unreachable(endpoint: str) -> None:
    with pytest.raises(StorageUnreachableError):
        opened(endpoint.replace("http://", "https://"), key="k", secret="s").get("key")
