"""Unfinished multipart uploads are found and ended, and nobody else's are."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from statevault.errors import StorageError
from statevault.storage import Storage, open_storage
from statevault.storage.s3.debris import abort_old_uploads
from tests.servers import (
    ScriptedAnswer,
    ScriptedRequest,
    Servers,
    StorageTarget,
    scripted_server,
    target_names,
)
from tests.servers.raw import S3Raw

pytestmark = pytest.mark.skipif("moto" not in target_names(), reason="STATEVAULT_TEST_SKIP_SERVERS=1")

NOW = datetime(2026, 1, 10, tzinfo=UTC)
_PAGE = """<?xml version="1.0"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<IsTruncated>{truncated}</IsTruncated>{marker}{uploads}</ListMultipartUploadsResult>"""
_UPLOAD = "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{at:%Y-%m-%dT%H:%M:%S.000Z}</Initiated></Upload>"
_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'


def opened(endpoint: str, url: str = "s3://bucket/root") -> Storage:
    return open_storage(url, {"endpoint_url": endpoint, "key": "k", "secret": "s"}, retry=None)


def begin(target: StorageTarget, key: str) -> str:
    raw = target.raw
    assert isinstance(raw, S3Raw)
    upload: str = raw.client.create_multipart_upload(Bucket=raw.bucket, Key=raw.prefix + key)["UploadId"]
    return upload


class Script:
    """Answers as a server with some uploads would, one to a page."""

    def __init__(self, *uploads: tuple[str, timedelta], aborts: ScriptedAnswer | None = None) -> None:
        self.uploads = uploads
        self.aborts = aborts or ScriptedAnswer(204)
        self.aborted: list[str] = []

    def __call__(self, request: ScriptedRequest) -> ScriptedAnswer:
        split = urlsplit(request.path)
        if request.method == "DELETE":
            self.aborted.append(split.path.removeprefix("/bucket/"))
            return self.aborts
        query = parse_qs(split.query, keep_blank_values=True)
        assert "uploads" in query
        assert query["prefix"] == ["root/"]
        number = int(query["upload-id-marker"][0]) if "upload-id-marker" in query else 0
        key, age = self.uploads[number]
        upload = _UPLOAD.format(key=key, id=number, at=NOW - age)
        more = number + 1 < len(self.uploads)
        marker = f"<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{number + 1}</NextUploadIdMarker>" * more
        body = _PAGE.format(truncated=str(more).lower(), marker=marker, uploads=upload)
        return ScriptedAnswer(200, body.encode(), {"Date": format_datetime(NOW, usegmt=True)})


@pytest.mark.parametrize("name", ["moto", "juicefs"])
def test_unfinished_uploads_of_the_store_are_ended(servers: Servers, name: str) -> None:
    target, other = servers.target(name), servers.target(name)
    begin(target, "a.state/models/big")
    begin(other, "b.state/models/big")
    storage = open_storage(target.url, target.storage_options)
    # To moto, every upload began in 2010.
    assert storage.abort_unfinished_uploads(timedelta(days=36_500)) == 0
    assert isinstance(target.raw, S3Raw)
    assert isinstance(other.raw, S3Raw)
    before = target.raw.unfinished_uploads()
    assert storage.abort_unfinished_uploads(timedelta(0)) == len(before)
    assert target.raw.unfinished_uploads() == []
    if name == "moto":  # MinIO, and so JuiceFS, lists the uploads of one key only.
        assert before == ["a.state/models/big"]
        assert other.raw.unfinished_uploads() == ["b.state/models/big"]


def test_a_server_that_says_that_there_is_no_such_upload_has_none(servers: Servers) -> None:
    """As rclone does, as long as nobody has begun one."""
    target = servers.target("rclone")
    assert open_storage(target.url, target.storage_options).abort_unfinished_uploads(timedelta(0)) == 0


@pytest.mark.parametrize("name", [name for name in target_names() if name in ("local", "memory", "fake-gcs")])
def test_other_backends_have_none(servers: Servers, name: str) -> None:
    target = servers.target(name)
    assert open_storage(target.url, target.storage_options).abort_unfinished_uploads(timedelta(0)) == 0


def test_all_pages_are_looked_at_and_only_old_uploads_ended_by_the_servers_clock() -> None:
    day = timedelta(days=1)
    script = Script(("root/a", 2 * day), ("root/b", day / 2), ("elsewhere/c", 2 * day), ("root/d", day))
    with scripted_server(script) as endpoint:
        assert opened(endpoint).abort_unfinished_uploads(day) == 2
    assert script.aborted == ["root/a", "root/d"]


def test_an_upload_that_has_gone_meanwhile_is_not_counted() -> None:
    gone = ScriptedAnswer(404, _ERROR.format(code="NoSuchUpload").encode())
    with scripted_server(Script(("root/a", timedelta(2)), aborts=gone)) as endpoint:
        assert opened(endpoint).abort_unfinished_uploads(timedelta(1)) == 0


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidArgument"), (404, "NoSuchKey"), (418, "Teapot")],
)
def test_a_refusal_is_reported_and_no_error(status: int, code: str, caplog: pytest.LogCaptureFixture) -> None:
    refusal = ScriptedAnswer(status, _ERROR.format(code=code).encode())
    with scripted_server(lambda request: refusal) as endpoint, caplog.at_level(logging.WARNING):
        assert opened(endpoint).abort_unfinished_uploads(timedelta(1)) == 0
    assert "s3:AbortMultipartUpload" in caplog.text


def test_a_server_that_says_the_same_page_again_is_not_asked_for_ever() -> None:
    asked = 0

    def ask(*_: object) -> dict[str, object]:
        nonlocal asked
        asked += 1
        return {"Uploads": [], "IsTruncated": True, "NextKeyMarker": "a/b"}

    assert abort_old_uploads(ask, url="s3://b/a", bucket="b", prefix="a/", older_than=timedelta(days=900_000)) == 0
    assert asked == 2


def test_another_failure_is_an_error() -> None:
    failure = ScriptedAnswer(500, _ERROR.format(code="InternalError").encode())
    with scripted_server(lambda request: failure) as endpoint, pytest.raises(StorageError, match="InternalError"):
        opened(endpoint).abort_unfinished_uploads(timedelta(1))


def test_a_store_that_is_a_whole_bucket_leaves_uploads_alone(servers: Servers) -> None:
    target = servers.target("moto")
    key = f"somebody-elses/{uuid.uuid4().hex}"
    begin(target, key)
    root = target.url.rpartition("/")[0]
    assert open_storage(root, target.storage_options).abort_unfinished_uploads(timedelta(0)) == 0
    assert isinstance(target.raw, S3Raw)
    assert target.raw.unfinished_uploads() == [key]
