"""A file of a committed state as what is to be published in another store: read, verified, and put as it was stored.

Bytes are fetched only when they are to be sent, a few ahead of the connection that takes them; a chunk that the target
has already is never fetched, as the manifest of the source says its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from statevault.codecs.tree.file import structure_size
from statevault.errors import CorruptStateError, StatePrunedError
from statevault.format.manifest import ENCODING_PLAIN, SHUFFLED_WIDTHS, Chunk, FileEntry
from statevault.state_persistence.content.chunk_encoding import Compression, encode_chunk
from statevault.state_persistence.content.file_content import EncodedChunk
from statevault.state_persistence.restore.download import StateReader
from statevault.storage import Buffer
from statevault.worker_pool import WorkerPool

__all__ = ["Source", "SourceFile"]

_READ_BYTES = 4 * 1024**2
_DECODED_BYTES = 16 * 1024**2
_MAX_GAP = 128 * 1024
_READS_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Source:
    """The state that is copied.

    Attributes:
        reader: Reads it.
        readers: Where it is read, several requests at once.
        on_progress: Called with the number of bytes that were read and verified since the last call.
        failures: Why it could not be read. Whoever puts a body may make another error of one that comes out of it.
    """

    reader: StateReader
    readers: WorkerPool
    on_progress: Callable[[int], None]
    failures: list[CorruptStateError | StatePrunedError] = field(default_factory=list)

    def files(self) -> tuple[SourceFile, ...]:
        """All of its files, in the order of its manifest."""
        return tuple(SourceFile(self, entry) for entry in self.reader.manifest.files)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the state that is copied: its name, and its chunks.

    Attributes:
        source: The state.
        entry: What its manifest says of the file.
    """

    source: Source
    entry: FileEntry

    @property
    def component(self) -> int:
        """The index of its component."""
        return self.entry.component

    @property
    def logical_path(self) -> str:
        """Its path in the state."""
        return self.entry.path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.entry.size

    @property
    def holds_pickle(self) -> bool:
        """As the manifest says."""
        return self.entry.holds_pickle

    @property
    def needs_allow_pickle(self) -> bool:
        """As the manifest says."""
        return self.entry.needs_allow_pickle

    @property
    def may_be_held(self) -> bool:
        """As the manifest says."""
        return self.entry.may_be_held

    def content(self, encoders: WorkerPool) -> SourceFile:
        """Itself: what is verified by one thread that waits for the network needs no others to hash it."""
        return self

    @property
    def sizes(self) -> list[int]:
        """The size of each chunk in bytes: it is cut as it was, so that the digest of the file stays the same."""
        return [chunk.size for chunk in self.entry.chunks]

    @property
    def digests_are_known(self) -> bool:
        """The manifest says them."""
        return True

    def digests(self, chunks: Sequence[int]) -> Iterator[bytes]:
        """What the manifest says; nothing is read."""
        return (self.entry.chunks[number].digest for number in chunks)

    @property
    def structure_size(self) -> int:
        """How many of its first bytes are parsed; its first chunk is read for that.

        Raises:
            CorruptStateError: And the others of :meth:`encoded`.
        """
        if not self.entry.chunks:
            return 0
        (first,) = self._fetched(self.entry.chunks[:1], Compression.NONE)
        return structure_size(first.stored)

    @property
    def is_shuffled(self) -> bool:
        """Whether there are byte planes in the source, which are copied as they are."""
        return any(chunk.encoding in SHUFFLED_WIDTHS for chunk in self.entry.chunks)

    def worth(self, compression: Compression, chunks: Sequence[int]) -> bool:
        """Whether most of it was compressed in the source."""
        compressed = sum(
            self.entry.chunks[number].size for number in chunks if self.entry.chunks[number].encoding != ENCODING_PLAIN
        )
        return compression is not Compression.NONE and 2 * compressed > sum(
            self.entry.chunks[number].size for number in chunks
        )

    def encoded(self, chunks: Sequence[int], compression: Compression) -> Iterator[EncodedChunk]:
        """Read and verify some of the chunks; they are encoded anew only where the source has them the other way.

        Raises:
            CorruptStateError: They are damaged in the source.
            StatePrunedError: The source was removed meanwhile.
            StorageError: The source's storage failed.
        """
        reads = _reads([self.entry.chunks[number] for number in chunks])
        for group in self.source.readers.map_ordered(
            lambda read: self._fetched(read, compression), reads, ahead=_READS_AHEAD
        ):
            for chunk in group:
                self.source.on_progress(chunk.size)
                yield chunk

    def _fetched(self, chunks: list[Chunk], compression: Compression) -> list[EncodedChunk]:
        reader = self.source.reader
        start, end = chunks[0].offset, chunks[-1].offset + chunks[-1].stored
        try:
            content = memoryview(reader.stored(chunks[0].object, start, end))
            encoded = []
            for chunk in chunks:
                stored: Buffer = content[chunk.offset - start : chunk.offset - start + chunk.stored]
                raw = reader.decoded(chunk, memoryview(stored), self.logical_path)
                encoding = chunk.encoding
                if (encoding == ENCODING_PLAIN) is not (compression is Compression.NONE):
                    # It was not compressed where most of the file was: because it would have grown too much, or hardly.
                    stored, encoding = encode_chunk(bytes(raw), compression, parsed=True)
                encoded.append(EncodedChunk(stored, encoding, chunk.size, chunk.digest))
        except (CorruptStateError, StatePrunedError) as error:
            self.source.failures.append(error)
            raise
        return encoded


def _reads(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Group chunks, in the order of the file, that lie one after the other in one object."""
    group: list[Chunk] = []
    decoded = 0
    for chunk in chunks:
        if group:
            end = group[-1].offset + group[-1].stored
            if (
                chunk.object != group[0].object
                or not end <= chunk.offset <= end + _MAX_GAP
                or chunk.offset + chunk.stored - group[0].offset > _READ_BYTES
                or decoded + chunk.size > _DECODED_BYTES
            ):
                yield group
                group, decoded = [], 0
        group.append(chunk)
        decoded += chunk.size
    if group:
        yield group
