"""Servers that speak S3's protocol with a dialect: what they refuse is found out, and done in another way."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from statevault.errors import StorageAccessError, StorageError, StoreNotFoundError
from statevault.state_persistence import StateStore
from statevault.storage import Storage, open_storage, probe
from tests.cli.run import invoked, option_arguments
from tests.servers import (
    ScriptedAnswer,
    ScriptedRequest,
    Servers,
    StorageTarget,
    forwarded,
    scripted_server,
    target_names,
)
from tests.servers.raw import S3Raw
from tests.state_persistence.components import Folder, some_files

pytestmark = pytest.mark.skipif("moto" not in target_names(), reason="STATEVAULT_TEST_SKIP_SERVERS=1")

BIG = 20 << 20
NOT_IMPLEMENTED = "A header you provided implies functionality that is not implemented"
LOCKED = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"


def refusal(code: str, status: int, message: str = "as told") -> ScriptedAnswer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return ScriptedAnswer(status, body.encode(), {"Content-Type": "application/xml"})


def header(request: ScriptedRequest, name: str) -> str | None:
    return {key.lower(): value for key, value in request.headers.items()}.get(name)


def is_bulk_delete(request: ScriptedRequest) -> bool:
    return request.method == "POST" and request.path.endswith("?delete")


def is_upload(request: ScriptedRequest) -> bool:
    return request.method == "PUT" and request.path.count("/") > 1


def refuses_conditions(request: ScriptedRequest) -> bool:
    return header(request, "if-none-match") is not None


def demands_digest(request: ScriptedRequest) -> bool:
    digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
    return is_upload(request) and header(request, "content-md5") != digest


Manners = tuple[Callable[[ScriptedRequest], bool], ScriptedAnswer]

B2: Manners = (refuses_conditions, refusal("NotImplemented", 501, NOT_IMPLEMENTED))
CONDITIONS: dict[str, Manners] = {
    "b2": B2,
    "not-implemented-400": (refuses_conditions, refusal("NotImplemented", 400)),
    "invalid-argument": (refuses_conditions, refusal("InvalidArgument", 400, "Invalid argument.")),
    "bare-501": (refuses_conditions, ScriptedAnswer(501)),
    "bare-400": (refuses_conditions, ScriptedAnswer(400)),
}
BULK_DELETES: dict[str, Manners] = {
    "gcs": (is_bulk_delete, refusal("InvalidArgument", 400, "Invalid argument.")),
    "oss": (is_bulk_delete, refusal("MissingArgument", 400, "Missing Some Required Arguments.")),
    "unheard-of": (is_bulk_delete, refusal("UnsupportedOperationHere", 418)),
    "too-large": (is_bulk_delete, refusal("EntityTooLarge", 413)),
    "bare-404": (is_bulk_delete, ScriptedAnswer(404)),
    "bare-405": (is_bulk_delete, ScriptedAnswer(405)),
    "bare-501": (is_bulk_delete, ScriptedAnswer(501)),
}
LOCKS: dict[str, Manners] = {
    "aws": (demands_digest, refusal("InvalidRequest", 400, LOCKED)),
    "minio": (demands_digest, refusal("MissingContentMD5", 400, "Missing required header for this request.")),
    "old": (
        demands_digest,
        refusal("InvalidRequest", 400, "Content-MD5 HTTP header is required for Put Part requests"),
    ),
}


@dataclass
class Place:
    """A place on a real server that refuses some requests."""

    target: StorageTarget
    requests: list[ScriptedRequest] = field(default_factory=list)

    @property
    def storage(self) -> Storage:
        return open_storage(self.target.url, self.target.storage_options, retry=None)

    def count(self, kind: Callable[[ScriptedRequest], bool]) -> int:
        return sum(map(kind, self.requests))


@pytest.fixture
def place(servers: Servers) -> Iterator[Callable[..., Place]]:
    with ExitStack() as stack:

        def made(*manners: Manners, name: str = "moto") -> Place:
            target = servers.target(name)
            upstream = str(target.storage_options["endpoint_url"])
            requests: list[ScriptedRequest] = []

            def answer(request: ScriptedRequest) -> ScriptedAnswer:
                requests.append(request)
                refusals = (answer for is_refused, answer in manners if is_refused(request))
                return next(refusals, None) or forwarded(upstream, request)

            endpoint = stack.enter_context(scripted_server(answer))
            options = {**target.storage_options, "endpoint_url": endpoint}
            return Place(replace(target, storage_options=options), requests)

        yield made


def live(url: str, storage_options: Mapping[str, Any]) -> None:
    """Save, save what changed, remove, collect and load; remove all."""
    folder = Folder({**some_files(1), "large.bin": bytes(range(256)) * (BIG // 256)})
    with StateStore(url, storage_options=storage_options) as store:
        store.register("models", folder)
        store.save_state(name="a.state")
        saved = {**folder.files, "weights.bin": b"other"}
        folder.files = dict(saved)
        store.save_state(name="b.state")
        store.remove(["a.state"])
        store.gc()
        folder.files = {}
        store.load_state("latest")
        assert folder.files == saved
        store.verify("b.state")
        store.remove(["b.state"])
        store.gc()


def options_of(place: Place, **options: Any) -> dict[str, Any]:
    return {**place.target.storage_options, **options}


# ------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(("manners", "size"), [*((manners, 5) for manners in CONDITIONS), ("b2", BIG)])
def test_a_server_without_conditional_writes_is_asked_without(
    place: Callable[..., Place], manners: str, size: int
) -> None:
    at = place(CONDITIONS[manners])
    storage = at.storage
    for content in (b"a" * size, b"b" * size):
        # An iterator can't be read a second time.
        assert storage.put("key", iter([content]), create_only=True) == size
        assert at.target.raw.get("key") == content
    assert at.count(refuses_conditions) == 1, "what was refused once is not asked again"
    assert isinstance(at.target.raw, S3Raw)
    assert at.target.raw.unfinished_uploads() == []


def test_a_put_that_is_refused_for_something_else_gives_up_no_condition(place: Callable[..., Place]) -> None:
    at = place((lambda request: request.path.endswith("/long"), refusal("KeyTooLongError", 400)))
    storage = at.storage
    with pytest.raises(StorageError, match="KeyTooLongError"):
        storage.put("long", b"x", create_only=True)
    storage.put("key", b"x", create_only=True)
    assert header(at.requests[-1], "if-none-match") == "*"


def test_a_busy_server_gives_up_no_condition(place: Callable[..., Place]) -> None:
    at = place((refuses_conditions, refusal("SlowDown", 503)))
    with pytest.raises(StorageError, match="SlowDown"):
        at.storage.put("key", b"x", create_only=True)
    assert at.target.raw.keys() == []


def test_the_probe_finds_no_conditional_writes_and_the_doctor_is_content(place: Callable[..., Place]) -> None:
    at = place(B2)
    assert not probe(at.storage).create_only
    run = invoked("doctor", at.target.url, "--size", "1MB", "--json", *option_arguments(at.target.storage_options))
    assert run.code == 0, run.out
    (finding,) = (finding for finding in run.json["findings"] if finding["check"] == "create-only")
    assert finding["verdict"] == "note"
    assert finding["found"].startswith("not supported")


# ------------------------------------------------------------------------------------------- bulk deletes


@pytest.mark.parametrize("manners", BULK_DELETES)
def test_where_objects_can_not_be_deleted_in_bulk_they_are_deleted_singly(
    place: Callable[..., Place], manners: str
) -> None:
    at = place(BULK_DELETES[manners])
    storage = at.storage
    for _ in range(2):
        storage.put("a", b"x")
        storage.put("b", b"x")
        storage.delete(["a", "b", "missing"])
        assert at.target.raw.keys() == []
    assert at.count(is_bulk_delete) == 1, "what was refused once is not asked again"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal("AccessDenied", 403), StorageAccessError),
        (refusal("ExpiredToken", 400), StorageAccessError),
        (refusal("NoSuchBucket", 404), StoreNotFoundError),
        (refusal("PermanentRedirect", 301), StorageError),
        (refusal("AuthorizationHeaderMalformed", 400), StorageError),
        (refusal("SlowDown", 503), StorageError),
        (refusal("InternalError", 500), StorageError),
    ],
    ids=lambda value: "" if isinstance(value, type) else str(value.body),
)
def test_what_says_nothing_about_bulk_deletes_is_raised(
    place: Callable[..., Place], answer: ScriptedAnswer, error: type[StorageError]
) -> None:
    at = place((is_bulk_delete, answer))
    with pytest.raises(error):
        at.storage.delete(["a", "b"])
    assert at.count(lambda request: request.method == "DELETE") == 0


# ------------------------------------------------------------------------------------------- object lock


@pytest.mark.parametrize(("manners", "size"), [*((manners, 5) for manners in LOCKS), ("aws", BIG)])
def test_a_bucket_with_object_lock_gets_the_digests_that_it_demands(
    place: Callable[..., Place], manners: str, size: int
) -> None:
    at = place(LOCKS[manners])
    storage = at.storage
    for key in ("a", "b"):
        content = key.encode() * size
        assert storage.put(key, iter([content]), create_only=key == "a") == size
        assert at.target.raw.get(key) == content
    # Two parts may be under way when the first refusal comes.
    assert at.count(lambda request: is_upload(request) and demands_digest(request)) <= (1 if size == 5 else 2)


def test_no_other_server_gets_digests(place: Callable[..., Place]) -> None:
    at = place()
    at.storage.put("key", bytes(BIG))
    at.storage.put("key", b"x")
    assert not any(header(request, "content-md5") for request in at.requests)


def test_a_digest_that_is_refused_as_well_is_an_error(place: Callable[..., Place]) -> None:
    at = place((is_upload, refusal("InvalidRequest", 400, LOCKED)))
    with pytest.raises(StorageError, match="Object Lock"):
        at.storage.put("key", b"x", create_only=True)


# ------------------------------------------------------------------------------------------- checksums


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_an_upload_is_completed_with_the_checksums_of_its_parts(place: Callable[..., Place], algorithm: str) -> None:
    tag = f"<Checksum{algorithm}>".encode()

    def lacks_checksums(request: ScriptedRequest) -> bool:
        return request.method == "POST" and "uploadId=" in request.path and request.body.count(tag) != 2

    answer = refusal("InvalidRequest", 400, f"The upload was created using a {algorithm.lower()} checksum.")
    at = place((lacks_checksums, answer))
    options = options_of(at, s3_additional_kwargs={"ChecksumAlgorithm": algorithm})
    storage = open_storage(at.target.url, options, retry=None)
    storage.put("key", b"x" * BIG)
    assert at.target.raw.get("key") == b"x" * BIG
    storage.put("small", b"x")
    assert header(at.requests[-1], f"x-amz-checksum-{algorithm.lower()}")


# ------------------------------------------------------------------------------------------- a store


@pytest.mark.parametrize(
    "manners",
    [
        pytest.param([B2], id="backblaze"),
        pytest.param([CONDITIONS["invalid-argument"], BULK_DELETES["gcs"]], id="gcs"),
        pytest.param([LOCKS["aws"]], id="object-lock"),
        pytest.param([B2, BULK_DELETES["oss"], LOCKS["minio"]], id="all"),
    ],
)
def test_a_store_lives_on_each_of_them(place: Callable[..., Place], manners: list[Manners]) -> None:
    at = place(*manners)
    live(at.target.url, at.target.storage_options)
    left = at.target.raw.keys()
    assert not [key for key in left if not key.startswith("_vault/")]


# ------------------------------------------------------------------------------------------- other names of buckets


@pytest.mark.parametrize("name", ["tenant:bucket", "arn:aws:s3:eu-west-1:123456789012:accesspoint/name"])
def test_a_store_lives_in_the_bucket_of_a_tenant_and_at_an_access_point(servers: Servers, name: str) -> None:
    target = servers.target("moto")
    bucket, _, prefix = target.url.removeprefix("s3://").partition("/")
    upstream = str(target.storage_options["endpoint_url"])
    places = set()

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        asked = urlsplit(request.path)
        places.add((asked.hostname, asked.path.startswith("/tenant%3Abucket")))
        path = f"/{bucket}{asked.path.removeprefix('/tenant%3Abucket')}?{asked.query}"
        # moto looks for a bucket in the name of the host, and does not mind the signature.
        headers = {**request.headers, "Host": urlsplit(upstream).netloc}
        return forwarded(upstream, replace(request, path=path.removesuffix("?"), headers=headers))

    with scripted_server(answer) as proxy:
        # A proxy is asked whatever the name of the host.
        options = {"endpoint_url": "http://s3.test", "config_kwargs": {"proxies": {"http": proxy}}}
        live(f"s3://{name}/{prefix}", {**target.storage_options, **options})
    assert places == {("s3.test", True) if name == "tenant:bucket" else ("name-123456789012.s3.test", False)}
    assert target.raw.keys()
