"""A file of a snapshot as the body of a put: cut into chunks, hashed, compressed, without those that are reused.

Memory is bounded whatever the size of a file: chunks are made a few ahead of the connection that takes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from statevault.codecs import compress_chunk, digest, segment_boundaries, worth_compressing
from statevault.errors import UnsupportedTypeError
from statevault.format.chunking import chunk_unit, plan_chunks
from statevault.format.manifest import ENCODING_PLAIN, ENCODING_ZSTD, Chunk
from statevault.state_persistence.parallel import map_ordered
from statevault.state_persistence.snapshot import SnapshotFile
from statevault.storage import Buffer

__all__ = ["FileBody"]

_BYTES_AHEAD = 8 * 1024**2
_SAMPLES = 5


class FileBody:
    """What is uploaded of a file. Each iteration encodes it anew, so that a put can be tried again.

    Attributes:
        file: The file.
        compressed: Whether its new chunks are compressed.
    """

    def __init__(self, file: SnapshotFile, encoders: ThreadPoolExecutor) -> None:
        self.file = file
        self.compressed = False
        self._encoders = encoders
        boundaries: Sequence[int] = segment_boundaries(file.path) or ()
        self._plan = list(plan_chunks(file.size, boundaries))
        self._reused: list[Chunk | None] = [None] * len(self._plan)
        self._encoded: list[tuple[int, int, bytes]] = []

    @property
    def size(self) -> int:
        """Bytes to upload, before compression."""
        return sum(end - start for start, end in self._new)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the file is reused."""
        return not any(self._reused)

    @property
    def _new(self) -> list[tuple[int, int]]:
        return [piece for piece, chunk in zip(self._plan, self._reused, strict=True) if chunk is None]

    def find(self, known: Mapping[bytes, Chunk]) -> list[Chunk]:
        """Hash the file, and tell which of the known chunks are in it; they are marked as reused."""
        with self.file.path.open("rb") as opened:

            def look(piece: tuple[int, int]) -> Chunk | None:
                return known.get(digest(self._read(opened.fileno(), *piece)))

            self._reused = list(map_ordered(self._encoders, look, self._plan, ahead=self._ahead))
        return [chunk for chunk in self._reused if chunk is not None]

    def reuse_only(self, objects: set[int]) -> None:
        """Upload what lies in other objects of the base than these after all."""
        self._reused = [chunk if chunk is not None and chunk.object in objects else None for chunk in self._reused]

    def choose_compression(self, *, allowed: bool) -> None:
        """Find out by a trial whether to compress what is uploaded."""
        self.compressed = allowed and worth_compressing(self._samples())

    def __iter__(self) -> Iterator[Buffer]:
        self._encoded = []
        with self.file.path.open("rb") as opened:

            def encode(piece: tuple[int, int]) -> tuple[int, bytes, Buffer]:
                # Hashed anew, from a copy: what is hashed must be what is sent, also when a component still writes to
                # a file that it has saved.
                raw = self._read(opened.fileno(), *piece)
                return len(raw), digest(raw), compress_chunk(raw) if self.compressed else raw

            for raw_size, content_digest, stored in map_ordered(self._encoders, encode, self._new, ahead=self._ahead):
                self._encoded.append((len(stored), raw_size, content_digest))
                yield stored

    def chunks(self, *, own: int, reused: Mapping[int, int]) -> list[Chunk]:
        """All chunks of the file, once it was put.

        Args:
            own: The index of the object with its new chunks.
            reused: For each object of the base its index in the new manifest.
        """
        chunks = []
        offset = 0
        encoding = ENCODING_ZSTD if self.compressed else ENCODING_PLAIN
        encoded = iter(self._encoded)
        for chunk in self._reused:
            if chunk is not None:
                chunks.append(chunk._replace(object=reused[chunk.object]))
                continue
            stored, size, content_digest = next(encoded)
            chunks.append(Chunk(own, offset, stored, size, content_digest, encoding))
            offset += stored
        return chunks

    @property
    def _ahead(self) -> int:
        return max(2, _BYTES_AHEAD // chunk_unit(self.file.size))

    def _read(self, descriptor: int, start: int, end: int) -> bytes:
        raw = os.pread(descriptor, end - start, start)
        if len(raw) != end - start:
            raise UnsupportedTypeError(
                f"{self.file.logical_path!r} became shorter after it was saved: a component must let go of its files "
                "when its save_state returns"
            )
        return raw

    def _samples(self) -> list[bytes]:
        """A few of the new chunks from all over the file."""
        new = self._new
        step = max(1, len(new) // _SAMPLES)
        with self.file.path.open("rb") as opened:
            return [self._read(opened.fileno(), start, end) for start, end in new[::step][:_SAMPLES]]
