"""The data objects of a state: its files, cut into chunks, hashed, compressed and put.

Memory is bounded whatever the size of a file: chunks are made a few ahead of the connection that takes them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from statevault.codecs import compress_chunk, digest, segment_boundaries, worth_compressing
from statevault.errors import InvalidNameError, StateExistsError, StorageError, UnsupportedTypeError
from statevault.format.chunking import chunk_unit, plan_chunks
from statevault.format.keys import object_key, state_prefix
from statevault.format.manifest import (
    ENCODING_PLAIN,
    ENCODING_ZSTD,
    Chunk,
    DirectoryEntry,
    FileEntry,
    ObjectEntry,
    file_flags,
)
from statevault.state_persistence.parallel import map_ordered, run_all
from statevault.state_persistence.snapshot import Snapshot, SnapshotFile
from statevault.storage import Buffer, Storage

__all__ = ["StateContent", "object_keys", "upload_files"]

_logger = logging.getLogger(__name__)
_CONCURRENT_FILES = 8
_CONCURRENT_BIG_FILES = 1
_BIG_FILE = 8 * 1024**2
_BYTES_AHEAD = 8 * 1024**2
_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class StateContent:
    """What a manifest says of the data of a state.

    Attributes:
        objects: All objects that its chunks lie in.
        files: Its files; indices of chunks are into `objects`.
        directories: Its folders without files.
        new_size: Bytes that were uploaded for it.
    """

    objects: list[ObjectEntry]
    files: list[FileEntry]
    directories: list[DirectoryEntry]
    new_size: int


def upload_files(storage: Storage, state: str, snapshot: Snapshot) -> StateContent:
    """Put all files of a snapshot, several at once, and check that they arrived.

    Args:
        storage: Where.
        state: The name of the state.
        snapshot: What.

    Raises:
        InvalidNameError: Two files can't be stored beside each other.
        StateExistsError: Something else lies in the state's folder.
        StorageError: A put failed, or the storage lists another size than was put.
    """
    with (
        ThreadPoolExecutor(os.cpu_count() or 1, "statevault-encode") as encoders,
        ThreadPoolExecutor(_CONCURRENT_BIG_FILES, "statevault-upload-big") as big,
        ThreadPoolExecutor(_CONCURRENT_FILES, "statevault-upload") as small,
    ):
        bodies = [_FileBody(file, encoders, may_compress=may) for file, may in _with_compressibility(snapshot)]
        keys = [object_key(state, body.file.logical_path, compressed=body.compressed) for body in bodies]
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InvalidNameError(f"two files of the state would both be stored as {twice!r}: rename one of them")

        def upload(index: int) -> ObjectEntry:
            return ObjectEntry(keys[index], storage.put(keys[index], bodies[index]))

        # A big file is sent in several large parts at once, so that one of them fills the wire, and the memory.
        # The largest first: the last file to end should not be the longest.
        largest_first = sorted(range(len(bodies)), key=lambda index: -bodies[index].file.size)
        entries = run_all(lambda index: big if bodies[index].file.size >= _BIG_FILE else small, upload, largest_first)
        uploaded = dict(zip(largest_first, entries, strict=True))
    objects = [uploaded[index] for index in range(len(bodies))]
    _check_sizes(storage, state, objects)
    chunks = {body.file.logical_path: body.chunks(index) for index, body in enumerate(bodies)}
    files = [
        FileEntry(
            file.component,
            file.logical_path,
            file.size,
            file_flags(holds_pickle=file.holds_pickle, needs_allow_pickle=file.needs_allow_pickle),
            chunks.get(file.logical_path, []),
        )
        for file in snapshot.files
    ]
    directories = [DirectoryEntry(component, path) for component, path in snapshot.directories]
    return StateContent(objects, files, directories, sum(entry.size for entry in objects))


class _FileBody:
    """A file as the body of a put: each iteration encodes it anew, so that a put can be tried again."""

    def __init__(self, file: SnapshotFile, encoders: ThreadPoolExecutor, *, may_compress: bool) -> None:
        self.file = file
        self._encoders = encoders
        boundaries: Sequence[int] = segment_boundaries(file.path) or ()
        self._plan = list(plan_chunks(file.size, boundaries))
        self.compressed = may_compress and worth_compressing(self._samples())
        self._encoded: list[tuple[int, int, bytes]] = []

    def __iter__(self) -> Iterator[Buffer]:
        self._encoded = []
        ahead = max(2, _BYTES_AHEAD // chunk_unit(self.file.size))
        with self.file.path.open("rb") as opened:

            def encode(piece: tuple[int, int]) -> tuple[int, bytes, Buffer]:
                return self._encode(opened.fileno(), *piece)

            for raw_size, content_digest, stored in map_ordered(self._encoders, encode, self._plan, ahead=ahead):
                self._encoded.append((len(stored), raw_size, content_digest))
                yield stored

    def chunks(self, index: int) -> list[Chunk]:
        """The chunks as they were put, given the index of their object."""
        chunks = []
        offset = 0
        encoding = ENCODING_ZSTD if self.compressed else ENCODING_PLAIN
        for stored, size, content_digest in self._encoded:
            chunks.append(Chunk(index, offset, stored, size, content_digest, encoding))
            offset += stored
        return chunks

    def _encode(self, descriptor: int, start: int, end: int) -> tuple[int, bytes, Buffer]:
        # A copy, and not a view of the file: what is hashed must be what is sent, also when a component still
        # writes to a file that it has saved.
        raw = os.pread(descriptor, end - start, start)
        if len(raw) != end - start:
            raise UnsupportedTypeError(
                f"{self.file.logical_path!r} became shorter after it was saved: a component must let go of its files "
                "when its save_state returns"
            )
        return len(raw), digest(raw), compress_chunk(raw) if self.compressed else raw

    def _samples(self) -> list[bytes]:
        """A few chunks from all over the file."""
        step = max(1, len(self._plan) // _SAMPLES)
        with self.file.path.open("rb") as opened:
            return [os.pread(opened.fileno(), end - start, start) for start, end in self._plan[::step][:_SAMPLES]]


def object_keys(state: str, snapshot: Snapshot) -> list[str]:
    """All keys under which :func:`upload_files` may have put data of a snapshot."""
    return [
        object_key(state, file.logical_path, compressed=compressed)
        for file in snapshot.files
        for compressed in (False, True)
        if file.size
    ]


def _with_compressibility(snapshot: Snapshot) -> Iterator[tuple[SnapshotFile, bool]]:
    """The files that have content, and whether the name with ``.zst`` is free for each."""
    taken = {file.logical_path for file in snapshot.files}
    for path in list(taken):
        while path := path.rpartition("/")[0]:
            taken.add(path)
    for file in snapshot.files:
        if file.size:
            yield file, f"{file.logical_path}.zst" not in taken


def _check_sizes(storage: Storage, state: str, objects: list[ObjectEntry]) -> None:
    """Compare what was put with what is there. A backend that lies about a put must not get a commit marker.

    Raises:
        StateExistsError: Something else lies in the state's folder: another writer's, or somebody's own.
        StorageError: Something is missing, or of another size.
    """
    found = {info.key: info.size for info in storage.list(state_prefix(state))}
    for entry in objects:
        if found.pop(entry.key, None) != entry.size:
            raise StorageError(
                f"{entry.key} was put into {storage.url} with {entry.size} bytes, and is not there so",
                transient=True,
                url=storage.url,
                key=entry.key,
            )
    if found:
        raise StateExistsError(
            f"{next(iter(found))} is in the folder of the new state {state!r} in {storage.url} and not of it: another "
            "writer uses the name, or the folder is somebody's own. Take another name"
        )
