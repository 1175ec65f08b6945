"""Reading a state back: its manifest, then its files, each byte against its digest.

Nothing that was not verified leaves this module. Ranges that lie near each other in an object are read in one
request, several requests at once, and memory is bounded whatever the size of a file.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from statevault.codecs import decompress_chunk, digest
from statevault.codecs.buffers import copy_bytes
from statevault.codecs.compression import is_bounded
from statevault.codecs.tree.file import structure_size
from statevault.errors import (
    CorruptStateError,
    FormatError,
    ObjectNotFoundError,
    StatePrunedError,
    StorageAccessError,
    StorageError,
    UnsupportedVersionError,
)
from statevault.format.keys import StateKey, folder_of, manifest_key, state_prefix
from statevault.format.manifest import Chunk, FileEntry, Manifest
from statevault.format.records import CommitRecord
from statevault.process_limits import naming_limits
from statevault.state_persistence.content.chunk_encoding import decode_chunk
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.restore.reads import Read, place_of, plan_reads
from statevault.storage import Buffer, Storage
from statevault.worker_pool import parallel_map

__all__ = ["StateReader"]

_CONCURRENT_READS = 8


class _ReadMemory(threading.local):
    """Memory that answers are read into: of each thread its own, kept for the next one."""

    def __init__(self) -> None:
        self._memory = memoryview(b"")

    def view(self, size: int) -> memoryview:
        """So many bytes, with anything in them."""
        if self._memory.nbytes < size:
            # Unlike a bytearray, nobody writes zeros into it first.
            self._memory = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return self._memory[:size]


class StateReader:
    """Reads the files of one committed state.

    Attributes:
        record: Its commit marker.
        manifest: Its manifest.
        ids: What its store was known by.
        marker: Its commit marker, as a LIST had told before it was read; None if that is not known.

    Raises:
        CorruptStateError: The manifest is missing or damaged.
        StatePrunedError: The state was removed meanwhile.
        UnsupportedVersionError: It was written by a newer version.
        StorageError: The storage failed.
    """

    def __init__(self, storage: Storage, catalog: Catalog, record: CommitRecord) -> None:
        self._storage = storage
        self._catalog = catalog
        self.ids = catalog.ids
        self.marker = catalog.stamp(StateKey(record.sequence, record.state))
        self.record = record
        self.manifest = self._read_manifest()

    def read_files(
        self,
        files: Iterable[FileEntry],
        sink: Callable[[str, int, Buffer], None],
        *,
        memory: Mapping[str, memoryview] = MappingProxyType({}),
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Read and verify files.

        Args:
            files: Entries of :attr:`manifest`.
            sink: Called with (logical path, offset in the file, content) for each chunk, in any order and by
                several threads at once. The memory of the content is used again when it returns.
            memory: Where whole files belong, by logical path. They are received there, most of them without a copy on
                the way, and `sink` does not hear of them.
            on_progress: Called with the number of bytes that were verified since the last call.

        Raises:
            CorruptStateError: Bytes are missing or do not match their digest. What `sink` got before was right.
            StatePrunedError: The state was removed meanwhile.
            StorageError: The storage failed.
            MemoryError: No memory is left; the message names the limits of this process.
        """
        files = list(files)
        entries = {file.path: file for file in files}
        reused = _ReadMemory()

        def perform(read: Read) -> None:
            place = place_of(read, memory)
            content = reused.view(read.end - read.start) if place is None else place
            self._get_into(self.manifest.objects[read.object].key, read.start, content)
            for path, offset, chunk in read.pieces:
                begin = chunk.offset - read.start
                decoded = self.decoded(chunk, content[begin : begin + chunk.stored], path)
                if not offset:
                    self._check_structure(entries[path], decoded)
                if path not in memory:
                    sink(path, offset, decoded)
                elif place is None:
                    copy_bytes(decoded, memory[path][offset : offset + chunk.size])
                if on_progress is not None:
                    on_progress(chunk.size)

        with naming_limits(f"{self.record.state!r} could not be read"):
            parallel_map(perform, plan_reads(files), workers=_CONCURRENT_READS, name="statevault-download")

    def verify(self, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Check every byte of the state.

        Raises:
            CorruptStateError: Bytes are missing or do not match their digest.
            StatePrunedError: The state was removed meanwhile.
            StorageError: The storage failed.
        """
        self.read_files(self.manifest.files, lambda path, offset, content: None, on_progress=on_progress)

    def restore(
        self,
        files: Iterable[FileEntry],
        target: Callable[[FileEntry], Path],
        *,
        memory: Mapping[str, memoryview] = MappingProxyType({}),
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Write files, and the folders they need.

        Args:
            files: Entries of :attr:`manifest`.
            target: Where each is to lie.
            memory: As for :meth:`read_files`; no file is written of these, only their folder is made.
            on_progress: As for :meth:`read_files`.

        Raises:
            CorruptStateError: See :meth:`read_files`; the files are then incomplete.
            OSError: A file could not be written.
        """
        files = list(files)
        targets = {file.path: target(file) for file in files}
        for file in files:
            targets[file.path].parent.mkdir(parents=True, exist_ok=True)
            if file.path not in memory:
                with targets[file.path].open("wb") as opened:
                    opened.truncate(file.size)

        def write(path: str, offset: int, content: Buffer) -> None:
            view = memoryview(content)
            with targets[path].open("r+b", buffering=0) as opened:
                written = 0
                while written < view.nbytes:
                    written += os.pwrite(opened.fileno(), view[written:], offset + written)

        self.read_files(files, write, memory=memory, on_progress=on_progress)

    def _read_manifest(self) -> Manifest:
        reference = self.record.manifest
        key = manifest_key(self.record.state)
        if not is_bounded(reference.size, reference.length):
            raise CorruptStateError(
                f"the state {self.record.state!r} is damaged: by its commit marker {self._where(key)} has "
                f"{reference.length} bytes that make {reference.size}, more than any writer packs"
            )
        stored = self._get(key, 0, reference.length)
        if digest(stored).hex() != reference.digest:
            raise self._damaged(f"{self._where(key)} does not match the digest in its commit marker")
        try:
            packed = decompress_chunk(stored, size=reference.size)
            manifest = Manifest.unpack(packed, where=self._where(key))
        except UnsupportedVersionError:
            raise
        except (CorruptStateError, FormatError) as error:
            raise self._damaged(f"the state {self.record.state!r} is damaged: {error}") from None
        expected = (self.record.state, self.record.sequence, self.record.size, self.record.components)
        if (manifest.state, manifest.sequence, manifest.size, manifest.components) != expected:
            raise CorruptStateError(f"{self._where(key)} is not the one that its commit marker describes")
        others = sorted({folder_of(entry.key) for entry in manifest.objects} - {manifest.state})
        if (manifest.base, others) != (self.record.base, self.record.reuses):
            # A prune goes by the marker: what it does not name is not protected.
            raise CorruptStateError(f"{self._where(key)} refers to other states than its commit marker says")
        return manifest

    def stored(self, index: int, start: int, end: int) -> bytes:
        """Read bytes as they are stored, not yet verified.

        Args:
            index: Of one of the :attr:`manifest`'s objects.
            start: The first byte of the object to read.
            end: The one after the last.

        Raises:
            CorruptStateError: The object is missing or too short.
            StatePrunedError: The state was removed meanwhile.
            StorageError: The storage failed.
        """
        return self._get(self.manifest.objects[index].key, start, end)

    def decoded(self, chunk: Chunk, stored: memoryview, path: str) -> Buffer:
        """Decode and verify a chunk.

        Args:
            chunk: One of the :attr:`manifest`'s.
            stored: What lies at its place.
            path: The logical path of its file, for messages.

        Returns:
            Its content; where it is stored as it is, that very memory.

        Raises:
            CorruptStateError: That is not it.
            StatePrunedError: The state was removed meanwhile.
        """
        where = f"{path!r} of the state {self.record.state!r}"
        try:
            content = decode_chunk(stored, chunk.encoding, size=chunk.size)
        except (CorruptStateError, FormatError) as error:
            raise self._damaged(f"{where} is damaged: {error}") from None
        if digest(content) != chunk.digest:
            object_key = self.manifest.objects[chunk.object].key
            raise self._damaged(
                f"{where} is damaged: {chunk.stored} bytes at {chunk.offset} of {self._where(object_key)} "
                "do not match their digest"
            )
        return content

    def check_objects(self, files: Iterable[FileEntry]) -> None:
        """Check that the objects in which files lie are there, as large as the manifest says; nothing is read.

        Raises:
            CorruptStateError: One is missing, or too small.
            StatePrunedError: The state was removed meanwhile.
            StorageError: The storage failed.
        """
        needed = {self.manifest.objects[chunk.object] for file in files for chunk in file.chunks}
        folders = sorted({folder_of(entry.key) for entry in needed})
        found = {info.key: info.size for folder in folders for info in self._storage.list(state_prefix(folder))}
        for key, size in sorted(needed):
            if key not in found:
                raise self._missing(key)
            if found[key] < size:
                raise self._too_short(key, size)

    def _check_structure(self, file: FileEntry, beginning: Buffer) -> None:
        """Check that what is parsed of a tree file has not grown out of next to nothing."""
        parsed = structure_size(beginning)
        if is_bounded(parsed, 0):
            return
        offset, ranges = 0, []
        for chunk in file.chunks:
            if offset < parsed:
                ranges.append((chunk.object, chunk.offset, chunk.offset + chunk.stored))
            offset += chunk.size
        stored = _bytes_in(ranges)
        if not is_bounded(parsed, stored):
            raise CorruptStateError(
                f"{file.path!r} of the state {self.record.state!r} is damaged: its structure has {parsed} bytes and is "
                f"made of {stored} stored ones, fewer than any writer stores"
            )

    def _get(self, key: str, start: int, end: int) -> bytes:
        with self._explained(key, end):
            return self._storage.get(key, start, end)

    def _get_into(self, key: str, start: int, target: memoryview) -> None:
        with self._explained(key, start + target.nbytes):
            self._storage.get_into(key, start, target)

    @contextmanager
    def _explained(self, key: str, end: int) -> Iterator[None]:
        """Say what is wrong with the state where an object can't be read up to `end`."""
        try:
            yield
        except ObjectNotFoundError:
            raise self._missing(key) from None
        except StorageError as error:
            # A connection that broke, or an object that was cut short: its size tells which.
            if self._size(key) < end:
                raise self._too_short(key, end, error) from None
            raise

    def _size(self, key: str) -> int:
        try:
            return self._storage.head(key).size
        except ObjectNotFoundError:
            raise self._missing(key) from None

    def _missing(self, key: str) -> CorruptStateError | StatePrunedError:
        return self._damaged(f"the state {self.record.state!r} is damaged: {self._where(key)} is missing")

    def _too_short(self, key: str, end: int, error: StorageError | None = None) -> CorruptStateError | StatePrunedError:
        why = f": {error}" if isinstance(error, StorageAccessError) else ""  # a link lies there
        return self._damaged(
            f"the state {self.record.state!r} is damaged: {self._where(key)} has fewer than {end} bytes{why}"
        )

    def _damaged(self, how: str) -> CorruptStateError | StatePrunedError:
        """The error for what is not as the manifest says."""
        # Only now: what explains it may have come after the state was found.
        if self._catalog.is_unchanged(self.record):
            return CorruptStateError(how)
        return StatePrunedError(f"the state {self.record.state!r} was removed from {self._storage.url} meanwhile")

    def _where(self, key: str) -> str:
        return f"{key} of {self._storage.url}"


def _bytes_in(ranges: list[tuple[int, int, int]]) -> int:
    """How many bytes some ranges of objects have, each byte counted once."""
    total = covered = 0
    last = -1
    for index, start, end in sorted(ranges):
        covered = covered if index == last else 0
        total += max(0, end - max(start, covered))
        covered, last = max(covered, end), index
    return total
