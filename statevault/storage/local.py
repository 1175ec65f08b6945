"""Objects as files below a folder of a local disk.

Invariants:

* A file under a key is whole: bytes are written to a temporary file in the same folder, brought onto the medium
  (fsync), and only then given their name, by one link or rename.
* When a put returns, its bytes, its name, and every folder above it that might be new are on the medium.
* Temporary files are never listed. Those that a crash leaves are removed with the folder that they lie in.
* No folder below the root is reached through a symbolic link: whoever can write into the store can't make it write or
  delete elsewhere. The root itself may be one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import override
from upath import UPath

from statevault.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StoreNotFoundError,
)
from statevault.storage.body import buffers
from statevault.storage.file_calls import FileCalls
from statevault.storage.interface import Body, ObjectInfo, Storage
from statevault.storage.keys import TEMPORARY_PREFIX, check_key, check_prefix, is_temporary
from statevault.storage.os_errors import storage_error
from statevault.storage.ranges import check_range

__all__ = ["LocalStorage"]

_COMPARE_BYTES = 1 << 20
_VANISHED_TRIES = 100
# A temporary file that nobody has written to for so long belongs to no running put.
_DEBRIS_AGE_S = 24 * 3600.0
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class LocalStorage(Storage):
    """Files below a folder, which is made by the first put.

    Args:
        root: The folder.
        calls: The calls that change the disk; for tests.

    Raises:
        StoreNotFoundError: `root` is there and is not a folder.
    """

    def __init__(self, root: str | os.PathLike[str], *, calls: FileCalls | None = None) -> None:
        self.root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100 - resolve() would follow links
        self.url = f"file://{self.root}"
        self._calls = calls or FileCalls()
        # Folders whose own entry is known to be on the medium: path -> (device, inode).
        self._durable: dict[str, tuple[int, int]] = {}
        if self.root.exists() and not self.root.is_dir():
            msg = f"{self.root} is a file, so no store can lie there. Give the path of a folder."
            raise StoreNotFoundError(msg, url=self.url)

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        target = self._file(key)
        self._refuse_links(key)
        try:
            return self._put(key, target, body, create_only=create_only)
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(error, url=self.url, key=key, what=f"Can't write {key} in {self.root}") from error

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        path = self._file(key)
        self._refuse_links(key)
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - str paths, no Path per call
                size = os.fstat(file.fileno()).st_size
                wanted = check_range(size, start, end, url=self.url, key=key)
                data = bytearray(wanted)
                got = 0
                while got < wanted:
                    count = os.preadv(file.fileno(), [memoryview(data)[got:]], start + got)
                    if count == 0:
                        msg = f"{key} in {self.root} got shorter while it was read."
                        raise StorageError(msg, transient=True, url=self.url, key=key)
                    got += count
                return bytes(data)
        except StorageError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise self._not_found(key) from None
        except OSError as error:
            raise storage_error(error, url=self.url, key=key, what=f"Can't read {key} in {self.root}") from error

    @override
    def head(self, key: str) -> ObjectInfo:
        try:
            status = os.stat(self._file(key))  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_found(key) from None
        except OSError as error:
            raise storage_error(error, url=self.url, key=key, what=f"Can't look at {key} in {self.root}") from error
        if not stat.S_ISREG(status.st_mode):
            raise self._not_found(key)
        return _info(key, status)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, slash, name = check_prefix(prefix).rpartition("/")
        self._refuse_links(folder + slash)
        return self._walk(folder + slash, name)

    @override
    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._file(key)
            self._refuse_links(key)
            try:
                self._calls.unlink(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue  # A folder is no object.
            except OSError as error:
                what = f"Can't delete {key} in {self.root}"
                raise storage_error(error, url=self.url, key=key, what=what) from error
            self._remove_empty_folders(os.path.dirname(path))  # noqa: PTH120

    @override
    def path(self, key: str = "") -> UPath:
        return UPath(self._file(key) if key else self.root)

    def _file(self, key: str) -> str:
        return f"{self.root}/{check_key(key)}"

    def _refuse_links(self, key: str) -> None:
        """Refuse a key whose folder is reached through a symbolic link.

        Raises:
            StorageAccessError: It is.
        """
        folder = str(self.root)
        for segment in key.split("/")[:-1]:
            folder = f"{folder}/{segment}"
            try:
                if stat.S_ISLNK(os.lstat(folder).st_mode):
                    msg = f"{folder} is a symbolic link, and a store follows none. Remove it, or move the store there."
                    raise StorageAccessError(msg, url=self.url, key=key)
            except (FileNotFoundError, NotADirectoryError):
                return

    def _not_found(self, key: str) -> ObjectNotFoundError:
        return ObjectNotFoundError(f"There is no object {key} in {self.root}.", url=self.url, key=key)

    def _put(self, key: str, target: str, body: Body, *, create_only: bool) -> int:
        folder, temporary, descriptor = self._create_temporary(target)
        named = False
        try:
            try:
                size = self._write(descriptor, body)
                # The bytes must be on the medium before the name is: after a crash a name without bytes would
                # pass for the object.
                self._calls.fsync(descriptor, temporary)
            finally:
                os.close(descriptor)
            if create_only and not self._link(temporary, target):
                if not _same_bytes(temporary, target):
                    msg = f"{key} in {self.root} exists already, with other bytes."
                    raise ObjectExistsError(msg, url=self.url, key=key)
            elif not create_only:
                self._calls.replace(temporary, target)
                named = True
        finally:
            if not named:
                with contextlib.suppress(FileNotFoundError):
                    self._calls.unlink(temporary)
        # Also where another put has made the file: it may not have come as far as this.
        self._make_durable(folder)
        return size

    def _create_temporary(self, target: str) -> tuple[str, str, int]:
        """Make an unfinished file beside `target`, and the folders above it where they are missing."""
        folder = os.path.dirname(target)  # noqa: PTH120
        for left in reversed(range(_VANISHED_TRIES)):
            temporary = f"{folder}/{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
            try:
                return folder, temporary, self._calls.create(temporary)
            except FileNotFoundError:
                # Not there yet, or a delete has just removed the folder that it had emptied. Once the temporary
                # file lies in it, no delete can.
                if not left:
                    raise
                with contextlib.suppress(FileNotFoundError):
                    self._make_folders(folder)
        raise AssertionError

    def _make_folders(self, folder: str) -> None:
        try:
            self._calls.mkdir(folder)
        except FileExistsError:
            return  # A file there makes what follows fail with ENOTDIR.
        except FileNotFoundError:
            self._make_folders(os.path.dirname(folder))  # noqa: PTH120
            with contextlib.suppress(FileExistsError):
                self._calls.mkdir(folder)

    def _write(self, descriptor: int, body: Body) -> int:
        size = 0
        for view in buffers(body):
            written = 0
            while written < view.nbytes:
                written += self._calls.write(descriptor, view[written:])
            size += view.nbytes
        return size

    def _link(self, temporary: str, target: str) -> bool:
        """Name a finished file if the name is free; link() is the one call that decides this atomically."""
        try:
            self._calls.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A filesystem without hard links (FAT, some network mounts): no better than the check before.
            if os.path.exists(target):  # noqa: PTH110
                return False
            self._calls.replace(temporary, target)
        return True

    def _make_durable(self, folder: str) -> None:
        """Fsync `folder`, and those above it up to the first whose own entry is known to be on the medium.

        A folder that another put has made may not be there yet, so it does not matter who made it.
        """
        try:
            path, identity = folder, self._fsync_folder(folder)
            while self._durable.get(path) != identity:
                parent = os.path.dirname(path)  # noqa: PTH120
                parent_identity = self._fsync_folder(parent)
                self._durable[path] = identity
                path, identity = parent, parent_identity
        except FileNotFoundError:
            return  # Deleted since, with the object in it.
        except PermissionError:
            # Above the root are folders that this user can't read, and so has not made.
            if path != str(self.root) and path.startswith(f"{self.root}/"):
                raise
            self._durable[path] = identity

    def _fsync_folder(self, path: str) -> tuple[int, int]:
        """Fsync a folder; returns what tells it from a later one of the same name."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                self._calls.fsync(descriptor, path)
            except OSError as error:
                # What a filesystem without fsync for folders says; it brings entries onto the medium by itself.
                if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                    raise
            status = os.fstat(descriptor)
            return status.st_dev, status.st_ino
        finally:
            os.close(descriptor)

    def _walk(self, folder: str, name_prefix: str) -> Iterator[ObjectInfo]:
        """Yield the files below ``root/folder`` whose name there starts with `name_prefix`, sorted by whole key."""
        try:
            with os.scandir(f"{self.root}/{folder}") as entries:
                # A folder is sorted as "name/", for that is how it stands in its files' keys: "a-b" < "a/b".
                found = sorted(
                    (entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name)
                    for entry in entries
                    if entry.name.startswith(name_prefix) and not is_temporary(entry.name)
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            what = f"Can't list {folder or 'the store'} in {self.root}"
            raise storage_error(error, url=self.url, key=folder, what=what) from error
        for name in found:
            if name.endswith("/"):
                yield from self._walk(folder + name, "")
                continue
            try:
                status = os.lstat(f"{self.root}/{folder}{name}")
            except FileNotFoundError:
                continue  # Deleted since the folder was read.
            except OSError as error:
                what = f"Can't look at {folder}{name} in {self.root}"
                raise storage_error(error, url=self.url, key=folder + name, what=what) from error
            if stat.S_ISREG(status.st_mode):
                yield _info(folder + name, status)

    def _remove_empty_folders(self, folder: str) -> None:
        """Remove `folder` and those above it as far as they are empty; never the root."""
        while len(folder) > len(str(self.root)):
            try:
                self._remove_debris(folder)
                self._calls.rmdir(folder)
            except FileNotFoundError:
                pass  # Another delete was faster; the folder above may be ours to remove.
            except OSError:
                return  # Not empty, or not ours: an empty folder more does no harm.
            self._durable.pop(folder, None)
            folder = os.path.dirname(folder)  # noqa: PTH120

    def _remove_debris(self, folder: str) -> None:
        """Remove temporary files that a crash left, where nothing else keeps the folder alive."""
        with os.scandir(folder) as entries:
            files = list(entries)
        oldest_alive = time.time() - _DEBRIS_AGE_S
        if all(is_temporary(entry.name) and entry.stat().st_mtime < oldest_alive for entry in files):
            for entry in files:
                self._calls.unlink(entry.path)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _same_bytes(first: str, second: str) -> bool:
    with open(first, "rb") as one, open(second, "rb") as two:  # noqa: PTH123
        while True:
            block = one.read(_COMPARE_BYTES)
            if block != two.read(_COMPARE_BYTES):
                return False
            if not block:
                return True
