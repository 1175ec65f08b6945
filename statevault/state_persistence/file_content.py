"""The bytes of a file on their way into a store, chunk by chunk, wherever they come from.

What is uploaded is a :class:`StateFile`: a file that a component wrote, or one of a state in another store
(:mod:`statevault.state_persistence.source_file`). Either says how it is cut, and gives the chunks that are asked for.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from statevault.codecs import digest, segment_boundaries, shuffle, worth_compressing
from statevault.errors import UnsupportedTypeError
from statevault.format.chunking import chunk_unit, plan_chunks
from statevault.format.manifest import SHUFFLED_WIDTHS
from statevault.state_persistence.chunk_encoding import Compression, encode_chunk
from statevault.state_persistence.parallel import map_ordered
from statevault.storage import Buffer

__all__ = ["EncodedChunk", "FileContent", "LocalContent", "StateFile"]

_BYTES_AHEAD = 8 * 1024**2
_SAMPLES = 5
_SMALL_GAIN = 0.03


class EncodedChunk(NamedTuple):
    """A chunk as it is put.

    Attributes:
        stored: The bytes to put.
        encoding: The number of their encoding.
        size: How many it has once decoded.
        digest: BLAKE3 of the decoded bytes.
    """

    stored: Buffer
    encoding: int
    size: int
    digest: bytes


class FileContent(Protocol):
    """The chunks of a file. They are numbered from 0, in the order of the file."""

    @property
    def sizes(self) -> Sequence[int]:
        """The size of each chunk in bytes."""

    @property
    def is_shuffled(self) -> bool:
        """Whether some of them may be given as byte planes whatever is asked for."""

    def digests(self) -> Iterator[bytes]:
        """BLAKE3 of each chunk; they may have to be read for that."""

    def worth(self, compression: Compression, chunks: Sequence[int]) -> bool:
        """Whether it pays to compress some of the chunks, at least one, in this way."""

    def encoded(self, chunks: Sequence[int], compression: Compression) -> Iterator[EncodedChunk]:
        """Read some of the chunks, with bounded memory, and encode them.

        Args:
            chunks: Their numbers, ascending.
            compression: What is done to each.
        """


class StateFile(Protocol):
    """A file of a state that is to be published."""

    @property
    def component(self) -> int:
        """The index of its component."""

    @property
    def logical_path(self) -> str:
        """Its path in the state."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def holds_pickle(self) -> bool:
        """Whether there are pickles in it, as far as that is known."""

    @property
    def needs_allow_pickle(self) -> bool:
        """Whether they are such that statevault itself reads."""

    def content(self, encoders: ThreadPoolExecutor) -> FileContent:
        """Its bytes.

        Args:
            encoders: Where chunks may be hashed and compressed, several at once.
        """


class LocalContent:
    """The chunks of a local file, which nobody changes meanwhile.

    Args:
        path: Where it lies.
        size: Bytes.
        name: What to call it in messages.
        encoders: Where chunks are read, hashed and compressed.
        is_final: Whether it lies in memory and can't be changed any more: what is sent need not be a copy then.
    """

    def __init__(
        self, path: Path, size: int, *, name: str, encoders: ThreadPoolExecutor, is_final: bool = False
    ) -> None:
        self._path = path
        self._name = name
        self._encoders = encoders
        self._ahead = max(2, _BYTES_AHEAD // chunk_unit(size))
        self._plan = list(plan_chunks(size, segment_boundaries(path) or ()))
        self._is_final = is_final
        self._digests: list[bytes] = []

    @property
    def sizes(self) -> list[int]:
        """The size of each chunk in bytes."""
        return [end - start for start, end in self._plan]

    @property
    def is_shuffled(self) -> bool:
        """No: they are raw."""
        return False

    def digests(self) -> Iterator[bytes]:
        """Read all of the file, and hash it."""
        with self._open() as read:
            numbers = range(len(self._plan))
            found = list(map_ordered(self._encoders, lambda number: digest(read(number)), numbers, ahead=self._ahead))
        if self._is_final:
            self._digests = found
        yield from found

    def worth(self, compression: Compression, chunks: Sequence[int]) -> bool:
        """Try it with a few of the chunks from all over the file."""
        if compression is Compression.NONE:
            return False
        step = max(1, len(chunks) // _SAMPLES)
        with self._open() as read:
            samples = [read(number) for number in chunks[::step][:_SAMPLES]]
        if worth_compressing(samples):
            return True
        return compression is Compression.SMALLEST and any(
            worth_compressing([shuffle(sample, width) for sample in samples], min_gain=_SMALL_GAIN)
            for width in SHUFFLED_WIDTHS.values()
        )

    def encoded(self, chunks: Sequence[int], compression: Compression) -> Iterator[EncodedChunk]:
        """Read some of the chunks, a few ahead of the one who takes them.

        Raises:
            UnsupportedTypeError: The file became shorter.
        """
        with self._open() as read:

            def encode(number: int) -> EncodedChunk:
                # Hashed anew, from a copy, if it is not final: what is hashed must be what is sent, also when a
                # component still writes to a file that it has saved.
                raw = read(number)
                known = self._digests[number] if self._digests else digest(raw)
                return EncodedChunk(*encode_chunk(raw, compression), memoryview(raw).nbytes, known)

            yield from map_ordered(self._encoders, encode, chunks, ahead=self._ahead)

    @contextmanager
    def _open(self) -> Iterator[Callable[[int], Buffer]]:
        """Open the file; gives what reads the chunk of a number."""
        with self._path.open("rb") as opened:
            if self._is_final:
                if os.fstat(opened.fileno()).st_size != self._plan[-1][1]:
                    raise self._became_shorter()
                # Closed with the last chunk of it.
                mapped = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
                yield lambda number: mapped[slice(*self._plan[number])]
            else:
                yield lambda number: self._copy(opened.fileno(), *self._plan[number])

    def _copy(self, descriptor: int, start: int, end: int) -> bytes:
        raw = os.pread(descriptor, end - start, start)
        if len(raw) != end - start:
            raise self._became_shorter()
        return raw

    def _became_shorter(self) -> UnsupportedTypeError:
        return UnsupportedTypeError(
            f"{self._name!r} became shorter after it was saved: a component must let go of its files "
            "when its save_state returns"
        )
