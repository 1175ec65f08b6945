"""The manifest: the list of a state's files and of where each chunk of them lies (``docs/format.md``, section 3).

A :class:`Manifest` that exists is consistent: whoever holds one needs to check no name, index or size again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, Self

import msgpack
from blake3 import blake3
from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, ValidationError, model_validator

from statevault.errors import FormatError, InvalidNameError
from statevault.format.bounded_msgpack import unpack_bounded
from statevault.format.chunking import MAX_CHUNK
from statevault.format.keys import check_object_key, state_prefix
from statevault.format.names import check_distinct_paths, check_logical_path
from statevault.format.records import (
    FORMAT_VERSION,
    MAX_MANIFEST_SIZE,
    ComponentName,
    Sequence,
    Size,
    StateName,
    check_version,
)

__all__ = [
    "ENCODING_PLAIN",
    "ENCODING_ZSTD",
    "SHUFFLED_WIDTHS",
    "Chunk",
    "DirectoryEntry",
    "FileEntry",
    "Manifest",
    "ObjectEntry",
    "file_flags",
]

ENCODING_PLAIN = 0
ENCODING_ZSTD = 1
SHUFFLED_WIDTHS = {2: 2, 3: 4, 4: 8}
"""The encodings whose zstd frame holds the byte planes of a chunk: bytes of an item by the number of the encoding."""

# Files are cut at multiples of this, and the first bytes of a file, which say what it is, are in one chunk.
_MIN_CHUNK = 64
# What zstd adds at most to bytes that can't be compressed is less than half of this.
_MAX_OVERHEAD = 128
_SPARE_OVERHEAD = 512
_HOLDS_PICKLE = 1
_NEEDS_ALLOW_PICKLE = 2
_MAY_BE_HELD = 4

Index = Annotated[int, Field(ge=0, lt=2**32)]


class Chunk(NamedTuple):
    """A piece of a file.

    Attributes:
        object: Index into :attr:`Manifest.objects`.
        offset: Where in the object it begins.
        stored: Bytes it takes in the object.
        size: Bytes it has once decoded.
        digest: BLAKE3 of the decoded bytes.
        encoding: :data:`ENCODING_PLAIN`, :data:`ENCODING_ZSTD`, or one of :data:`SHUFFLED_WIDTHS`.
    """

    object: Index
    offset: Size
    stored: Annotated[int, Field(ge=1, le=2 * MAX_CHUNK)]
    size: Annotated[int, Field(ge=1, le=MAX_CHUNK)]
    digest: Annotated[bytes, Field(min_length=32, max_length=32)]
    encoding: Annotated[int, Field(ge=ENCODING_PLAIN, le=max(SHUFFLED_WIDTHS))]


class ObjectEntry(NamedTuple):
    """An object that chunks lie in: its key and its size in bytes."""

    key: str
    size: Size


class DirectoryEntry(NamedTuple):
    """A folder without files: the index of its component and its logical path."""

    component: Index
    path: str


def file_flags(*, holds_pickle: bool, needs_allow_pickle: bool, may_be_held: bool) -> int:
    """:attr:`FileEntry.flags` of a file."""
    return _HOLDS_PICKLE * holds_pickle | _NEEDS_ALLOW_PICKLE * needs_allow_pickle | _MAY_BE_HELD * may_be_held


class FileEntry(NamedTuple):
    """A file of a state.

    Attributes:
        component: Index into :attr:`Manifest.components`.
        path: Its logical path.
        size: Bytes.
        flags: Bit 0: holds pickles. Bit 1: it is statevault that unpickles them, if it is allowed to. Bit 2: a tree
            file that is read as such only.
        chunks: Its content, in order.
    """

    component: Index
    path: str
    size: Size
    flags: Annotated[int, Field(ge=0, le=_HOLDS_PICKLE | _NEEDS_ALLOW_PICKLE | _MAY_BE_HELD)]
    chunks: Annotated[list[Chunk], FailFast()]

    @property
    def holds_pickle(self) -> bool:
        """Whether there are pickles in it, as far as that is known; loading a pickle runs code that it brings."""
        return bool(self.flags & _HOLDS_PICKLE)

    @property
    def needs_allow_pickle(self) -> bool:
        """Whether it can be loaded only by a store that was made with ``allow_pickle=True``."""
        return bool(self.flags & _NEEDS_ALLOW_PICKLE)

    @property
    def may_be_held(self) -> bool:
        """Whether its component reads it as a tree and in no other way: a load may hold it in memory."""
        return bool(self.flags & _MAY_BE_HELD)

    @property
    def stored_size(self) -> int:
        """Bytes that its chunks take in the store."""
        return sum(chunk.stored for chunk in self.chunks)

    @property
    def digest(self) -> bytes:
        """What tells files apart: BLAKE3 of the content for one chunk at most, else of its chunks' digests."""
        if len(self.chunks) == 1:
            return self.chunks[0].digest
        return blake3(b"".join(chunk.digest for chunk in self.chunks)).digest()

    @property
    def compression(self) -> str:
        """How its chunks are stored: ``"none"``, ``"zstd"``, ``"shuffled"`` (some of them at least), or ``"mixed"``."""
        kinds = {chunk.encoding for chunk in self.chunks}
        if kinds <= {ENCODING_PLAIN}:
            return "none"
        if kinds & SHUFFLED_WIDTHS.keys():
            return "shuffled"
        return "zstd" if kinds == {ENCODING_ZSTD} else "mixed"


class Manifest(BaseModel):
    """Everything that restoring a state needs to know."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    format: Literal["statevault-manifest"] = "statevault-manifest"
    version: int = FORMAT_VERSION
    state: StateName
    sequence: Sequence
    created_at: AwareDatetime
    writer: str
    base: StateName | None
    components: Annotated[list[ComponentName], FailFast()]
    directories: Annotated[list[DirectoryEntry], FailFast()]
    objects: Annotated[list[ObjectEntry], FailFast()]
    files: Annotated[list[FileEntry], FailFast()]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for entry in self.objects:
            check_object_key(entry.key)
            if self.base is None and not entry.key.startswith(state_prefix(self.state)):
                raise FormatError(f"the object {entry.key!r} is in the folder of another state, but there is no base")
        if len({entry.key for entry in self.objects}) != len(self.objects):
            raise FormatError("an object occurs twice")
        paths = [file.path for file in self.files]
        folders = [directory.path for directory in self.directories]
        for path in (*paths, *folders):
            check_logical_path(path)
        check_distinct_paths(paths, folders)
        if len(set(self.components)) != len(self.components):
            raise FormatError("a component occurs twice")
        owners = [file.component for file in self.files] + [directory.component for directory in self.directories]
        if any(owner >= len(self.components) for owner in owners):
            raise FormatError("a file belongs to a component that is not listed")
        for file in self.files:
            self._check_chunks(file)
        return self

    def _check_chunks(self, file: FileEntry) -> None:
        total = 0
        if any(chunk.size < _MIN_CHUNK for chunk in file.chunks[:-1]):
            raise FormatError(f"the file {file.path!r} has a chunk of less than {_MIN_CHUNK} bytes before its last one")
        for chunk in file.chunks:
            if chunk.object >= len(self.objects):
                raise FormatError(f"the file {file.path!r} refers to an object that is not listed")
            if chunk.offset + chunk.stored > self.objects[chunk.object].size:
                raise FormatError(f"the file {file.path!r} refers to bytes behind the end of an object")
            if chunk.encoding == ENCODING_PLAIN and chunk.stored != chunk.size:
                raise FormatError(f"the file {file.path!r} has a plain chunk of two sizes")
            if chunk.stored > chunk.size + chunk.size // _MAX_OVERHEAD + _SPARE_OVERHEAD:
                # Frames may be long and hold next to nothing: few entries would make a reader fetch very much.
                raise FormatError(f"the file {file.path!r} has a chunk of {chunk.size} bytes that takes {chunk.stored}")
            total += chunk.size
        if total != file.size:
            raise FormatError(f"the chunks of {file.path!r} have {total} bytes, the file {file.size}")

    def pack(self) -> bytes:
        """Encode as msgpack (not yet compressed)."""
        fields = self.model_dump(mode="python")
        fields["created_at"] = self.created_at.isoformat()
        packed: bytes = msgpack.packb(fields, use_bin_type=True)
        return packed

    @classmethod
    def unpack(cls, data: bytes, *, where: str) -> Self:
        """Decode and check.

        Args:
            data: What :meth:`pack` made.
            where: Key and store, for messages.

        Raises:
            UnsupportedVersionError: It is of a newer format.
            FormatError: It is malformed, inconsistent or hostile.
        """
        where = f"the manifest {where}"
        if len(data) > MAX_MANIFEST_SIZE:
            raise FormatError(f"{where} has {len(data)} bytes; at most {MAX_MANIFEST_SIZE} are allowed")
        try:
            fields: Any = unpack_bounded(data)
        except Exception as error:  # noqa: BLE001 - msgpack raises many kinds on malformed input
            raise FormatError(f"{where} is not msgpack: {error!r}") from None
        check_version(fields, where=where)
        try:
            fields["created_at"] = datetime.fromisoformat(fields["created_at"])
            return cls.model_validate(_with_tuples(fields))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise FormatError(f"{where} is malformed: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except (FormatError, InvalidNameError) as error:
            raise FormatError(f"{where} is not acceptable: {error}") from None
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it comes from what is in there
            raise FormatError(f"{where} is malformed: {error!r}") from None


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Make the named tuples of msgpack's lists, which strict validation tells from tuples."""
    fields["directories"] = [DirectoryEntry(*entry) for entry in fields["directories"]]
    fields["objects"] = [ObjectEntry(*entry) for entry in fields["objects"]]
    fields["files"] = [
        FileEntry(component, path, size, flags, [Chunk(*chunk) for chunk in chunks])
        for component, path, size, flags, chunks in fields["files"]
    ]
    return fields
