"""Objects as files below a folder of a local disk.

Invariants, which hold for what POSIX promises of a power cut, and no more:

* A file under a key is whole: bytes are written to an unfinished file in the same folder, brought onto the medium
  (fsync), and only then given their name, by one link or rename.
* When a put returns, its bytes, its name, and every folder above it that might be new are on the medium. When a delete
  returns, it is on the medium that the names are gone.
* What failed once is not believed when it succeeds the next time without having been written again.
* Unfinished files are never listed. Those of killed processes go with a delete that follows a listing of their folder.
* Nothing below the root is reached through a symbolic link: whoever can write into the store can't make it read, write
  or delete elsewhere. The root itself may be one, and so may the folders above it.
* Nothing that is no file is waited for. A pipe, a socket or a device in a folder is an object without bytes: it is
  there, as the name of a record is what counts, and it is damaged.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
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
from statevault.storage.body import is_one_shot
from statevault.storage.descriptors import DESCRIPTORS
from statevault.storage.interface import Body, ObjectInfo, Storage
from statevault.storage.keys import check_key, check_prefix, is_temporary
from statevault.storage.local.debris import Debris
from statevault.storage.local.durable_folders import DurableFolders
from statevault.storage.local.file_calls import FileCalls
from statevault.storage.local.unfinished_file import UnfinishedFile
from statevault.storage.os_errors import storage_error
from statevault.storage.ranges import check_range

__all__ = ["LocalStorage"]

_logger = logging.getLogger(__name__)
_VANISHED_TRIES = 100
_MAY_COME_BACK = "an fsync failed before, so a power cut may bring it back; check the disk and restart"


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
        self._folders = DurableFolders(str(self.root), self._calls)
        self._debris = Debris(self._calls)
        # Keys that have had a name from a put that failed after: to be read, but perhaps not on the medium.
        self._in_doubt: set[str] = set()
        # Keys whose removal a failed fsync should have brought onto the medium, and which can't be removed again.
        self._may_come_back: set[str] = set()
        # os.path: what can't be looked at is told by the first call.
        if os.path.exists(self.root) and not os.path.isdir(self.root):  # noqa: PTH110, PTH112
            msg = f"{self.root} is a file, so no store can lie there. Give the path of a folder."
            raise StoreNotFoundError(msg, url=self.url)

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        target = self._file(key)
        self._refuse_links(key)
        try:
            if is_one_shot(body):
                return self._put(key, target, body, create_only=create_only)
            return DESCRIPTORS.in_turn(lambda: self._put(key, target, body, create_only=create_only))
        except StorageError:
            raise
        except OSError as error:
            failure = storage_error(error, url=self.url, key=key, what=f"Can't write {key} in {self.root}")
            # After a transient error a caller may look whether the object is there after all, as if just the answer had
            # been lost. Here it may be there and yet not survive a power cut: only a put that succeeds tells.
            failure.transient &= key not in self._in_doubt
            raise failure from error

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        with self._opened(key) as (descriptor, size):
            wanted = check_range(size, start, end, url=self.url, key=key)
            if not wanted:
                return b""
            data = os.pread(descriptor, wanted, start)
            if len(data) == wanted:  # nearly always: without a copy
                return data
            whole = bytearray(wanted)
            self._read_into(descriptor, start, memoryview(whole), key)
            return bytes(whole)

    @override
    def get_into(self, key: str, start: int, target: memoryview) -> None:
        with self._opened(key) as (descriptor, size):
            check_range(size, start, start + target.nbytes, url=self.url, key=key)
            self._read_into(descriptor, start, target, key)

    def _read_into(self, descriptor: int, start: int, target: memoryview, key: str) -> None:
        got = 0
        while got < target.nbytes:
            count = os.preadv(descriptor, [target[got:]], start + got)
            if not count:
                msg = f"{key} in {self.root} got shorter while it was read."
                raise StorageError(msg, transient=True, url=self.url, key=key)
            got += count

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """Open an object; gives descriptor and size."""
        path = self._file(key)
        self._refuse_links(key)
        try:
            # str paths, no Path per call
            with DESCRIPTORS.opened(lambda: open(path, "rb", buffering=0, opener=_open_at_once)) as file:
                status = os.fstat(file.fileno())
                yield file.fileno(), status.st_size if stat.S_ISREG(status.st_mode) else self._special(path, key)
        except StorageError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise self._not_found(key) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._link_refused(path, key) from None
            if error.errno != errno.ENXIO:
                raise storage_error(error, url=self.url, key=key, what=f"Can't read {key} in {self.root}") from error
            yield -1, self._special(path, key)

    def _special(self, path: str, key: str) -> int:
        """The size of what is neither a file nor a folder."""
        if "/" not in key:
            raise self._not_found(key)  # What lies in the root may be anybody's.
        _logger.warning("%s is a pipe, a socket or a device, and taken for an object without bytes: remove it", path)
        return 0

    @override
    def head(self, key: str) -> ObjectInfo:
        self._refuse_links(key)
        try:
            status = os.lstat(self._file(key))
        except (FileNotFoundError, NotADirectoryError):
            raise self._not_found(key) from None
        except OSError as error:
            raise storage_error(error, url=self.url, key=key, what=f"Can't look at {key} in {self.root}") from error
        if stat.S_ISDIR(status.st_mode) or not (stat.S_ISREG(status.st_mode) or "/" in key):
            raise self._not_found(key)
        return _info(key, status)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder, slash, name = check_prefix(prefix).rpartition("/")
        self._refuse_links(folder + slash)
        # A folder that a caller names is the store's; another one in the root, even if empty, may be somebody's own.
        return self._walk(folder + slash, name, note_empty=bool(folder))

    @override
    def delete(self, keys: Sequence[str]) -> None:
        failures = self._folders.failures
        folders: set[str] = set()
        for key in keys:
            path = self._file(key)
            self._refuse_links(key)
            folders.add(os.path.dirname(path))  # noqa: PTH120
            try:
                self._calls.unlink(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue  # A folder is no object.
            except OSError as error:
                what = f"Can't delete {key} in {self.root}"
                raise storage_error(error, url=self.url, key=key, what=what) from error
            self._may_come_back.discard(key)
        folders |= self._debris.sweep()
        for folder in sorted(folders, reverse=True):  # What lies deeper first.
            self._folders.remove_empty(folder)
        try:
            # Also where nothing was found: another delete may have removed the name, and not have come as far as this.
            self._folders.sync_removals(folders, failures=failures)
            for key in keys:
                if key in self._may_come_back:
                    raise OSError(errno.EIO, _MAY_COME_BACK, self._file(key))
        except OSError as error:
            if self._folders.failures != failures:
                self._may_come_back.update(keys)
            key = keys[0] if keys else ""
            what = f"Can't make sure that {key} and what was to go with it are gone from {self.root}"
            raise storage_error(error, url=self.url, key=key, what=what) from error

    @override
    def settle(self, prefix: str = "") -> None:
        """Bring onto the medium what a listing shows, and what it no longer shows, whoever put or deleted it.

        What another process does can be seen before its fsync, and it may be killed in between. Who destroys something
        because of what it has seen must make sure first that a power cut does not undo that.

        Args:
            prefix: That of the listing. Also settled is which folders are in the root.

        Raises:
            StorageError: The disk says no.
        """
        failures = self._folders.failures
        folder = check_prefix(prefix).rpartition("/")[0]
        self._refuse_links(prefix)
        top = f"{self.root}/{folder}".rstrip("/")
        try:
            self._folders.sync_removals([str(self.root), top], failures=failures)
            paths = DESCRIPTORS.instead(lambda: _with_folders_below(top))
            for path in paths:
                self._folders.sync(path, failures=failures)
        except OSError as error:
            what = f"Can't make sure that all of {folder or 'the store'} in {self.root} is on the disk"
            raise storage_error(error, url=self.url, key=prefix, what=what) from error

    @override
    def close(self) -> None:
        self._folders.close()

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
                    raise self._link_refused(folder, key)
            except (FileNotFoundError, NotADirectoryError):
                return
            except StorageError:
                raise
            except OSError as error:
                raise storage_error(error, url=self.url, key=key, what=f"Can't look at {folder}") from error

    def _link_refused(self, path: str, key: str) -> StorageAccessError:
        msg = f"{path} is a symbolic link, and a store follows none. Replace it by what it leads to."
        return StorageAccessError(msg, url=self.url, key=key)

    def _not_found(self, key: str) -> ObjectNotFoundError:
        return ObjectNotFoundError(f"There is no object {key} in {self.root}.", url=self.url, key=key)

    def _put(self, key: str, target: str, body: Body, *, create_only: bool) -> int:
        failures = self._folders.failures
        folder = os.path.dirname(target)  # noqa: PTH120
        file = self._create_in(folder)
        try:
            size = file.write(body)
            self._in_doubt.add(key)
            if not create_only:
                file.replace(target)
            elif not file.link(target):
                if not file.equals(target):
                    self._in_doubt.discard(key)
                    msg = f"{key} in {self.root} exists already, with other bytes."
                    raise ObjectExistsError(msg, url=self.url, key=key)
                # An earlier try of this put, which may have failed: its name is written once more.
                file.replace(target)
        finally:
            file.discard()
        self._folders.sync(folder, failures=failures)
        self._in_doubt.discard(key)
        self._may_come_back.discard(key)
        return size

    def _create_in(self, folder: str) -> UnfinishedFile:
        """Make an unfinished file, and its folder and those above it where they are missing."""
        for left in reversed(range(_VANISHED_TRIES)):
            try:
                return UnfinishedFile(folder, self._calls)
            except FileNotFoundError:
                # Not there yet, or a delete has just removed the folder that it had emptied. Once the unfinished
                # file lies in it, no delete can.
                if not left:
                    raise
                with contextlib.suppress(FileNotFoundError):
                    self._folders.make(folder)
        raise AssertionError("the last try returns or raises")

    def _walk(self, folder: str, name_prefix: str, *, note_empty: bool) -> Iterator[ObjectInfo]:
        """Yield the files below ``root/folder`` whose name there starts with `name_prefix`, sorted by whole key."""
        # No recursion: somebody may have made folders of any depth.
        pending = [iter(self._names(folder, name_prefix, note_empty=note_empty))]
        while pending:
            key = next(pending[-1], None)
            if key is None:
                pending.pop()
            elif key.endswith("/"):
                pending.append(iter(self._names(key, "", note_empty=note_empty)))
            else:
                yield from self._found(key)

    def _names(self, folder: str, name_prefix: str, *, note_empty: bool) -> Sequence[str]:
        """The keys of the files in a folder, sorted; of each folder in it what the keys of its files start with."""
        try:
            with DESCRIPTORS.opened(lambda: os.scandir(f"{self.root}/{folder}")) as entries:
                # A folder is sorted as "name/", for that is how it stands in its files' keys: "a-b" < "a/b".
                names = [entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return []  # Nothing can have been put where nothing can be opened.
            what = f"Can't list {folder or 'the store'} in {self.root}"
            raise storage_error(error, url=self.url, key=folder, what=what) from error
        self._debris.note_files(f"{self.root}/{folder}".rstrip("/"), names)
        if note_empty and not names:
            self._debris.note_empty(f"{self.root}/{folder}".rstrip("/"))
        return sorted(folder + name for name in names if name.startswith(name_prefix) and not is_temporary(name))

    def _found(self, key: str) -> Iterator[ObjectInfo]:
        """Yield what lies under a key that was found, if it is an object."""
        try:
            status = os.lstat(f"{self.root}/{key}")
        except FileNotFoundError:
            return  # Deleted since the folder was read.
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return
            what = f"Can't look at {key} in {self.root}"
            raise storage_error(error, url=self.url, key=key, what=what) from error
        if "/" in key and stat.S_ISLNK(status.st_mode):
            # To pass over a record would be to say that it is not there. A link in the root may be anybody's.
            raise self._link_refused(f"{self.root}/{key}", key)
        if stat.S_ISREG(status.st_mode) or ("/" in key and not stat.S_ISDIR(status.st_mode)):
            yield _info(key, status)


def _with_folders_below(top: str) -> list[str]:
    """A folder and all below it, as far as they are there and can be opened by a path."""
    paths: list[str] = []
    pending = [top]
    while pending:
        path = pending.pop()
        try:
            with os.scandir(path) as entries:
                pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
        else:
            paths.append(path)
    return paths


def _open_at_once(path: str, flags: int) -> int:
    """Open no link, and wait for nobody: a pipe has perhaps no other end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return ObjectInfo(key, size, datetime.fromtimestamp(status.st_mtime, UTC))
