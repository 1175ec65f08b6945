"""Objects on any filesystem that fsspec reaches, through what all of those have in common.

S3 and GCS have storages of their own (:mod:`~statevault.storage.s3`, :mod:`~statevault.storage.gcs`), as their
filesystems in fsspec hide what a storage must know: which error it was, and which keys were deleted.

Only calls that take exact paths are used: others expand ``*`` and ``[``, or make folders and markers. A put is
as atomic as the filesystem makes it: ``memory://`` is.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import fsspec
from typing_extensions import override
from upath import UPath

from statevault.errors import ObjectExistsError, ObjectNotFoundError, StorageError
from statevault.storage.body import blocks
from statevault.storage.client import Client
from statevault.storage.event_loop import event_loop
from statevault.storage.interface import Body, ObjectInfo, Storage
from statevault.storage.keys import check_key, check_prefix
from statevault.storage.options import (
    check_names,
    names_no_option,
    options_refused,
    parameters,
    passes_options_on,
    refusal,
)
from statevault.storage.os_errors import storage_error
from statevault.storage.ranges import check_length
from statevault.storage.redaction import Secrets, redacted

__all__ = ["FsspecStorage"]

_BLOCK_BYTES = 16 << 20
# No filesystem has an atomic create-only put for all of fsspec's; within one process this lock makes it one.
_create_lock = threading.Lock()


class FsspecStorage(Storage):
    """Objects below a URL of any protocol of fsspec.

    Args:
        url: The root, such as ``memory://name``; without a trailing slash.
        storage_options: What the filesystem's class takes.

    Raises:
        StorageOptionError: One has a name that the class does not know.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = redacted(url)
        self._full_url = url
        self._options = {"use_listings_cache": False, **(storage_options or {})}
        self._protocol = url.partition("://")[0]
        self._secrets = Secrets(self._options, url)
        self._client: Client[Any] = Client(self._make_filesystem, self._secrets)
        filesystem = fsspec.get_filesystem_class(self._protocol)
        if self._protocol == "memory" or not passes_options_on(filesystem):
            check_names(self._options, parameters(filesystem), url=self.url)
        self._root = str(filesystem._strip_protocol(url)).rstrip("/")  # noqa: SLF001

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        path = self._path(key)
        filesystem = self._client.get()
        parts = blocks(body, _BLOCK_BYTES)
        first = next(parts, b"")
        second = next(parts, None)
        if second is not None:
            rest = chain((first, second), parts)
            if self._protocol != "memory":
                return self._put_stream(filesystem, path, key, rest, create_only=create_only)
            first = b"".join(rest)
        with self._translating(key, f"Can't write {key} to {self.url}"):
            self._put_small(filesystem, path, key, first, create_only=create_only)
        return len(first)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        path = self._path(key)
        with self._reading(key, f"Can't read {key} from {self.url}"):
            data = self._client.get().cat_file(path, start=start, end=end)
        if end is None or end <= start or len(data) != end - start:
            check_length(len(data), self.head(key).size, start, end, url=self.url, key=key)
        return bytes(data)

    @override
    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with self._reading(key, f"Can't look at {key} in {self.url}"):
            info = self._client.get().info(path)
        if info["type"] != "file":
            raise self._not_found(key)
        return _info(key, info)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = check_prefix(prefix).rpartition("/")[0]
        top = f"{self._root}/{folder}" if folder else self._root
        try:
            with self._reading(prefix, f"Can't list {prefix or 'the store'} in {self.url}"):
                found = _find(self._client.get(), top, in_order=bool(folder))
        except ObjectNotFoundError:
            found = {}
        start = len(self._root) + 1
        infos = (
            _info(path[start:], info)
            for path, info in found.items()
            if info["type"] == "file" and path.startswith(f"{self._root}/{prefix}")
        )
        return iter(sorted(infos, key=lambda info: info.key))

    @override
    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._path(key)
            with (
                contextlib.suppress(ObjectNotFoundError),
                self._reading(key, f"Can't delete {key} in {self.url}"),
            ):
                self._client.get().rm_file(path)

    @override
    def path(self, key: str = "") -> UPath:
        url = f"{self._full_url}/{check_key(key)}" if key else self._full_url
        path: UPath = UPath(url, **self._options)
        return path

    @override
    def close(self) -> None:
        self._client.close()

    def _make_filesystem(self) -> Any:
        kind = fsspec.get_filesystem_class(self._protocol)
        if kind.async_impl:
            event_loop()
        # The host, the port and the user are in the URL for some protocols, such as ftp and sftp.
        in_url = kind._get_kwargs_from_urls(self._full_url)  # noqa: SLF001
        with options_refused(self.url, self._secrets):
            return fsspec.filesystem(self._protocol, **{**in_url, **self._options, "skip_instance_cache": True})

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _put_small(self, filesystem: Any, path: str, key: str, data: bytes, *, create_only: bool) -> None:
        if create_only:
            with _create_lock:
                if self._refuses(filesystem, path, key, data):
                    return
                _with_folder(filesystem, path, lambda: filesystem.pipe_file(path, data))
            return
        _with_folder(filesystem, path, lambda: filesystem.pipe_file(path, data))

    def _put_stream(self, filesystem: Any, path: str, key: str, parts: Iterator[bytes], *, create_only: bool) -> int:
        what = f"Can't write {key} to {self.url}"
        if create_only and self.exists(key):
            # The bytes of a stream are gone once they are compared, so this is no place for a second thought.
            raise ObjectExistsError(f"{key} in {self.url} exists already.", url=self.url, key=key)
        with self._translating(key, what):
            file = _with_folder(filesystem, path, lambda: filesystem.open(path, "wb", autocommit=False))
        size = 0
        try:
            for part in parts:
                size += len(part)
                with self._translating(key, what):
                    file.write(part)
            with self._translating(key, what):
                file.close()
        except BaseException:
            # Leaving it to `with` or to the garbage collector would publish what was written so far.
            file.discard()
            raise
        with self._translating(key, what):
            _with_folder(filesystem, path, file.commit)
        return size

    def _refuses(self, filesystem: Any, path: str, key: str, data: bytes) -> bool:
        """Whether the very bytes are there already; raises if others are."""
        try:
            there = filesystem.cat_file(path)
        except FileNotFoundError:
            return False
        if there == data:
            return True
        raise ObjectExistsError(f"{key} in {self.url} exists already, with other bytes.", url=self.url, key=key)

    def _not_found(self, key: str) -> ObjectNotFoundError:
        return ObjectNotFoundError(f"There is no object {key} in {self.url}.", url=self.url, key=key)

    @contextlib.contextmanager
    def _reading(self, key: str, what: str) -> Iterator[None]:
        """Like :meth:`_translating`, where a file that is not there is the object that is not there."""
        with self._translating(key, what):
            try:
                yield
            except FileNotFoundError:
                raise self._not_found(key) from None

    @contextlib.contextmanager
    def _translating(self, key: str, what: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            failure = storage_error(error, url=self.url, key=key, what=what, hidden=self._secrets.hidden)
            raise failure from self._secrets.hidden_in(error)
        except Exception as error:  # noqa: BLE001 - what libraries of filesystems raise, to which options are passed on
            reason = f"{type(error).__name__}: {self._secrets.hidden(str(error))}"
            failure = (
                refusal(error, url=self.url, secrets=self._secrets)
                if names_no_option(error)
                else StorageError(f"{what}: {reason}", url=self.url, key=key)
            )
            raise failure from self._secrets.hidden_in(error)


def _with_folder(filesystem: Any, path: str, write: Any) -> Any:
    """Write; on a filesystem that has real folders make the one above `path` first, when it proves missing."""
    try:
        return write()
    except FileNotFoundError:
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        return write()


def _find(filesystem: Any, top: str, *, in_order: bool) -> dict[str, Any]:
    """Find all files below a folder.

    Args:
        filesystem: Of fsspec.
        top: The folder.
        in_order: Look into the folders in it one after the other, as their names sort: what is found in a later one
            is no older. The catalog reads tombstones after commit markers.
    """
    if not in_order:
        return dict(filesystem.find(top, detail=True))
    found: dict[str, Any] = {}
    for entry in sorted(filesystem.ls(top, detail=True), key=lambda entry: str(entry["name"])):
        if entry["type"] == "directory":
            found |= filesystem.find(entry["name"], detail=True)
        else:
            found[entry["name"]] = entry
    return found


def _info(key: str, info: Mapping[str, Any]) -> ObjectInfo:
    modified = next((info[name] for name in ("mtime", "modified", "LastModified", "created") if info.get(name)), None)
    if isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    return ObjectInfo(key, int(info["size"]), modified if isinstance(modified, datetime) else None)
