"""What the contents of files on this machine share: they are cut, hashed and compressed in the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

from statevault.codecs import digest, shuffle, worth_compressing
from statevault.codecs.tree.file import structure_size
from statevault.format.chunking import chunk_unit, plan_chunks
from statevault.format.manifest import SHUFFLED_WIDTHS
from statevault.state_persistence.content.chunk_encoding import Compression, encode_chunk
from statevault.state_persistence.content.file_content import EncodedChunk
from statevault.storage import Buffer
from statevault.worker_pool import WorkerPool

__all__ = ["ChunkedContent"]

_BEGINNING = 64
_BYTES_AHEAD = 8 * 1024**2
_SAMPLES = 5
_SMALL_GAIN = 0.03


class ChunkedContent(ABC):
    """The chunks of a file on this machine.

    Args:
        size: Bytes.
        boundaries: Where its segments begin, if it has any.
        encoders: Where chunks are read, hashed and compressed.
    """

    def __init__(self, size: int, boundaries: Sequence[int], encoders: WorkerPool) -> None:
        self._encoders = encoders
        self._ahead = max(2, _BYTES_AHEAD // chunk_unit(size))
        self._plan = list(plan_chunks(size, boundaries))

    @property
    def sizes(self) -> list[int]:
        """The size of each chunk in bytes."""
        return [end - start for start, end in self._plan]

    @property
    def is_shuffled(self) -> bool:
        """No: they are raw."""
        return False

    @property
    def digests_are_known(self) -> bool:
        """What has to be hashed is not."""
        return False

    @cached_property
    def structure_size(self) -> int:
        """How many of its first bytes are parsed when it is read as a tree."""
        if not self._plan:
            return 0
        with self._open() as read:
            return structure_size(read(0, min(self._plan[0][1], _BEGINNING)))

    def digests(self, chunks: Sequence[int]) -> Iterator[bytes]:
        """Hash some of the chunks."""
        with self._open() as read:

            def hashed(number: int) -> bytes:
                return self._digest(*self._plan[number], read)

            yield from list(self._encoders.map_ordered(hashed, chunks, ahead=self._ahead))

    def worth(self, compression: Compression, chunks: Sequence[int]) -> bool:
        """Try it with a few of the chunks from all over the file."""
        if compression is Compression.NONE:
            return False
        step = max(1, len(chunks) // _SAMPLES)
        with self._open() as read:
            samples = [read(*self._plan[number]) for number in chunks[::step][:_SAMPLES]]
        if worth_compressing(samples):
            return True
        return compression is Compression.SMALLEST and any(
            worth_compressing([shuffle(sample, width) for sample in samples], min_gain=_SMALL_GAIN)
            for width in SHUFFLED_WIDTHS.values()
        )

    def encoded(self, chunks: Sequence[int], compression: Compression) -> Iterator[EncodedChunk]:
        """Read some of the chunks, a few ahead of the one who takes them."""
        parsed = 0 if compression is Compression.NONE else self.structure_size
        with self._open() as read:

            def encode(number: int) -> EncodedChunk:
                start, stop = self._plan[number]
                raw, content_digest = self._taken(start, stop, read)
                stored, encoding = encode_chunk(raw, compression, parsed=start < parsed)
                return EncodedChunk(stored, encoding, memoryview(raw).nbytes, content_digest)

            yield from self._encoders.map_ordered(encode, chunks, ahead=self._ahead)

    @abstractmethod
    def _open(self) -> AbstractContextManager[Callable[[int, int], Buffer]]:
        """Begin to read; gives what reads from one offset to another."""

    def _digest(self, start: int, stop: int, read: Callable[[int, int], Buffer]) -> bytes:
        """The digest of a chunk, to compare it with others."""
        return digest(read(start, stop))

    def _taken(self, start: int, stop: int, read: Callable[[int, int], Buffer]) -> tuple[Buffer, bytes]:
        """A chunk to be sent, and its digest: what is hashed must be what is sent, also when somebody changes it."""
        raw = read(start, stop)
        return raw, digest(raw)
