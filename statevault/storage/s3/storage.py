"""Objects in S3 and in what speaks its protocol, through botocore's client with the options of s3fs.

s3fs' own file operations are not used: they take ``?versionId=`` out of keys, and hide which error it was and
which keys a bulk delete left; and its event loop sends less than the wire would take.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

from blake3 import blake3
from typing_extensions import override
from upath import UPath

from statevault.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StoreNotFoundError,
)
from statevault.storage.body import known_size, parts
from statevault.storage.buckets import bucket_and_prefix
from statevault.storage.client import Client
from statevault.storage.interface import Body, ObjectInfo, Storage
from statevault.storage.keys import check_key, check_prefix
from statevault.storage.options import options_refused
from statevault.storage.ranges import check_length, check_range, object_size, range_header
from statevault.storage.redaction import Secrets, redacted
from statevault.storage.s3.client import S3Client
from statevault.storage.s3.debris import abort_old_uploads
from statevault.storage.s3.dialect import Dialect
from statevault.storage.s3.errors import (
    answer,
    is_conflict,
    is_missing,
    is_missing_upload,
    is_out_of_range,
    is_unknown_request,
    translated,
)
from statevault.storage.s3.options import client_settings, known_options
from statevault.storage.s3.stream import Part, SentBody, received, received_into
from statevault.storage.s3.upload import PART_BYTES, MultipartUpload, part_size
from statevault.worker_pool import parallel_map

__all__ = ["S3Storage"]

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_LOOK = (
    "look at the storage options (-o, storage_options=), at AWS_PROFILE, AWS_CONFIG_FILE and the other variables of "
    "AWS, and at its configuration files"
)
_BULK_KEYS = 1000
_PARALLEL_DELETES = 16


class S3Storage(Storage):
    """Objects below ``s3://bucket/prefix``.

    Retries of botocore are switched off, as :class:`~statevault.storage.RetryingStorage` does that.
    Checksums are sent only where S3 demands them: many servers do not know them, and every chunk of a state has
    a digest of its own. With an endpoint that is not Amazon's, the bucket stands in the path, not in the host name.

    Args:
        url: The root; its bucket may be the ARN of an access point, or ``tenant:bucket``.
        storage_options: What ``s3fs.S3FileSystem`` takes; it wins over all that is said above.

    Raises:
        InvalidNameError: `url` names no bucket, or holds credentials.
        StorageOptionError: An option can't be used.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = redacted(url)
        self._full_url = url
        self._bucket, self._prefix = bucket_and_prefix(url)
        self._settings = client_settings(storage_options or {}, url=self.url)
        self._secrets = Secrets(self._settings)
        self._client = Client(self._connect, self._secrets)
        self._dialect = Dialect(self.url)
        self._bucket_seen = False
        # A client asks nobody anything when it is made. So what is wrong with its options is known here.
        self._client.run(lambda _: None, translate=lambda error: self._translated(error, "", f"Can't use {self.url}"))

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        name = self._name(key)
        what = f"Can't write {key} to {self.url}"
        sent = _Sent(with_digest=create_only)
        size = part_size(known_size(body))
        cut = parts(body, size)
        first = next(cut, [])
        second = next(cut, None)
        condition = {"IfNoneMatch": "*"} if create_only else {}
        try:
            if second is None:
                sent.add(first)
                self._put_small(name, key, what, first, condition)
            else:
                self._put_big(name, key, what, sent.counted(chain((first, second), cut)), condition)
        except ObjectNotFoundError as error:
            # JuiceFS answers so where the folder of the key goes at this moment, with the last object in it.
            msg = f"{what}: the server says that there is no such object."
            raise StorageError(msg, transient=True, url=self.url, key=key) from error
        except StorageError as error:
            if is_missing_upload(error):
                # Aborted by a rule of the bucket or a server that began anew; or completed, and the answer was lost.
                msg = f"{what}: the server does not know the upload of its parts any more."
                raise StorageError(msg, transient=True, url=self.url, key=key) from error
            # The conflict may be with this call's own first try, whose answer was lost on the way.
            if not create_only or not is_conflict(error):
                raise
            if not self._holds(key, sent):
                msg = f"{key} in {self.url} exists already, with other bytes."
                raise ObjectExistsError(msg, url=self.url, key=key) from error
        return sent.size

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        data = b""

        def receive(body: Any) -> int:
            nonlocal data
            data = received(body)
            return len(data)

        self._get(key, start, end, receive)
        return data

    @override
    def get_into(self, key: str, start: int, target: memoryview) -> None:
        self._get(key, start, start + target.nbytes, lambda body: received_into(body, target))

    def _get(self, key: str, start: int, end: int | None, receive: Callable[[Any], int]) -> None:
        """Ask for a range of an object, which `receive` reads; it tells how many bytes came."""
        request: dict[str, Any] = {"Bucket": self._bucket, "Key": self._name(key)}
        if end is not None and start >= end:
            # There is no way to ask for no bytes.
            check_range(self.head(key).size, start, end, url=self.url, key=key)
            return
        if asked := range_header(start, end):
            request["Range"] = asked

        def read(client: S3Client) -> tuple[int, Mapping[str, Any]]:
            answer = client.call("get_object", **request)
            return receive(answer["Body"]), answer

        try:
            came, answer = self._call(read, f"Can't read {key} from {self.url}", key)
        except StorageError as error:
            # So are those at the end of an object.
            if not is_out_of_range(error) or check_range(self.head(key).size, start, end, url=self.url, key=key):
                raise
            return
        if "ContentLength" not in answer and "transfer-encoding" not in answer["ResponseMetadata"]["HTTPHeaders"]:
            raise self._cut_off(f"Can't read {key} from {self.url}", key)
        size = object_size(answer.get("ContentRange"), int(answer.get("ContentLength", came)))
        check_length(came, size, start, end, url=self.url, key=key)

    @override
    def head(self, key: str) -> ObjectInfo:
        request = {"Bucket": self._bucket, "Key": self._name(key)}

        answer = self._call(
            lambda client: client.call("head_object", **request), f"Can't look at {key} in {self.url}", key
        )
        if "ContentLength" not in answer:
            raise self._cut_off(f"Can't look at {key} in {self.url}", key)
        return ObjectInfo(key, int(answer["ContentLength"]), answer.get("LastModified"))

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        request: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + check_prefix(prefix)}
        what = f"Can't list {prefix or 'the store'} in {self.url}"
        found: list[ObjectInfo] = []
        while True:
            page = self._call(lambda client: client.call("list_objects_v2", **request), what, prefix)
            if "IsTruncated" not in page:
                raise self._cut_off(what, prefix)
            for entry in page.get("Contents", ()):
                name: str = entry["Key"]
                # Some servers list folders, as names with a slash at the end.
                if not name.endswith("/"):
                    found.append(ObjectInfo(name[len(self._prefix) :], int(entry["Size"]), entry.get("LastModified")))
            if not page["IsTruncated"]:
                break
            token = page.get("NextContinuationToken")
            if not token or token == request.get("ContinuationToken"):
                msg = f"{what}: the server says that there is more, and not where."
                raise StorageError(msg, url=self.url, key=prefix)
            request["ContinuationToken"] = token
        found.sort(key=lambda info: info.key)
        return iter(found)

    @override
    def delete(self, keys: Sequence[str]) -> None:
        names = {self._name(key): key for key in keys}
        remaining: Sequence[str] = tuple(names)
        if self._dialect.takes_bulk_deletes and len(remaining) > 1:
            remaining = self._delete_in_bulk(names)
        if remaining:
            self._delete_singly(remaining, names)

    @override
    def abort_unfinished_uploads(self, older_than: timedelta) -> int:
        if not self._prefix:
            # In a bucket's root, an upload may be anybody's.
            return 0
        return abort_old_uploads(
            self._call, url=self.url, bucket=self._bucket, prefix=self._prefix, older_than=older_than
        )

    @override
    def path(self, key: str = "") -> UPath:
        url = f"{self._full_url}/{check_key(key)}" if key else self._full_url
        path: UPath = UPath(url, **self._settings)
        return path

    @override
    def close(self) -> None:
        self._client.close()

    def _connect(self) -> S3Client:
        with options_refused(self.url, self._secrets, known=known_options(), refusals=(Exception,), look=_LOOK):
            return S3Client(self._settings, url=self.url, secrets=self._secrets)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _call(self, request: Callable[[S3Client], _Result], what: str, key: str) -> _Result:
        result = self._client.run(request, translate=lambda error: self._translated(error, key, what))
        self._bucket_seen = True
        return result

    def _cut_off(self, what: str, key: str) -> StorageError:
        """The error for an answer that ended among its headers.

        The standard library takes such headers for complete, and what has no length for complete where it ends: a list
        would be empty.
        """
        return StorageError(f"{what}: the connection broke in the answer.", transient=True, url=self.url, key=key)

    def _translated(self, error: BaseException, key: str, what: str) -> StorageError:
        failure = translated(error, url=self.url, key=key, what=what, secrets=self._secrets)
        # The answer to a HEAD has no body that could say whether the object or the bucket is missing.
        if isinstance(failure, ObjectNotFoundError) and not self._bucket_seen and answer(error)[0] != "NoSuchKey":
            return self._without_bucket(failure, what)
        return failure

    def _without_bucket(self, failure: StorageError, what: str) -> StorageError:
        """The error for a missing object, after a look whether its bucket exists."""
        try:
            self._client.get().call("head_bucket", Bucket=self._bucket)
        except Exception as error:  # noqa: BLE001 - only one thing is looked for here
            if answer(error)[1] == 404:
                msg = f"{what}: there is no bucket {self._bucket}. Make it, or check its name."
                return StoreNotFoundError(msg, url=self.url, key=failure.key)
            return failure
        self._bucket_seen = True
        return failure

    def _put_small(self, name: str, key: str, what: str, data: Part, condition: dict[str, str]) -> None:
        def put(**extra: str) -> None:
            request = {"Bucket": self._bucket, "Key": name, **extra}
            self._call(lambda client: client.call("put_object", **request, Body=SentBody(data)), what, key)

        self._dialect.send(put, data=data, condition=condition)

    def _put_big(self, name: str, key: str, what: str, parts: Iterator[Part], condition: dict[str, str]) -> None:
        def ask(request: Callable[[S3Client], Any]) -> Any:
            return self._call(request, what, key)

        MultipartUpload(ask, self._dialect, self._bucket, name).send(parts, condition=condition)

    def _holds(self, key: str, sent: _Sent) -> bool:
        """Whether the object under the key has the bytes that were sent."""
        try:
            if self.head(key).size != sent.size:
                return False
            digest = blake3()
            for start in range(0, sent.size, PART_BYTES):
                digest.update(self.get(key, start, min(start + PART_BYTES, sent.size)))
        except ObjectNotFoundError as error:
            msg = f"Can't write {key} to {self.url}: another writer was in the way, and then there was no object."
            raise StorageError(msg, transient=True, url=self.url, key=key) from error
        return digest.digest() == sent.digest()

    def _delete_in_bulk(self, names: Mapping[str, str]) -> Sequence[str]:
        """Delete in bulk; returns what the server did not confirm as deleted."""
        todo = tuple(names)
        left: set[str] = set(todo)
        for start in range(0, len(todo), _BULK_KEYS):
            chunk = todo[start : start + _BULK_KEYS]
            request = {"Bucket": self._bucket, "Delete": {"Objects": [{"Key": name} for name in chunk]}}
            what = f"Can't delete {len(chunk)} objects in {self.url}"
            try:
                answer = self._call(lambda client: client.call("delete_objects", **request), what, "")  # noqa: B023
            except StorageError as error:
                if not is_unknown_request(error):
                    raise
                logger.debug("%s takes no bulk deletes: deleting one by one.", self.url)
                self._dialect.takes_bulk_deletes = False
                break
            left -= {entry["Key"] for entry in answer.get("Deleted", ())}
        return sorted(left)

    def _delete_singly(self, remaining: Sequence[str], names: Mapping[str, str]) -> None:
        def delete(name: str) -> None:
            what = f"Can't delete {names[name]} in {self.url}"
            try:
                self._call(
                    lambda client: client.call("delete_object", Bucket=self._bucket, Key=name), what, names[name]
                )
            except StorageError as error:
                if not is_missing(error):
                    raise

        parallel_map(delete, remaining, workers=_PARALLEL_DELETES, name="statevault-delete")


class _Sent:
    """Counts what was sent, and digests it where it may have to be compared."""

    def __init__(self, *, with_digest: bool) -> None:
        self.size = 0
        self._digest = blake3() if with_digest else None

    def add(self, part: Part) -> None:
        for piece in part:
            self.size += piece.nbytes
            if self._digest is not None:
                self._digest.update(piece)

    def counted(self, parts: Iterator[Part]) -> Iterator[Part]:
        for part in parts:
            self.add(part)
            yield part

    def digest(self) -> bytes:
        return self._digest.digest() if self._digest is not None else b""
