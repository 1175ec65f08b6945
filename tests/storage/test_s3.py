"""What S3 servers do that a storage must not pass on."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from statevault.errors import (
    InvalidNameError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageTimeoutError,
    StorageUnreachableError,
    StoreNotFoundError,
)
from statevault.storage import RetryingStorage, RetryPolicy, Storage, client, open_storage
from statevault.storage.redaction import Secrets
from statevault.storage.s3.errors import answer, is_conflict, translated
from statevault.storage.s3.storage import S3Storage
from statevault.storage.s3.upload import part_size
from tests.servers import (
    S3_SERVERS,
    ScriptedAnswer,
    ScriptedRequest,
    Servers,
    StorageTarget,
    breaking_proxy,
    free_port,
    scripted_server,
    target_names,
)
from tests.servers.raw import S3Raw

_KEYS = {"key": "anybody", "secret": "anything"}
_AT_ONCE = RetryPolicy(first_delay_s=0.01, max_delay_s=0.01)

pytestmark = pytest.mark.skipif("moto" not in target_names(), reason="STATEVAULT_TEST_SKIP_SERVERS=1")


@pytest.fixture(params=S3_SERVERS)
def s3(request: pytest.FixtureRequest, servers: Servers) -> StorageTarget:
    return servers.target(request.param)


@pytest.fixture
def moto(servers: Servers) -> StorageTarget:
    return servers.target("moto")


def opened(endpoint: str, url: str = "s3://bucket/root", *, retry: RetryPolicy | None = None, **config: Any) -> Storage:
    return open_storage(url, {"endpoint_url": endpoint, **_KEYS, "config_kwargs": config}, retry=retry)


def xml_error(code: str, status: int) -> ScriptedAnswer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as told</Message></Error>"
    return ScriptedAnswer(status, body.encode(), {"Content-Type": "application/xml"})


# ------------------------------------------------------------------------------------------- create-only


@pytest.mark.parametrize("name", ["rclone", "juicefs"])
@pytest.mark.parametrize("size", [5, 20 << 20], ids=["small", "big"])
def test_some_servers_accept_a_condition_and_overwrite(servers: Servers, name: str, size: int) -> None:
    target = servers.target(name)
    storage = open_storage(target.url, target.storage_options)
    storage.put("key", b"a" * size, create_only=True)
    assert storage.put("key", b"b" * size, create_only=True) == size
    assert target.raw.get("key") == b"b" * size


@pytest.mark.parametrize("size", [5, 20 << 20], ids=["small", "big"])
def test_a_conditional_put_whose_first_answer_was_lost_is_no_conflict(moto: StorageTarget, size: int) -> None:
    content = b"m" * size
    # The last request of the put goes through, its answer does not. Small: the only one, on the first connection.
    with breaking_proxy(str(moto.storage_options["endpoint_url"]), [0]) as endpoint:
        options = {**moto.storage_options, "endpoint_url": endpoint}
        storage = open_storage(moto.url, options, retry=_AT_ONCE)
        assert storage.put("key", content, create_only=True) == size
        assert moto.raw.get("key") == content
        with pytest.raises(ObjectExistsError):
            storage.put("key", b"x" * size, create_only=True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"Code": "PreconditionFailed", "Condition": "If-None-Match"}, 412),
        ({"Code": "PreconditionFailed"}, 412),
        ({"Code": "412"}, 412),
        ({"Code": "ConditionalRequestConflict"}, 409),
        ({"Code": "409"}, 409),
    ],
)
def test_a_conflict_is_known_in_each_of_its_shapes(error: dict[str, str], status: int) -> None:
    response = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert is_conflict(translate_boto_error(ClientError(response, "PutObject")))


def test_a_conflict_with_an_object_that_is_gone_again_is_transient() -> None:
    def server(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "PUT":
            return xml_error("ConditionalRequestConflict", 409)
        return ScriptedAnswer(404 if request.path.endswith("/key") else 200)

    with scripted_server(server) as endpoint, pytest.raises(StorageError) as caught:
        opened(endpoint).put("key", b"x", create_only=True)
    assert caught.value.transient
    assert not isinstance(caught.value, ObjectExistsError)


# ------------------------------------------------------------------------------------------- deleting


def test_a_put_that_is_told_that_there_is_no_such_object_is_made_again() -> None:
    answers = [xml_error("NoSuchKey", 404), ScriptedAnswer(200, headers={"ETag": '"e"'})]
    with scripted_server(lambda _: answers.pop(0)) as endpoint:
        assert opened(endpoint, retry=_AT_ONCE).put("a/b", b"content", create_only=True) == 7
    assert not answers


def test_minio_of_2022_takes_no_bulk_delete_and_the_objects_go_all_the_same(servers: Servers) -> None:
    target = servers.target("juicefs")
    raw = target.raw
    assert isinstance(raw, S3Raw)
    raw.put("a", b"x")
    raw.put("b", b"x")
    with pytest.raises(ClientError) as caught:
        raw.client.delete_objects(Bucket=raw.bucket, Delete={"Objects": [{"Key": f"{raw.prefix}a"}]})
    assert caught.value.response["Error"]["Code"] == "MissingContentMD5"
    open_storage(target.url, target.storage_options).delete(["a", "b"])
    assert raw.keys() == []


def test_what_a_bulk_delete_does_not_confirm_is_deleted_singly() -> None:
    deleted = []

    def server(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "POST":
            body = b"<DeleteResult><Deleted><Key>root/a</Key></Deleted></DeleteResult>"
            return ScriptedAnswer(200, body, {"Content-Type": "application/xml"})
        deleted.append((request.method, request.path))
        return ScriptedAnswer(204)

    with scripted_server(server) as endpoint:
        opened(endpoint).delete(["a", "b"])
    assert deleted == [("DELETE", "/bucket/root/b")]


def test_an_object_that_can_not_be_deleted_is_named() -> None:
    def server(request: ScriptedRequest) -> ScriptedAnswer:
        if request.method == "POST":
            body = b"<DeleteResult><Error><Key>root/b</Key><Code>AccessDenied</Code></Error></DeleteResult>"
            return ScriptedAnswer(200, body, {"Content-Type": "application/xml"})
        return xml_error("AccessDenied", 403) if request.path.endswith("/b") else ScriptedAnswer(204)

    with scripted_server(server) as endpoint, pytest.raises(StorageAccessError, match="Can't delete b in"):
        opened(endpoint).delete(["a", "b"])


# ------------------------------------------------------------------------------------------- broken reads and uploads


@pytest.mark.parametrize("announced", [1000, 100_000], ids=["small", "big"])
def test_a_body_that_ends_early_is_read_again(announced: int) -> None:
    content = bytes(announced)
    answers = [ScriptedAnswer(200, content[: announced // 2], announced=announced), ScriptedAnswer(200, content)]
    with scripted_server(lambda _: answers.pop(0)) as endpoint:
        with pytest.raises(StorageUnreachableError) as caught:
            opened(endpoint).get("key")
        assert caught.value.transient
    answers = [ScriptedAnswer(200, content[:10], announced=announced), ScriptedAnswer(200, content)]
    with scripted_server(lambda _: answers.pop(0)) as endpoint:
        assert opened(endpoint, retry=_AT_ONCE).get("key") == content


def test_a_server_that_ignores_ranges_is_found_out() -> None:
    with scripted_server(lambda _: ScriptedAnswer(200, b"0123456789")) as endpoint, pytest.raises(StorageError):
        opened(endpoint).get("key", 2, 5)


def test_a_connection_that_breaks_in_a_body_is_transient_and_tried_again(s3: StorageTarget) -> None:
    content = bytes(range(256)) * 8192
    s3.raw.put("key", content)
    with breaking_proxy(str(s3.storage_options["endpoint_url"]), [500_000, 700_000]) as endpoint:
        options = {**s3.storage_options, "endpoint_url": endpoint}
        with pytest.raises(StorageUnreachableError) as caught:
            open_storage(s3.url, options, retry=None).get("key")
        assert caught.value.transient
        assert open_storage(s3.url, options, retry=_AT_ONCE).get("key") == content


def test_a_list_that_breaks_off_anywhere_is_never_taken_for_a_whole_one(s3: StorageTarget) -> None:
    """Not among the headers of the answer either, which the standard library would take for all of them."""
    s3.raw.put("key", b"0123456789")
    broken = 0
    for limit in range(1, 600, 13):
        with breaking_proxy(str(s3.storage_options["endpoint_url"]), [limit]) as endpoint:
            storage = open_storage(s3.url, {**s3.storage_options, "endpoint_url": endpoint}, retry=None)
            try:
                assert [(info.key, info.size) for info in storage.list()] == [("key", 10)]
            except StorageError:
                broken += 1
            finally:
                storage.close()
    assert broken > 10


def test_a_part_whose_connection_breaks_is_sent_again(moto: StorageTarget) -> None:
    """Also of an iterator, which can't be read a second time."""
    content = b"0123456789abcdef" * (3 << 20)
    # Connections beside the first one are made for parts that go up at once.
    with breaking_proxy(str(moto.storage_options["endpoint_url"]), [None, 0, 0]) as endpoint:
        options = {**moto.storage_options, "endpoint_url": endpoint}
        storage = open_storage(moto.url, options, retry=None)
        storage.put("key", iter([content[:30_000_000], content[30_000_000:]]))
    assert moto.raw.get("key") == content


def test_a_failed_upload_leaves_no_parts_behind(s3: StorageTarget) -> None:
    def body() -> Iterator[bytes]:
        yield bytes(40 << 20)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        open_storage(s3.url, s3.storage_options).put("key", body())
    raw = s3.raw
    assert isinstance(raw, S3Raw)
    assert raw.keys() == []
    if s3.name != "rclone":  # It does not know that request.
        assert raw.unfinished_uploads() == []


def test_an_upload_that_the_server_has_lost_begins_anew(s3: StorageTarget) -> None:
    if s3.name == "rclone":
        pytest.skip("it does not list uploads")
    raw = s3.raw
    assert isinstance(raw, S3Raw)
    abort = raw.abort_uploads
    begun: list[int] = []

    class Source:
        """The bytes of an object whose first upload is aborted by another program in the middle."""

        def __iter__(self) -> Iterator[bytes]:
            begun.append(len(begun))
            for number in range(6):
                yield bytes([number]) * (10 << 20)
                if begun == [0] and number == 4:
                    abort()

    storage = open_storage(s3.url, s3.storage_options, retry=_AT_ONCE)
    assert storage.put("key", Source()) == 60 << 20
    assert begun == [0, 1]
    assert raw.get("key") == b"".join(bytes([number]) * (10 << 20) for number in range(6))
    assert raw.unfinished_uploads() == []


def test_an_upload_that_is_under_way_at_exit_writes_nothing(s3: StorageTarget) -> None:
    script = f"""
        import sys
        from statevault.storage import open_storage

        def body():
            yield bytes(20 << 20)
            sys.exit(0)

        open_storage({s3.url!r}, {dict(s3.storage_options)!r}).put("key", body())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert s3.raw.keys() == []


@pytest.mark.parametrize("total", [None, 0, 1, 160 << 30, 5 << 40])
def test_an_object_of_any_size_fits_in_ten_thousand_parts(total: int | None) -> None:
    size = part_size(total)
    assert size >= 5 << 20
    assert -(-(total or 0) // size) <= 10_000


def test_a_listing_without_end_is_an_error() -> None:
    page = b"<ListBucketResult><IsTruncated>true</IsTruncated>"
    page += b"<NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
    with (
        scripted_server(lambda _: ScriptedAnswer(200, page, {"Content-Type": "application/xml"})) as endpoint,
        pytest.raises(StorageError, match="there is more"),
    ):
        opened(endpoint).list()


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["rclone", "juicefs"])
@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_credentials_are_named_with_their_remedy(servers: Servers, name: str, wrong: str) -> None:
    target = servers.target(name)
    storage = open_storage(target.url, {**target.storage_options, wrong: "wrongwrongwrong"})
    for call in _calls(storage):
        with pytest.raises(StorageAccessError, match="AWS_ACCESS_KEY_ID") as caught:
            call()
        assert not caught.value.transient
        assert "wrongwrongwrong" not in str(caught.value)


def test_no_credentials_are_named_with_their_remedy(moto: StorageTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    storage = open_storage(moto.url, {"endpoint_url": moto.storage_options["endpoint_url"]})
    with pytest.raises(StorageAccessError, match="AWS_ACCESS_KEY_ID"):
        storage.get("key")


def test_endpoint_and_keys_come_from_the_usual_variables(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    target = servers.target("rclone")
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(target.storage_options["endpoint_url"]))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", str(target.storage_options["key"]))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", str(target.storage_options["secret"]))
    storage = open_storage(target.url)
    storage.put("key", b"x")
    assert target.raw.get("key") == b"x"
    assert storage.path("key").read_bytes() == b"x"


def test_credentials_that_expire_in_a_running_process_are_read_again(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = servers.target("rclone")
    monkeypatch.setattr(client, "_RENEW_INTERVAL_S", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(target.storage_options["endpoint_url"]))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "expired")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", str(target.storage_options["secret"]))
    storage = open_storage(target.url)
    with pytest.raises(StorageAccessError):
        storage.put("key", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", str(target.storage_options["key"]))
    storage.put("key", b"2")
    assert target.raw.get("key") == b"2"


def test_wrong_credentials_do_not_make_every_call_connect_twice() -> None:
    requests = []

    def server(request: ScriptedRequest) -> ScriptedAnswer:
        requests.append(request.path)
        return xml_error("InvalidAccessKeyId", 403)

    with scripted_server(server) as endpoint:
        storage = opened(endpoint, retry=_AT_ONCE)
        for _ in range(3):
            with pytest.raises(StorageAccessError):
                storage.get("key")
    assert len(requests) == 3


@pytest.mark.parametrize("name", ["rclone", "moto", "juicefs"])
def test_a_missing_bucket_is_not_taken_for_a_missing_object(servers: Servers, name: str) -> None:
    target = servers.target(name)
    for call in range(4):
        storage = open_storage("s3://no-such-bucket/root", target.storage_options)
        with pytest.raises(StoreNotFoundError, match="no-such-bucket") as caught:
            _calls(storage)[call]()
        assert not isinstance(caught.value, ObjectNotFoundError)


def test_a_missing_object_in_an_existing_bucket_is_no_missing_bucket(s3: StorageTarget) -> None:
    for read in ("get", "head"):
        with pytest.raises(ObjectNotFoundError):
            getattr(open_storage(s3.url, s3.storage_options), read)("missing")


def test_a_server_that_is_not_there_is_unreachable_and_given_up() -> None:
    waits: list[float] = []
    inner = opened(f"http://127.0.0.1:{free_port()}")
    storage = RetryingStorage(inner, RetryPolicy(max_attempts=4), sleep=waits.append, jitter=lambda: 0.5)
    with pytest.raises(StorageUnreachableError, match="AWS_ENDPOINT_URL") as caught:
        storage.get("key")
    assert caught.value.transient
    assert waits == [0.1, 0.2, 0.4]


def test_a_host_that_has_no_address_is_unreachable() -> None:
    with pytest.raises(StorageUnreachableError):
        opened("http://no-such-host.invalid").get("key")


def test_a_server_that_does_not_answer_is_a_timeout() -> None:
    never = threading.Event()
    try:
        with scripted_server(lambda _: ScriptedAnswer(after=never)) as endpoint:
            storage = opened(endpoint, read_timeout=0.3)
            for call in _calls(storage):
                with pytest.raises(StorageTimeoutError) as caught:
                    call()
                assert caught.value.transient
    finally:
        never.set()


@pytest.mark.parametrize(
    ("code", "status", "kind", "transient"),
    [
        ("SlowDown", 503, StorageError, True),
        ("InternalError", 500, StorageError, True),
        ("ServiceUnavailable", 503, StorageError, True),
        ("RequestTimeout", 400, StorageError, True),
        ("Throttling", 400, StorageError, True),
        ("WhateverElse", 502, StorageError, True),
        ("TooManyRequests", 429, StorageError, True),
        ("ExpiredToken", 400, StorageAccessError, False),
        ("AccessDenied", 403, StorageAccessError, False),
        ("RequestTimeTooSkewed", 403, StorageAccessError, False),
        ("NoSuchBucket", 404, StoreNotFoundError, False),
        ("NoSuchKey", 404, ObjectNotFoundError, False),
        ("XMinioStorageFull", 507, StorageFullError, False),
        ("InvalidArgument", 400, StorageError, False),
        ("NotImplemented", 501, StorageError, False),
        ("PermanentRedirect", 301, StorageError, False),
    ],
)
def test_what_a_server_says_decides_the_error(
    code: str, status: int, kind: type[StorageError], *, transient: bool
) -> None:
    with scripted_server(lambda _: xml_error(code, status)) as endpoint, pytest.raises(StorageError) as caught:
        opened(endpoint).get("key")
    assert type(caught.value) is kind
    assert caught.value.transient == transient
    assert caught.value.key == "key"


def test_a_busy_server_is_asked_again() -> None:
    answers = [xml_error("SlowDown", 503), xml_error("InternalError", 500), ScriptedAnswer(200, b"hello")]
    with scripted_server(lambda _: answers.pop(0)) as endpoint:
        assert opened(endpoint, retry=_AT_ONCE).get("key") == b"hello"


def test_the_request_is_the_servers_to_say_even_through_a_chain_of_causes() -> None:
    response = {"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
    error = translate_boto_error(ClientError(response, "GetObject"))
    assert answer(error) == ("NoSuchKey", 404)
    assert answer(ValueError("no answer at all")) == ("", 0)


def test_an_error_of_unknown_kind_is_a_permanent_storage_error() -> None:
    error = translated(ValueError("odd"), url="s3://b", key="k", what="Can't do it", secrets=Secrets({}))
    assert (type(error), error.transient, error.key) == (StorageError, False, "k")


def test_a_url_without_bucket_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="names no bucket"):
        S3Storage("s3:///prefix")


def test_options_of_the_user_win() -> None:
    seen = []

    def server(request: ScriptedRequest) -> ScriptedAnswer:
        seen.append(request.headers["Host"])
        return ScriptedAnswer(200, b"x")

    with scripted_server(server) as endpoint:
        local = endpoint.replace("127.0.0.1", "localhost")
        opened(local).get("key")
        port = local.rpartition(":")[2]
        assert seen == [f"localhost:{port}"]  # The bucket stands in the path ...
        storage = opened(local, s3={"addressing_style": "virtual"}, connect_timeout=1)
        with pytest.raises(StorageUnreachableError, match="bucket.localhost"):  # ... unless it is told otherwise.
            storage.get("key")


def test_a_new_process_reads_what_the_last_one_wrote_at_once(s3: StorageTarget) -> None:
    """Nothing is cached: neither listings nor the absence of an object."""
    first, second = (open_storage(s3.url, s3.storage_options) for _ in range(2))
    assert list(second.list()) == []
    assert not second.exists("key")
    first.put("key", b"1")
    assert [info.key for info in second.list()] == ["key"]
    assert second.exists("key")
    assert [path.name for path in second.path().iterdir()] == ["key"]
    first.put("other", b"2")
    assert sorted(path.name for path in second.path().iterdir()) == ["key", "other"]


def _calls(storage: Storage) -> list[Callable[[], object]]:
    return [
        lambda: storage.get("key"),
        lambda: storage.put("key", b"x"),
        lambda: storage.head("key"),
        lambda: list(storage.list()),
        lambda: storage.delete(["key"]),
        lambda: storage.delete(["key", "other"]),
        lambda: storage.put("key", b"x", create_only=True),
    ]
