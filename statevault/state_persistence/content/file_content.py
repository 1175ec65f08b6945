"""The bytes of a file on their way into a store, chunk by chunk, wherever they come from.

What is uploaded is a :class:`StateFile`: one that a component wrote, into a folder (``local_content``) or into memory
(``held_content``), or one of a state in another store (``source_file``). Each says how it is cut, and gives the
chunks that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from statevault.state_persistence.content.chunk_encoding import Compression
from statevault.storage import Buffer
from statevault.worker_pool import WorkerPool

__all__ = ["EncodedChunk", "FileContent", "StateFile"]


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

    @property
    def digests_are_known(self) -> bool:
        """Whether nothing has to be read for them."""

    @property
    def structure_size(self) -> int:
        """How many of its first bytes are parsed when it is read as a tree; they may have to be read for that."""

    def digests(self, chunks: Sequence[int]) -> Iterator[bytes]:
        """BLAKE3 of some of the chunks; they may have to be read for that.

        Args:
            chunks: Their numbers, ascending.
        """

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

    @property
    def may_be_held(self) -> bool:
        """Whether its component reads it as a tree and in no other way."""

    def content(self, encoders: WorkerPool) -> FileContent:
        """Its bytes.

        Args:
            encoders: Where chunks may be hashed and compressed, several at once.
        """
