"""Which requests read the chunks of files, and where their bytes belong. Pure: nothing is read here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from statevault.format.manifest import ENCODING_PLAIN, Chunk, FileEntry

__all__ = ["Piece", "Read", "place_of", "plan_reads"]

_MAX_READ = 8 * 1024**2
_MAX_GAP = 128 * 1024


class Piece(NamedTuple):
    """A chunk and the place in a file where it belongs."""

    path: str
    offset: int
    chunk: Chunk


@dataclass(slots=True)
class Read:
    """One request: a range of an object, and the pieces in it.

    Attributes:
        object: The index of the object.
        start: The first byte.
        end: The one after the last.
        pieces: In the order of their bytes in the object.
    """

    object: int
    start: int
    end: int
    pieces: list[Piece] = field(default_factory=list)


def plan_reads(files: Iterable[FileEntry]) -> Iterator[Read]:
    """Group chunks that lie near each other into requests of bounded size."""
    pieces: dict[int, list[Piece]] = defaultdict(list)
    for file in files:
        offset = 0
        for chunk in file.chunks:
            pieces[chunk.object].append(Piece(file.path, offset, chunk))
            offset += chunk.size
    for index, in_object in pieces.items():
        in_object.sort(key=lambda piece: piece.chunk.offset)
        read: Read | None = None
        for piece in in_object:
            end = piece.chunk.offset + piece.chunk.stored
            if read is None or piece.chunk.offset - read.end > _MAX_GAP or end - read.start > _MAX_READ:
                if read is not None:
                    yield read
                read = Read(index, piece.chunk.offset, end)
            read.end = max(read.end, end)
            read.pieces.append(piece)
        if read is not None:
            yield read


def place_of(read: Read, memory: Mapping[str, memoryview]) -> memoryview | None:
    """Where all that a request brings belongs as it comes, byte for byte.

    Args:
        read: The request.
        memory: The memory of whole files, by logical path.

    Returns:
        A part of the memory of one file; None if the bytes have to be decoded, or belong to several places.
    """
    path, offset, _ = read.pieces[0]
    if path not in memory:
        return None
    end = read.start
    for piece in read.pieces:
        # Nothing in between either: what is not of this place might come last, over what was verified there.
        belongs = piece.path == path and piece.chunk.offset == end and piece.offset - offset == end - read.start
        if not belongs or piece.chunk.encoding != ENCODING_PLAIN:
            return None
        end += piece.chunk.stored
    return memory[path][offset : offset + end - read.start]
