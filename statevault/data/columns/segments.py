"""Segments: runs of rows of a column.

What was handed out or saved from an array segment is never written to again: a new row goes behind it, and a
replaced one first moves the segment to a copy. Views and snapshots can therefore share the memory of a
segment, and a full segment that nobody replaced a row of is bit-identical from save to save.

A segment is saved in pieces: the rows that a save finds new are a piece of their own, unless they are few. So the next
save need send none of them again, also while the segment still grows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from statevault.codecs import Unchanging
from statevault.codecs.tree.unchanging import KnownDigests
from statevault.data.columns.kinds import RowKind, Rows, kind_from_name
from statevault.errors import FormatError

__all__ = ["ArraySegment", "ObjectSegment", "Segment", "segment_from_record"]

_OBJECT_ROWS = 1024
_OBJECT_KIND = "object"
# Smaller ones are not stored apart from what is beside them, so that they would only be more to keep in mind.
_PIECE_BYTES = 64 * 1024


class ArraySegment:
    """Rows of one kind in one array.

    Attributes:
        kind: The kind of all rows.
    """

    __slots__ = ("_count", "_ends", "_exposed", "_known", "_rows", "kind")

    def __init__(self, kind: RowKind, capacity: int) -> None:
        """Initialize without rows.

        Args:
            kind: The kind of all rows.
            capacity: How many rows the segment can hold.
        """
        self.kind = kind
        self._rows: Rows = np.empty((capacity, *kind.shape), dtype=kind.dtype)
        self._count = 0
        self._exposed = False
        # Of each piece the row behind it, and what is known of its bytes.
        self._ends: list[int] = []
        self._known: list[KnownDigests] = []

    @classmethod
    def from_pieces(cls, kind: RowKind, pieces: Sequence[Rows], capacity: int) -> Self:
        """Return a segment with the rows of at least one piece, and room up to a capacity."""
        segment = cls(kind, 0)
        for piece in pieces:
            segment._count += len(piece)
            segment._ends.append(segment._count)
            segment._known.append({})
        if len(pieces) == 1 and segment._count >= capacity:
            # Decoded arrays may be read-only views of a file's bytes, of which torch can make no tensor.
            segment._rows = np.require(pieces[0], requirements=["C", "W"])
        else:
            segment._rows = np.empty((max(capacity, segment._count), *kind.shape), dtype=kind.dtype)
            np.concatenate(pieces, out=segment._rows[: segment._count])
        return segment

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """A copy has digests of its own: a save may be adding to these right now."""
        slots = {name: getattr(self, name) for name in self.__slots__}
        return None, {**slots, "_known": [{} for _ in self._known]}

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether no row can be added."""
        return self._count == len(self._rows)

    def accepts(self, value: Any) -> bool:
        """Tell whether a value can be a row of this segment."""
        return self.kind.accepts(value)

    def append(self, value: Any) -> None:
        """Add a row to a segment that accepts it and is not full."""
        self.kind.put(self._rows, self._count, value)
        self._count += 1

    @property
    def room(self) -> int:
        """How many rows can be added."""
        return len(self._rows) - self._count

    def accepts_all(self, values: Sequence[Any]) -> bool:
        """Tell whether all of some values can be rows of this segment."""
        return self.kind.accepts_all(values)

    def extend(self, values: Sequence[Any]) -> None:
        """Add rows to a segment that accepts them and has room for them."""
        end = self._count + len(values)
        self.kind.put_all(self._rows[self._count : end], values)
        self._count = end

    def replace(self, index: int, value: Any) -> None:
        """Replace a row by a value that the segment accepts."""
        if self._exposed:
            self._rows = self._rows.copy()
            self._exposed = False
        piece = bisect_right(self._ends, index)
        if piece < len(self._known):
            # Not cleared: a snapshot may have it, with the rows as they were.
            self._known[piece] = {}
        self.kind.put(self._rows, index, value)

    def seal(self) -> None:
        """Give back the room for rows that were not added; the segment is full then."""
        self._rows = self._rows[: self._count].copy()
        self._exposed = False

    def items(self, start: int = 0) -> list[Any]:
        """Return the values from a row on."""
        self._exposed = self._exposed or self.kind.gives_views
        return self.kind.items(self._rows[start : self._count])

    def item(self, index: int) -> Any:
        """Return one value."""
        self._exposed = self._exposed or self.kind.gives_views
        return self.kind.items(self._rows[index : index + 1])[0]

    def row(self, index: int) -> Rows:
        """Return a view of one row, of length 1 in its first axis; to be copied at once, not to be handed out."""
        return self._rows[index : index + 1]

    def numbers(self, start: int) -> Rows:
        """Return a view of the rows from one on, which are numbers; to be looked at, not to be handed out."""
        return self._rows[start : self._count]

    def take(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Rows:
        """Return a copy of some rows."""
        rows: Rows = self._rows[indices]
        return rows

    def record(self) -> dict[str, Any]:
        """Return the segment as a tree; the arrays in it are read-only and never change."""
        self._exposed = True
        self._end_piece()
        starts = [0, *self._ends]
        pieces = [
            Unchanging(self._read_only(start, end), known)
            for start, end, known in zip(starts, self._ends, self._known, strict=False)
        ]
        return {"kind": self.kind.name, "rows": pieces[0] if len(pieces) == 1 else pieces}

    def _read_only(self, start: int, end: int) -> Rows:
        rows = self._rows[start:end]
        rows.flags.writeable = False
        return rows

    def _end_piece(self) -> None:
        """Make a piece of the rows behind the last one, or a larger one of it if that is small."""
        if self._ends and self._ends[-1] == self._count:
            return
        row_bytes = max(1, self._rows[:1].nbytes)
        if self._ends and (self._ends[-1] - (self._ends[-2] if len(self._ends) > 1 else 0)) * row_bytes < _PIECE_BYTES:
            self._ends.pop()
            self._known.pop()
        self._ends.append(self._count)
        self._known.append({})


class ObjectSegment:
    """Rows that are arbitrary objects."""

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[Any] = ()) -> None:
        """Initialize with rows."""
        self._values = list(values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def full(self) -> bool:
        """Whether no row should be added."""
        return len(self._values) >= _OBJECT_ROWS

    def accepts(self, value: Any) -> bool:
        """Any value can be a row."""
        return True

    def append(self, value: Any) -> None:
        """Add a row."""
        self._values.append(value)

    def replace(self, index: int, value: Any) -> None:
        """Replace a row."""
        self._values[index] = value

    def seal(self) -> None:
        """Nothing to give back."""

    def items(self, start: int = 0) -> list[Any]:
        """Return the values from a row on."""
        return self._values[start:]

    def item(self, index: int) -> Any:
        """Return one value."""
        return self._values[index]

    def numbers(self, start: int) -> Rows:
        """Return a copy of the rows from one on, which are numbers."""
        return np.array(self._values[start:], dtype=np.float64)

    def record(self) -> dict[str, Any]:
        """Return the segment as a tree."""
        return {"kind": _OBJECT_KIND, "rows": list(self._values)}


def _pieces(values: list[Any]) -> list[Rows]:
    """The values, if they are arrays of such rows as the first one's."""
    pieces: list[Rows] = [value for value in values if isinstance(value, np.ndarray) and value.ndim]
    fit = all(piece.dtype == pieces[0].dtype and piece.shape[1:] == pieces[0].shape[1:] for piece in pieces)
    return pieces if fit and len(pieces) == len(values) else []


Segment = ArraySegment | ObjectSegment


def segment_from_record(record: Any, capacity: int) -> Segment:
    """Return the segment of which this is the record.

    Args:
        record: What :meth:`ArraySegment.record` or :meth:`ObjectSegment.record` returned.
        capacity: How many rows the segment should have room for, if it is one of arrays.

    Raises:
        FormatError: It isn't such a record.
    """
    if isinstance(record, dict):
        kind, rows = record.get("kind"), record.get("rows")
        if kind == _OBJECT_KIND and isinstance(rows, list):
            return ObjectSegment(rows)
        pieces = _pieces(rows if isinstance(rows, list) else [rows])
        if isinstance(kind, str) and pieces:
            return ArraySegment.from_pieces(kind_from_name(kind, pieces[0]), pieces, capacity)
    raise FormatError("a saved column holds something that is not a segment")
