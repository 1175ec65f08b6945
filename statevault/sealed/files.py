"""Sealed files on a storage: written atomically, verified before anybody sees a byte of them.

Memory is bounded at any size: on the way out, what does not fit into a few MiB lies in a temporary file. To verify a
file takes none.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, cast

from blake3 import blake3
from pydantic import JsonValue

from statevault.codecs import MAX_SEAL_SIZE, Seal, SealWriter, find_seal
from statevault.errors import CorruptStateError, ObjectNotFoundError, StagingSpaceError, StorageError
from statevault.storage import ObjectInfo, Storage
from statevault.worker_pool import WorkerPool

__all__ = ["SealedFile", "SealedFiles"]

_PIECE = 8 * 1024**2
_IN_MEMORY = 64 * 1024**2
_READERS = 4
_TAIL = 4096
_COMMENT_LENGTH = struct.Struct("<H")
_ARCHIVE_END = 22
_ARCHIVE_END_MAGIC = b"PK\x05\x06"


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file, as its seal describes it.

    Attributes:
        key: Where it lies.
        size: Bytes of the payload; of the whole file where it has no seal.
        info: What it says of itself; None where it has no seal: another program wrote it, or it was cut short.
        digest: The digest that its seal states, in hex; empty where it has none.
    """

    key: str
    size: int
    info: dict[str, JsonValue] | None
    digest: str = ""

    @classmethod
    def of(cls, found: ObjectInfo, seal: Seal | None) -> SealedFile:
        """Describe an object by its seal."""
        if seal is None:
            return cls(found.key, found.size, None)
        return cls(found.key, found.size - seal.size, seal.info, seal.digest.hex())


class SealedFiles:
    """The sealed files below a storage's root.

    Args:
        storage: Where they lie.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def put(self, key: str, payload: IO[bytes], info: Mapping[str, JsonValue]) -> SealedFile:
        """Seal a payload and store it, in the place of what lies there.

        Args:
            key: Where.
            payload: What, from its beginning to its end; it can be sought in. A zip archive stays one.
            info: What the file says of itself.

        Raises:
            UnsupportedTypeError: `info` is not JSON, or too long.
            StorageError: The storage failed.
        """
        SealWriter(info)  # refuses what is no information before anything is written
        size = payload.seek(0, os.SEEK_END)
        body = _SealedBody(payload, size, info)
        self._storage.put(key, body)
        return SealedFile(key, size, dict(info), body.digest)

    def look(self, key: str, size: int | None = None) -> SealedFile:
        """Read what a file says of itself; nothing is verified.

        Args:
            key: Where it lies.
            size: Its size, if a listing has told it.

        Raises:
            ObjectNotFoundError: Nothing lies there.
            StorageError: The storage failed.
        """
        if size is None:
            size = self._storage.head(key).size
        tail = self._storage.get(key, max(0, size - _TAIL), size) if size else b""
        seal = find_seal(tail)
        if seal is None and size > _TAIL and tail.endswith(b"svS1"):
            seal = find_seal(self._storage.get(key, max(0, size - MAX_SEAL_SIZE), size))
        return SealedFile.of(ObjectInfo(key, size), seal)

    def open(self, key: str, on_progress: Callable[[int], None] | None = None) -> tuple[IO[bytes], SealedFile]:
        """Fetch a file and verify it.

        Args:
            key: Where it lies.
            on_progress: Is called with the number of bytes that have come since the last call.

        Returns:
            The payload, to be read from its beginning and closed; what the file says of itself. A file without a seal
            is taken as it is: whoever reads its format finds out what it is worth.

        Raises:
            ObjectNotFoundError: Nothing lies there.
            CorruptStateError: It does not match its seal.
            StagingSpaceError: The temporary folder has no room for it.
            StorageError: The storage failed.
        """
        file, found, seal = self._fetch(key, on_progress)
        if seal is not None:
            file.truncate(found.size - seal.size)
            _take_comment_off(file, found.size - seal.size, seal.size)
            file.seek(0)
        return file, SealedFile.of(found, seal)

    def copy(self, key: str, target: Storage, on_progress: Callable[[int], None] | None = None) -> SealedFile:
        """Verify a file and store it somewhere else under the same key, byte for byte.

        Args:
            key: Where it lies.
            target: Where it goes.
            on_progress: As for :meth:`open`.

        Raises:
            ObjectNotFoundError: Nothing lies there.
            CorruptStateError: It does not match its seal.
            StagingSpaceError: The temporary folder has no room for it.
            StorageError: A storage failed.
        """
        file, found, seal = self._fetch(key, on_progress)
        with file:
            target.put(key, _FileBody(file))
        return SealedFile.of(found, seal)

    def verify(self, key: str, on_progress: Callable[[int], None] | None = None) -> SealedFile:
        """Check every byte of a file against its seal, without keeping any of them.

        Args:
            key: Where it lies.
            on_progress: As for :meth:`open`.

        Raises:
            ObjectNotFoundError: Nothing lies there.
            CorruptStateError: It does not match its seal.
            StorageError: The storage failed.
        """
        return SealedFile.of(*self._read(key, on_progress, None))

    def _fetch(self, key: str, on_progress: Callable[[int], None] | None) -> tuple[IO[bytes], ObjectInfo, Seal | None]:
        """The whole file, at its beginning, and its seal, if it has one: which it matches."""
        file = _temporary_file()
        try:
            found, seal = self._read(key, on_progress, file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file, found, seal

    def _read(
        self, key: str, on_progress: Callable[[int], None] | None, into: IO[bytes] | None
    ) -> tuple[ObjectInfo, Seal | None]:
        """Read a whole file, into a local one if there is one; returns its seal, which it matches."""
        try:
            found, seal = self._read_once(self._storage.head(key), on_progress, into)
        except ObjectNotFoundError:
            raise
        except (CorruptStateError, StorageError):
            # It may have been replaced between two reads, perhaps by a shorter one.
            return self._read_once(self._storage.head(key), None, into)
        if seal is None and (now := self._storage.head(key)).size != found.size:
            # By a longer one, whose end, where the seal is, was not read.
            return self._read_once(now, None, into)
        return found, seal

    def _read_once(
        self, found: ObjectInfo, on_progress: Callable[[int], None] | None, into: IO[bytes] | None
    ) -> tuple[ObjectInfo, Seal | None]:
        if into is not None:
            into.seek(0)
            into.truncate()
        check = _SealCheck()
        for piece in self._pieces(found):
            check.update(piece)
            if into is not None:
                _keep(piece, into, found)
            if on_progress is not None:
                on_progress(len(piece))
        seal = check.seal()
        if seal is not None and check.digest_before(seal) != seal.digest:
            raise CorruptStateError(
                f"{found.key} in {self._storage.url} does not match its digest: it is damaged, or torn"
            )
        return found, seal

    def _pieces(self, found: ObjectInfo) -> Iterator[bytes]:
        def get(start: int) -> bytes:
            return self._storage.get(found.key, start, min(found.size, start + _PIECE))

        starts = range(0, found.size, _PIECE)
        if len(starts) <= 1:
            yield from map(get, starts)
            return
        with WorkerPool(_READERS, "statevault-sealed") as pool:
            yield from pool.map_ordered(get, starts, ahead=_READERS)


class _SealCheck:
    """Finds the seal of a file that is read once, and makes the digest of what stands before.

    The last bytes are held back: how many of them the digest covers is known at the end.
    """

    def __init__(self) -> None:
        self._hasher = blake3()
        self._tail = b""

    def update(self, piece: bytes) -> None:
        """Take note of the next bytes."""
        if len(piece) < MAX_SEAL_SIZE:
            piece = self._tail + piece
        else:
            self._hasher.update(self._tail)
        covered = max(0, len(piece) - MAX_SEAL_SIZE)
        self._hasher.update(memoryview(piece)[:covered])
        self._tail = piece[covered:]

    def seal(self) -> Seal | None:
        """The seal at the end, if there is one."""
        return find_seal(self._tail)

    def digest_before(self, seal: Seal) -> bytes:
        """The digest of all bytes that the one in the seal covers. To be called once."""
        self._hasher.update(self._tail[: len(self._tail) - seal.digested_from_end])
        return self._hasher.digest()


class _FileBody:
    """A file, read anew for each try of a put."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece


class _SealedBody:
    """A payload and its seal, read anew for each try of a put."""

    def __init__(self, payload: IO[bytes], size: int, info: Mapping[str, JsonValue]) -> None:
        self._payload = payload
        self._size = size
        self._info = info
        self.digest = ""

    def __iter__(self) -> Iterator[bytes]:
        seal = SealWriter(self._info)
        for piece in self._pieces(seal.size):
            seal.update(piece)
            yield piece
        end = seal.finish()
        found = find_seal(end)
        assert found is not None, "a seal is found where it is"
        self.digest = found.digest.hex()
        yield end

    def _pieces(self, seal_size: int) -> Iterator[bytes]:
        is_archive = _is_archive(self._payload, self._size)
        self._payload.seek(0)
        left = self._size - (_COMMENT_LENGTH.size if is_archive else 0)
        while left:
            piece = self._payload.read(min(left, _PIECE))
            if not piece:
                raise CorruptStateError(f"a file that was to be stored has shrunk by {left} bytes meanwhile")
            left -= len(piece)
            yield piece
        if is_archive:
            # From here on the archive has a comment: the seal.
            yield _COMMENT_LENGTH.pack(seal_size)


def _is_archive(file: IO[bytes], size: int) -> bool:
    """Whether a file is a zip archive without a comment."""
    if size < _ARCHIVE_END:
        return False
    file.seek(0)
    begins = file.read(4)
    file.seek(size - _ARCHIVE_END)
    end = file.read(_ARCHIVE_END)
    return begins == b"PK\x03\x04" and end.startswith(_ARCHIVE_END_MAGIC) and end.endswith(b"\0\0")


def _take_comment_off(file: IO[bytes], size: int, seal_size: int) -> None:
    """Make of an archive whose comment was the seal the one that it was before."""
    if size >= _ARCHIVE_END:
        file.seek(size - _ARCHIVE_END)
        end = file.read(_ARCHIVE_END)
        if end.startswith(_ARCHIVE_END_MAGIC) and end.endswith(_COMMENT_LENGTH.pack(seal_size)):
            file.seek(size - _COMMENT_LENGTH.size)
            file.write(_COMMENT_LENGTH.pack(0))


def _temporary_file() -> IO[bytes]:
    return cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, prefix="statevault-"))


def _keep(piece: bytes, file: IO[bytes], found: ObjectInfo) -> None:
    try:
        file.write(piece)
    except OSError as error:
        try:
            folder = f"the temporary folder {tempfile.gettempdir()}"
        except OSError:
            folder = "any temporary folder"
        raise StagingSpaceError(
            f"the {found.size} bytes of {found.key} can't be kept in {folder} ({error.strerror or error}): free some "
            "room, or name another folder in the environment variable TMPDIR"
        ) from error
