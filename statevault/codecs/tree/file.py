"""Tree files on disk."""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import nullcontext
from io import FileIO
from pathlib import Path
from typing import Any

from typing_extensions import Buffer

from statevault.codecs.buffers import flat_view
from statevault.codecs.pickles import current_pickle_policy, looks_like_pickle, pickles_allowed
from statevault.codecs.tree.decode import decode_from
from statevault.codecs.tree.encode import encode_tree
from statevault.codecs.tree.held import find_held, held_trees
from statevault.codecs.tree.layout import PREAMBLE_SIZE, Preamble, parse_preamble, segment_offsets
from statevault.codecs.tree.received import find_received
from statevault.codecs.tree.tensors import MapLocation
from statevault.errors import CorruptStateError, FormatError, StateVaultError, UnsupportedTypeError

__all__ = ["holds_pickle", "read_tree", "segment_boundaries", "structure_size", "write_tree"]

_WRITE_BUFFER = 256 * 1024
_MAP_FROM = 64 * 1024
"""Smaller segments are read even from a mapped file: a page fault costs more than the copy."""


def write_tree(
    obj: object, path: str | os.PathLike[str], *, allow_pickle: bool | None = None, held: bool = False
) -> None:
    """Write an object as a tree file.

    A file at ``path`` is replaced only once the new one is complete (but nothing is forced to the disk).

    Args:
        obj: The object: nested dicts, lists, tuples, sets, numbers, strings, dates, NumPy arrays, torch tensors;
            ``docs/format-tree.md`` lists all. Tensors that share memory are written once and share it again
            after reading. An array in :class:`~statevault.codecs.Unchanging` need not be copied where the file is held.
        path: The file, in a folder that exists.
        allow_pickle: Whether values that the format can't hold are pickled. None: as the open pickle policy
            says, and not outside of one. A policy that forbids pickles wins over True.
        held: Whether a large file may be held in memory while a store saves a component, and later loads it, which
            is several times as fast: what lies at ``path`` then stands for it. Only :func:`read_tree` can read it,
            in this process, until the state is published, or loaded; it may be renamed. Otherwise, and elsewhere, the
            file is written as ever.

    Raises:
        UnsupportedTypeError: A value can't be stored. The message names its path inside the object and its type.
        OSError: The file can't be written.
    """
    path = Path(path)
    try:
        encoded = encode_tree(obj, allow_pickle=pickles_allowed(allow_pickle, path))
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(f"{path.name}: {error}") from error
    trees = held_trees() if held else None
    tree = None if trees is None else trees.hold(encoded, path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("wb", buffering=_WRITE_BUFFER) as file:
            for buffer in encoded if tree is None else [tree.stub]:
                file.write(buffer)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    policy = current_pickle_policy(path)
    if policy is not None and encoded.holds_pickles:
        policy.written.add(path)


def read_tree(
    path: str | os.PathLike[str],
    *,
    allow_pickle: bool | None = None,
    map_location: MapLocation = None,
    mapped: bool = False,
) -> Any:
    """Read the object that :func:`write_tree` wrote.

    Args:
        path: The file.
        allow_pickle: Whether pickles in it are loaded. None: as the open pickle policy says, and not outside of
            one. A policy that forbids pickles wins over True.
        map_location: The device that tensors go to: one for all, or a mapping from the device that was
            recorded at save (``"cuda:0"``) to a device, cpu for those not named. None: cpu for all, whatever torch's
            default device is.
        mapped: False: tensors and arrays own their memory. True: large ones are private, writable
            (copy-on-write) views of the mapped file. That saves a copy where the values are copied elsewhere at
            once, as ``load_state_dict`` does. The file may be deleted meanwhile (its space is freed with the
            last view), but must not be cut short. Where a load holds the file in memory, the first views are that
            memory: whoever has changed them can't read the file once more.

    Raises:
        FormatError: This is no tree file, or is malformed in a way that no damage explains, or holds a class
            that is not imported.
        CorruptStateError: The file is cut short, or its structure does not match its digest.
        UnsupportedVersionError: A newer version wrote it.
        PickleNotAllowedError: It holds pickles, and they are not allowed.
        MissingExtraError: It holds tensors, and torch is not installed.
        StateVaultError: The device of ``map_location`` can't take the tensors, or a mode of torch makes others than
            plain ones.
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    with path.open("rb", buffering=0) as file:
        received = find_received(path)
        held = find_held(path) if received is None else None
        opened = (
            nullcontext(held or _File(file, mapped=mapped)) if received is None else received.reading(mapped=mapped)
        )
        try:
            with opened as source:
                return decode_from(source, allow_pickle=pickles_allowed(allow_pickle, path), map_location=map_location)
        except StateVaultError as error:
            raise type(error)(f"{path}: {error}") from error


def segment_boundaries(source: str | os.PathLike[str] | Buffer) -> list[int] | None:
    """Return the offsets at which the segments of a tree file begin: the places at which to cut it in chunks.

    Args:
        source: The path of a file, or the first bytes of one (at least its preamble and segment table).

    Returns:
        Offsets in bytes, ascending; None when this isn't a tree file in one piece.
    """
    if isinstance(source, str | os.PathLike):
        received = find_received(Path(source))
        if received is not None:
            return segment_boundaries(received.memory)
        held = find_held(Path(source))
        if held is not None:
            return held.boundaries
        with Path(source).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            preamble = _parse_or_none(file.read(PREAMBLE_SIZE), size)
            table = b"" if preamble is None else file.read(8 * preamble.segment_count)
    else:
        view = flat_view(source)
        size = None
        preamble = _parse_or_none(view[:PREAMBLE_SIZE], None)
        table = b"" if preamble is None else bytes(view[PREAMBLE_SIZE : preamble.table_end])
    if preamble is None or len(table) < 8 * preamble.segment_count:
        return None
    offsets, _, expected_size = segment_offsets(preamble, memoryview(table))
    return offsets if size is None or size == expected_size else None


def structure_size(beginning: Buffer) -> int:
    """How many bytes at the beginning of a tree file are parsed; all else are numbers, which take what they have.

    Args:
        beginning: The first 64 bytes of the file, or more.

    Returns:
        Bytes, as the file itself says; 0 if it is no tree file.
    """
    preamble = _parse_or_none(flat_view(beginning)[:PREAMBLE_SIZE], None)
    return 0 if preamble is None else preamble.head_length


def holds_pickle(path: str | os.PathLike[str]) -> bool:
    """Say whether loading a file would run a pickle: a tree file with pickles, a pickle file, a torch archive.

    Files of other formats that embed pickles are not recognized.
    """
    path = Path(path)
    received = find_received(path)
    if received is not None:
        preamble = _parse_or_none(received.memory[:PREAMBLE_SIZE], received.size)
        return preamble is not None and preamble.holds_pickles
    held = find_held(path)
    if held is not None:
        return held.holds_pickles
    with path.open("rb") as file:
        preamble = _parse_or_none(file.read(PREAMBLE_SIZE), os.fstat(file.fileno()).st_size)
    return preamble.holds_pickles if preamble is not None else looks_like_pickle(path)


def _parse_or_none(data: Buffer, size: int | None) -> Preamble | None:
    try:
        preamble = parse_preamble(data)
    except (FormatError, CorruptStateError):
        return None
    # Damaged lengths must not make anyone read gigabytes of "table".
    return preamble if size is None or preamble.head_length <= size else None


class _File:
    """An open tree file as the source of its bytes."""

    def __init__(self, file: FileIO, *, mapped: bool) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self._map: memoryview | None = None
        if mapped and self.size:
            self._map = memoryview(mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY))

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        parts = []
        while length:
            part = self._file.read(length)
            if not part:
                raise CorruptStateError("the tree file became shorter while it was read")
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, target: memoryview) -> None:
        self._file.seek(offset)
        while len(target):
            count = self._file.readinto(target)
            if not count:
                raise CorruptStateError("the tree file became shorter while it was read")
            target = target[count:]

    def mapped(self, offset: int, length: int) -> memoryview | None:
        if self._map is None or length < _MAP_FROM:
            return None
        return self._map[offset : offset + length]
