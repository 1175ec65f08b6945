"""Objects in Google Cloud Storage, over its JSON API, with the session and credentials of gcsfs.

gcsfs' own file operations are not used: they lose the status of an answer, retry for half a minute by
themselves, and have extensions that do not work against emulators.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, cast
from urllib.parse import quote

from blake3 import blake3
from fsspec.asyn import sync
from typing_extensions import override
from upath import UPath

from statevault.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StoreNotFoundError,
)
from statevault.storage.body import blocks, is_one_shot
from statevault.storage.buckets import bucket_and_prefix
from statevault.storage.client import Client
from statevault.storage.event_loop import event_loop
from statevault.storage.gcs.client import Answer, Request, make_filesystem, token
from statevault.storage.gcs.errors import Refusal, translated
from statevault.storage.gcs.options import client_settings, is_told_here
from statevault.storage.gcs.upload import PIECE_BYTES, ResumableUpload, UploadLost
from statevault.storage.interface import Body, ObjectInfo, Storage
from statevault.storage.keys import check_key, check_prefix
from statevault.storage.options import options_refused
from statevault.storage.ranges import check_length, check_range, object_size, range_header
from statevault.storage.redaction import Secrets, redacted

__all__ = ["GcsStorage"]

logger = logging.getLogger(__name__)

_LOOK = "look at the storage options (-o, storage_options=), token above all, and at GOOGLE_APPLICATION_CREDENTIALS"
_READ_TIMEOUT_S = 30.0
_PARALLEL_DELETES = 16
_UPLOADS = 3  # of one object, where the server loses them


class GcsStorage(Storage):
    """Objects below ``gs://bucket/prefix``.

    Args:
        url: The root.
        storage_options: What ``gcsfs.GCSFileSystem`` takes; ``timeout`` is the longest silence in seconds.

    Raises:
        InvalidNameError: `url` names no bucket, or holds credentials.
        StorageOptionError: An option can't be used.
        ImportError: gcsfs is not installed.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = redacted(url)
        self._full_url = url
        self._bucket, self._prefix = bucket_and_prefix(url)
        self._options = client_settings(storage_options or {}, url=self.url)
        self._secrets = Secrets(self._options)
        self._silence_s = float(self._options.get("timeout") or _READ_TIMEOUT_S)
        # Its thread can be started now, and perhaps not any more when it is needed first.
        event_loop()
        self._client: Client[Any] = Client(self._make_filesystem, self._secrets)
        self._bucket_seen = False
        if is_told_here(self._options):
            what = f"Can't use {self.url}"
            self._client.run(lambda _: None, translate=lambda error: self._translated(error, what, ""))

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        what = f"Can't write {key} to {self.url}"
        for left in reversed(range(1 if is_one_shot(body) else _UPLOADS)):
            try:
                return self._put(key, body, what, create_only=create_only)
            except UploadLost as error:
                if not left:
                    msg = f"{what}: the server has lost the upload, and will not have it again. {error}"
                    raise StorageError(msg, transient=True, url=self.url, key=key) from error.__cause__
                logger.info("An upload of %s to %s was lost, and begins anew: %s", key, self.url, error)
        raise AssertionError

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if end is not None and start >= end:
            check_range(self.head(key).size, start, end, url=self.url, key=key)
            return b""
        asked = range_header(start, end)
        request = Request(
            "GET", f"download/{self._object(key)}", {"alt": "media"}, headers={"Range": asked} if asked else None
        )
        try:
            answer = self._ask(request, f"Can't read {key} from {self.url}", key)
        except StorageError as error:
            cause = error.__cause__
            if not (isinstance(cause, Refusal) and cause.status == 416):
                raise
            # There is no way to ask for no bytes, as those at the end of an object.
            if check_range(self.head(key).size, start, end, url=self.url, key=key):
                raise
            return b""
        length = int(answer.headers.get("Content-Length", len(answer.body)))
        size = object_size(answer.headers.get("Content-Range"), length)
        check_length(len(answer.body), size, start, end, url=self.url, key=key)
        return answer.body

    @override
    def head(self, key: str) -> ObjectInfo:
        request = Request("GET", self._object(key))
        return _info(key, self._ask(request, f"Can't look at {key} in {self.url}", key).json())

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        what = f"Can't list {prefix or 'the store'} in {self.url}"
        found: list[ObjectInfo] = []
        params = {"prefix": self._prefix + check_prefix(prefix), "maxResults": "1000"}
        while True:
            page = self._ask(self._listing(params), what, prefix).json()
            for entry in page.get("items", ()):
                name: str = entry["name"]
                if not name.endswith("/"):  # A folder's marker, made by Google's console.
                    found.append(_info(name[len(self._prefix) :], entry))
            token = page.get("nextPageToken")
            if not token:
                break
            if token == params.get("pageToken"):
                msg = f"{what}: the server gives the same page again and again."
                raise StorageError(msg, url=self.url, key=prefix)
            params["pageToken"] = token
        found.sort(key=lambda info: info.key)
        return iter(found)

    @override
    def delete(self, keys: Sequence[str]) -> None:
        paths = {key: self._object(key) for key in keys}
        if not paths:
            return
        slots = asyncio.Semaphore(_PARALLEL_DELETES)

        async def delete_one(filesystem: Any, key: str) -> None:
            async with slots:
                await Request("DELETE", paths[key]).send(filesystem, self._silence_s)

        current = next(iter(paths))

        def failure(error: BaseException) -> StorageError:
            return self._failure(error, f"Can't delete {current} in {self.url}", current)

        async def delete_all(filesystem: Any) -> None:
            nonlocal current
            # After an error the others have their turn as well.
            results = await asyncio.gather(*(delete_one(filesystem, key) for key in paths), return_exceptions=True)
            for key, error in zip(paths, results, strict=True):
                current = key
                if error is not None and not isinstance(failure(error), ObjectNotFoundError):
                    raise error

        self._client.run(lambda filesystem: sync(filesystem.loop, delete_all, filesystem), translate=failure)

    @override
    def path(self, key: str = "") -> UPath:
        url = f"{self._full_url}/{check_key(key)}" if key else self._full_url
        options = {"use_listings_cache": False, **self._options, "token": token(self._options)}
        path: UPath = UPath(url, **options)
        return path

    @override
    def close(self) -> None:
        self._client.close()

    def _make_filesystem(self) -> Any:
        # Where nobody is asked, whatever goes wrong is said by the options.
        refusals = (Exception,) if is_told_here(self._options) else (TypeError, ValueError)
        with options_refused(self.url, self._secrets, refusals=refusals, look=_LOOK):
            return make_filesystem(self._options)

    def _put(self, key: str, body: Body, what: str, *, create_only: bool) -> int:
        """Put an object, from the beginning of its body.

        Raises:
            UploadLost: The server has forgotten about it.
            StorageError: As for :meth:`put`.
        """
        params = {"name": self._name(key), **({"ifGenerationMatch": "0"} if create_only else {})}
        path = f"upload/storage/v1/b/{quote(self._bucket, safe='')}/o"
        digest = blake3()
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for part in blocks(body, PIECE_BYTES):
                size += len(part)
                if create_only:
                    digest.update(part)
                yield part

        def ask(request: Request) -> Answer:
            try:
                return self._ask(request, what, key)
            except ObjectNotFoundError as error:
                missing = self._without_bucket(error, what)
                if isinstance(missing, StoreNotFoundError):
                    raise missing from error.__cause__
                raise UploadLost(str(error.__cause__)) from error.__cause__

        parts = counted()
        first = next(parts, b"")
        second = next(parts, None)
        try:
            if second is None:
                ask(_whole_object(path, params, first))
            else:
                start = Request("POST", path, {"uploadType": "resumable", **params})
                ResumableUpload(ask, start).send(chain((first, second), parts))
        except StorageError as error:
            # The conflict may be with this call's own first try, whose answer was lost on the way.
            if not create_only or not _is_conflict(error):
                raise
            for _rest in parts:
                pass
            if not self._holds(key, size, digest.digest()):
                msg = f"{key} in {self.url} exists already, with other bytes."
                raise ObjectExistsError(msg, url=self.url, key=key) from error
        return size

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _object(self, key: str) -> str:
        return f"storage/v1/b/{quote(self._bucket, safe='')}/o/{quote(self._name(key), safe='')}"

    def _listing(self, params: Mapping[str, str]) -> Request:
        return Request("GET", f"storage/v1/b/{quote(self._bucket, safe='')}/o", dict(params))

    def _ask(self, request: Request, what: str, key: str) -> Answer:
        answer = self._client.run(
            lambda filesystem: cast("Answer", sync(filesystem.loop, request.send, filesystem, self._silence_s)),
            translate=lambda error: self._translated(error, what, key),
        )
        self._bucket_seen = True
        return answer

    def _failure(self, error: BaseException, what: str, key: str) -> StorageError:
        return translated(error, url=self.url, key=key, what=what, secrets=self._secrets)

    def _translated(self, error: BaseException, what: str, key: str) -> StorageError:
        failure = self._failure(error, what, key)
        # A missing bucket and a missing object have the same status.
        if isinstance(failure, ObjectNotFoundError) and not self._bucket_seen:
            return self._without_bucket(failure, what)
        return failure

    def _without_bucket(self, failure: StorageError, what: str) -> StorageError:
        """The error for a missing object, after a look whether its bucket exists."""
        listing = self._listing({"prefix": self._prefix, "maxResults": "1"})
        try:
            self._client.run(
                lambda filesystem: sync(filesystem.loop, listing.send, filesystem, self._silence_s),
                translate=lambda error: self._failure(error, what, ""),
            )
        except ObjectNotFoundError:
            msg = f"{what}: there is no bucket {self._bucket}. Make it, or check its name."
            return StoreNotFoundError(msg, url=self.url, key=failure.key)
        except StorageError:
            return failure
        self._bucket_seen = True
        return failure

    def _holds(self, key: str, size: int, digest: bytes) -> bool:
        """Whether the object under the key has these bytes."""
        try:
            if self.head(key).size != size:
                return False
            found = blake3()
            for start in range(0, size, PIECE_BYTES):
                found.update(self.get(key, start, min(start + PIECE_BYTES, size)))
        except ObjectNotFoundError as error:
            msg = f"Can't write {key} to {self.url}: another writer was in the way, and then there was no object."
            raise StorageError(msg, transient=True, url=self.url, key=key) from error
        return found.digest() == digest


def _whole_object(path: str, params: Mapping[str, str], data: bytes) -> Request:
    """An upload in one request, as metadata and bytes: the one of the two forms whose conditions emulators keep."""
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n"
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return Request(
        "POST",
        path,
        {"uploadType": "multipart", **params},
        {"Content-Type": f"multipart/related; boundary={boundary}"},
        b"".join((head.encode(), data, f"\r\n--{boundary}--\r\n".encode())),
    )


def _is_conflict(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, Refusal) and cause.status in {409, 412}


def _info(key: str, metadata: Mapping[str, Any]) -> ObjectInfo:
    updated = metadata.get("updated")
    modified = datetime.fromisoformat(updated.replace("Z", "+00:00")) if updated else None
    return ObjectInfo(key, int(metadata["size"]), modified)
