"""The data objects of a state: its files, cut into chunks, hashed, compressed and put.

Memory is bounded whatever the size of a file: chunks are made a few ahead of the connection that takes them.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from statevault.codecs import compress_chunk, digest, segment_boundaries, worth_compressing
from statevault.errors import StorageError
from statevault.format.chunking import chunk_unit, plan_chunks
from statevault.format.keys import manifest_key, object_key, state_prefix
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

__all__ = ["StateContent", "upload_files"]

_logger = logging.getLogger(__name__)
_CONCURRENT_FILES = 8
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
        StorageError: A put failed, or the storage lists another size than was put.
    """
    paths = {file.logical_path for file in snapshot.files}
    workers = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(workers, "statevault-encode") as encoders,
        ThreadPoolExecutor(_CONCURRENT_FILES, "statevault-upload") as uploaders,
    ):
        bodies = [
            _FileBody(file, encoders, may_compress=f"{file.logical_path}.zst" not in paths)
            for file in snapshot.files
            if file.size
        ]

        def upload(body: _FileBody) -> ObjectEntry:
            key = object_key(state, body.file.logical_path, compressed=body.compressed)
            return ObjectEntry(key, storage.put(key, body))

        # The largest first: the last file to end should not be the longest.
        largest_first = sorted(range(len(bodies)), key=lambda index: -bodies[index].file.size)
        uploaded = dict(zip(largest_first, run_all(uploaders, upload, (bodies[i] for i in largest_first)), strict=True))
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
            # Not closed here: the storage may hold views of it longer than this iteration. It goes with the last view.
            content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        ranges = (content[start:end] for start, end in self._plan)
        for raw_size, content_digest, stored in map_ordered(self._encoders, self._encode, ranges, ahead=ahead):
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

    def _encode(self, raw: memoryview) -> tuple[int, bytes, Buffer]:
        content_digest = digest(raw)
        return len(raw), content_digest, compress_chunk(raw) if self.compressed else raw

    def _samples(self) -> list[bytes]:
        """A few chunks from all over the file."""
        step = max(1, len(self._plan) // _SAMPLES)
        with self.file.path.open("rb") as opened:
            return [os.pread(opened.fileno(), end - start, start) for start, end in self._plan[::step][:_SAMPLES]]


def _check_sizes(storage: Storage, state: str, objects: list[ObjectEntry]) -> None:
    """Compare what was put with what is there. A backend that lies about a put must not get a commit marker."""
    if not objects:
        return
    found = {info.key: info.size for info in storage.list(state_prefix(state))}
    for entry in objects:
        if found.get(entry.key) != entry.size:
            there = f"has {found[entry.key]} bytes" if entry.key in found else "is missing"
            raise StorageError(
                f"{entry.key} was put with {entry.size} bytes into {storage.url} but {there}",
                transient=True,
                url=storage.url,
                key=entry.key,
            )
    if manifest_key(state) in found:
        raise StorageError(
            f"another writer saves under the name {state!r} in {storage.url}", url=storage.url, key=state
        )
