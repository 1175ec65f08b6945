"""A file as the body of a put: its chunks, hashed and compressed, without those that are reused.

Memory is bounded whatever the size of a file: chunks are made a few ahead of the connection that takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from statevault.format.manifest import ENCODING_PLAIN, ENCODING_ZSTD, Chunk
from statevault.state_persistence.file_content import StateFile
from statevault.storage import Buffer

__all__ = ["FileBody"]


class FileBody:
    """What is uploaded of a file. Each iteration encodes it anew, so that a put can be tried again.

    Attributes:
        file: The file.
        compressed: Whether its new chunks are compressed.
    """

    def __init__(self, file: StateFile, encoders: ThreadPoolExecutor) -> None:
        self.file = file
        self.compressed = False
        self._content = file.content(encoders)
        self._sizes = self._content.sizes
        self._reused: list[Chunk | None] = [None] * len(self._sizes)
        # Of each chunk that was put: bytes stored, bytes once decoded, digest.
        self._put: list[tuple[int, int, bytes]] = []

    @property
    def size(self) -> int:
        """Bytes to upload, before compression."""
        return sum(self._sizes[number] for number in self._new)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the file is reused."""
        return not any(self._reused)

    @property
    def _new(self) -> list[int]:
        return [number for number, chunk in enumerate(self._reused) if chunk is None]

    def find(self, known: Mapping[bytes, Chunk]) -> list[Chunk]:
        """Tell which of the known chunks are in the file; they are marked as reused."""
        self._reused = [known.get(digest) for digest in self._content.digests()]
        return [chunk for chunk in self._reused if chunk is not None]

    def reuse_only(self, objects: set[int]) -> None:
        """Upload what lies in other objects of the base than these after all."""
        self._reused = [chunk if chunk is not None and chunk.object in objects else None for chunk in self._reused]

    def choose_compression(self, *, allowed: bool) -> None:
        """Decide whether to compress what is uploaded, of which there must be something."""
        self.compressed = allowed and self._content.worth_compressing(self._new)

    def __iter__(self) -> Iterator[Buffer]:
        self._put = []
        for chunk in self._content.encoded(self._new, compress=self.compressed):
            self._put.append((memoryview(chunk.stored).nbytes, chunk.size, chunk.digest))
            yield chunk.stored

    def chunks(self, *, own: int, reused: Mapping[int, int]) -> list[Chunk]:
        """All chunks of the file, once it was put.

        Args:
            own: The index of the object with its new chunks.
            reused: For each object of the base its index in the new manifest.
        """
        chunks = []
        offset = 0
        encoding = ENCODING_ZSTD if self.compressed else ENCODING_PLAIN
        put = iter(self._put)
        for chunk in self._reused:
            if chunk is not None:
                chunks.append(chunk._replace(object=reused[chunk.object]))
                continue
            stored, size, content_digest = next(put)
            chunks.append(Chunk(own, offset, stored, size, content_digest, encoding))
            offset += stored
        return chunks
