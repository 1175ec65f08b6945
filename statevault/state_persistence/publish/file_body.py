"""What is put of a file: its chunks, hashed and compressed, without those that are reused.

Memory is bounded whatever the size of a file: chunks are made a few ahead of the connection that takes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from statevault.codecs.compression import MAX_EXPANSION
from statevault.format.manifest import Chunk
from statevault.state_persistence.content.chunk_encoding import Compression
from statevault.state_persistence.content.file_content import EncodedChunk, StateFile
from statevault.state_persistence.publish.reuse import looked_at_first
from statevault.storage import Buffer
from statevault.worker_pool import WorkerPool

__all__ = ["FileBody"]


class FileBody:
    """What is uploaded of a file. Each iteration encodes it anew, so that a put can be tried again.

    Attributes:
        file: The file.
        compression: What is done to its new chunks.
    """

    def __init__(self, file: StateFile, encoders: WorkerPool) -> None:
        self.file = file
        self.compression = Compression.NONE
        self._content = file.content(encoders)
        self._sizes = self._content.sizes
        self._reused: list[Chunk | None] = [None] * len(self._sizes)
        # Of each chunk that was put: bytes stored, encoding, bytes once decoded, digest.
        self._put: list[tuple[int, int, int, bytes]] = []

    @property
    def size(self) -> int:
        """Bytes to upload, before compression."""
        return sum(self._sizes[number] for number in self._new)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the file is reused."""
        return not any(self._reused)

    @property
    def is_plain_file(self) -> bool:
        """Whether what is put is the file itself, or what ``zstd -d`` makes it of."""
        return self.is_whole and self.compression is not Compression.SMALLEST and not self._content.is_shuffled

    @property
    def _new(self) -> list[int]:
        return [number for number, chunk in enumerate(self._reused) if chunk is None]

    def find(self, known: Mapping[bytes, Chunk]) -> list[Chunk]:
        """Tell which of the known chunks are in the file; they are marked as reused.

        Of a large file some are looked at first. If none of them is known the file has changed all over, as that of a
        model in training does, and is sent at once: its chunks are hashed on the way.
        """
        everything = range(len(self._sizes))
        first = everything if self._content.digests_are_known else looked_at_first(self._sizes)
        digests = dict(zip(first, self._content.digests(first), strict=True))
        if any(digest in known for digest in digests.values()):
            rest = [number for number in everything if number not in digests]
            digests |= zip(rest, self._content.digests(rest), strict=True)
        for number, digest in digests.items():
            self._reused[number] = known.get(digest)
        self._keep_structure_bounded()
        return [chunk for chunk in self._reused if chunk is not None]

    def _keep_structure_bounded(self) -> None:
        """Put what is parsed of the file anew where too few stored bytes would stand for it (format, section 4)."""
        places: set[tuple[int, int]] = set()
        thin = []
        for number, chunk in enumerate(self._reused):
            if chunk is not None:
                if chunk.size > MAX_EXPANSION * chunk.stored or (chunk.object, chunk.offset) in places:
                    thin.append(number)
                places.add((chunk.object, chunk.offset))
        if thin:
            starts = [0, *accumulate(self._sizes)]
            parsed = self._content.structure_size
            for number in thin:
                if starts[number] < parsed:
                    self._reused[number] = None

    def reuse_only(self, objects: set[int]) -> None:
        """Upload what lies in other objects of the base than these after all."""
        self._reused = [chunk if chunk is not None and chunk.object in objects else None for chunk in self._reused]

    def choose_compression(self, wanted: Compression) -> None:
        """Decide whether to compress what is uploaded, of which there must be something, as wanted, or not at all."""
        self.compression = wanted if self._content.worth(wanted, self._new) else Compression.NONE

    def __iter__(self) -> Iterator[Buffer]:
        return self.taken(self.encoded())

    def encoded(self) -> Iterator[EncodedChunk]:
        """Encode the new chunks."""
        return self._content.encoded(self._new, self.compression)

    def taken(self, chunks: Iterable[EncodedChunk]) -> Iterator[Buffer]:
        """Note what is put of the file, in the thread that puts it."""
        self._put = []
        for chunk in chunks:
            self._put.append((memoryview(chunk.stored).nbytes, chunk.encoding, chunk.size, chunk.digest))
            yield chunk.stored

    @property
    def put_size(self) -> int:
        """Bytes that were put."""
        return sum(stored for stored, *_ in self._put)

    def chunks(self, own: int, start: int, *, reused: Mapping[int, int]) -> list[Chunk]:
        """All chunks of the file, once it was put.

        Args:
            own: The index of the object with its new chunks.
            start: Where the first of these begins in it.
            reused: For each object of the base its index in the new manifest.
        """
        chunks = []
        offset = start
        put = iter(self._put)
        for chunk in self._reused:
            if chunk is not None:
                chunks.append(chunk._replace(object=reused[chunk.object]))
                continue
            stored, encoding, size, content_digest = next(put)
            chunks.append(Chunk(own, offset, stored, size, content_digest, encoding))
            offset += stored
        return chunks
