"""The new objects of a state: one for each file, and one for many small files (``docs/format.md``, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from statevault.errors import InvalidNameError
from statevault.state_persistence.content.chunk_encoding import Compression
from statevault.state_persistence.publish.file_body import FileBody
from statevault.state_persistence.publish.object_names import ObjectName
from statevault.storage import Buffer
from statevault.worker_pool import WorkerPool

__all__ = ["MIN_PACKED_FILES", "PACK_SIZE", "SMALL_SIZE", "NewObject", "plan_objects"]

SMALL_SIZE = 64 * 1024
"""A file with fewer new bytes than these costs less than the request that puts it."""
MIN_PACKED_FILES = 32
"""Fewer small files than these are objects of their own, which can be read by their names."""
PACK_SIZE = 4 * 1024**2
"""An object of small files is closed when it has so many bytes, before compression."""
_FILES_AHEAD = 16


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object that is put: the new chunks of a file, or of several small ones, file after file.

    It is the body of a put; each iteration encodes it anew.

    Attributes:
        key: Where it is put.
        files: The files.
        gatherers: Where the chunks of several files are encoded, some files ahead of the connection that takes them.
    """

    key: str
    files: Sequence[FileBody]
    gatherers: WorkerPool

    @property
    def size(self) -> int:
        """Bytes to upload, before compression."""
        return sum(body.size for body in self.files)

    def __iter__(self) -> Iterator[Buffer]:
        if len(self.files) == 1:
            return iter(self.files[0])
        encoded = self.gatherers.map_ordered(lambda body: list(body.encoded()), self.files, ahead=_FILES_AHEAD)
        return chain.from_iterable(body.taken(chunks) for body, chunks in zip(self.files, encoded, strict=True))


def plan_objects(
    state: str,
    bodies: Sequence[FileBody],
    names: Mapping[str, ObjectName],
    gatherers: WorkerPool,
    *,
    compression: Compression,
) -> list[NewObject]:
    """Decide which objects are put for the files of a state, and what of them is compressed.

    Args:
        state: The name of the state.
        bodies: What is new of the files; of some there may be nothing.
        names: The names of their objects, by logical path.
        gatherers: See :class:`NewObject`.
        compression: What is done to chunks where it pays.

    Raises:
        InvalidNameError: Two objects would have the same key.
    """
    objects: dict[str, NewObject] = {}
    for group in _grouped([body for body in bodies if body.size]):
        first = names[group[0].file.logical_path]
        if len(group) > 1:
            for body in group:
                body.choose_compression(compression)
            key = first.key(state, whole=False, compressed=False)
        else:
            (body,) = group
            body.choose_compression(compression if first.may_compress or not body.is_whole else Compression.NONE)
            compressed = body.compression is not Compression.NONE
            key = first.key(state, whole=body.is_plain_file, compressed=compressed)
        if key in objects:
            raise InvalidNameError(f"two files of the state would both be stored as {key!r}: rename one of them")
        objects[key] = NewObject(key, group, gatherers)
    return list(objects.values())


def _grouped(bodies: Sequence[FileBody]) -> Iterator[list[FileBody]]:
    """Tell which files are put together."""
    small = [body for body in bodies if body.size < SMALL_SIZE]
    if len(small) < MIN_PACKED_FILES:
        yield from ([body] for body in bodies)
        return
    yield from ([body] for body in bodies if body.size >= SMALL_SIZE)
    group: list[FileBody] = []
    size = 0
    for body in small:
        group.append(body)
        size += body.size
        if size >= PACK_SIZE:
            yield group
            group, size = [], 0
    if group:
        yield group
