"""A column: the values of one field of a buffer's samples, in segments.

Segments of about ``segment_bytes`` are filled one after the other. Values that leave at the old end only move
an offset; their segment goes when all its rows have left. A value of another kind than its segment's closes
the segment, or, if that has only just begun, turns it into one of objects: a column that mixes kinds all the
time stays correct, it is only not fast.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from statevault.data.columns.kinds import RowKind, kind_of
from statevault.data.columns.segments import ArraySegment, ObjectSegment, Segment, segment_from_record
from statevault.data.stacking import stack_values
from statevault.errors import FormatError

__all__ = ["Column"]

_SEGMENT_BYTES = 1 << 20
_MIN_SEGMENT_BYTES = 1 << 16
_JUST_BEGUN_ROWS = 256
_MIXED_RUN = 64
# Where a batch hits so many segments that each gives only a few rows, rows are copied one by one.
_FEW_ROWS = 16


class Column:
    """Values in the order in which they were appended."""

    def __init__(self, *, max_rows: int, segment_bytes: int = _SEGMENT_BYTES) -> None:
        """Initialize without values.

        Args:
            max_rows: How many values the column is going to hold, which bounds the size of its segments; the
                caller drops values, the column does not.
            segment_bytes: The size at which a segment is full.
        """
        self._max_rows = max_rows
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        # Rows are counted from the first one ever appended, so that dropping rows moves no start.
        self._starts: list[int] = []
        self._first = 0
        self._end = 0

    def __len__(self) -> int:
        return self._end - self._first

    def append(self, value: Any) -> None:
        """Add a value at the new end."""
        last = self._segments[-1] if self._segments else None
        if last is None or last.full or not last.accepts(value):
            last = self._open_segment_for(value, last)
        last.append(value)
        self._end += 1

    def extend(self, values: Sequence[Any]) -> None:
        """Add values at the new end, those of one kind in bulk."""
        done = 0
        while done < len(values):
            last = self._segments[-1] if self._segments else None
            if isinstance(last, ArraySegment) and not last.full:
                run = values[done : done + last.room]
                if last.accepts_all(run):
                    last.extend(run)
                    self._end += len(run)
                    done += len(run)
                    continue
            # One by one where a segment has to be opened, or to be left for another kind; some more of them, as
            # looking at all that follow after each would cost the square of their number.
            for value in values[done : done + (1 if last is None or last.full else _MIXED_RUN)]:
                self.append(value)
                done += 1

    def drop_oldest(self, n: int) -> None:
        """Remove ``n`` values at the old end."""
        self._first = min(self._first + n, self._end)
        gone = 0
        for start, segment in zip(self._starts, self._segments, strict=True):
            if start + len(segment) > self._first or not segment.full:
                break
            gone += 1
        del self._starts[:gone]
        del self._segments[:gone]

    def replace(self, index: int, value: Any) -> None:
        """Put a value in the place of another.

        Args:
            index: The position, counted from the oldest value.
            value: The new value.
        """
        number, row = self._locate(index)
        segment = self._segments[number]
        if not segment.accepts(value):
            segment = ObjectSegment(segment.items())
            self._segments[number] = segment
        segment.replace(row, value)

    def items(self) -> list[Any]:
        """Return all values; arrays and tensors among them are views, made in bulk."""
        values: list[Any] = []
        for start, segment in zip(self._starts, self._segments, strict=True):
            values.extend(segment.items(max(self._first - start, 0)))
        return values

    def gather(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
        """Return copies of some values, stacked along a new first axis.

        Args:
            indices: Positions, counted from the oldest value.

        Returns:
            An array or tensor; a list where the values can't be stacked.
        """
        rows = indices + self._first
        numbers = np.searchsorted(np.asarray(self._starts, dtype=np.int64), rows, side="right") - 1
        hit = np.unique(numbers).tolist()
        kind = _common_kind([self._segments[number] for number in hit])
        if kind is None:
            return stack_values(
                [
                    self._segments[n].item(row - self._starts[n])
                    for n, row in zip(numbers.tolist(), rows.tolist(), strict=True)
                ]
            )
        batch = np.empty((len(rows), *kind.shape), dtype=kind.dtype)
        if len(hit) * _FEW_ROWS > len(rows):
            picks = zip(numbers.tolist(), rows.tolist(), strict=True)
            np.concatenate([self._segments[n].row(row - self._starts[n]) for n, row in picks], out=batch)
            return kind.batch(batch)
        for number in hit:
            segment = self._segments[number]
            assert isinstance(segment, ArraySegment)
            places = np.flatnonzero(numbers == number)
            batch[places] = segment.take(rows[places] - self._starts[number])
        return kind.batch(batch)

    def count_newest_from(self, threshold: float) -> int:
        """Count the values (numbers) after the last one that is smaller than a threshold."""
        count = 0
        for start, segment in zip(reversed(self._starts), reversed(self._segments), strict=True):
            values = segment.numbers(max(self._first - start, 0))
            smaller = np.flatnonzero(values < threshold)
            if len(smaller):
                return count + len(values) - 1 - int(smaller[-1])
            count += len(values)
        return count

    def record(self) -> dict[str, Any]:
        """Return the column as a tree, which shares the memory of its arrays."""
        return {
            "offset": self._first - self._starts[0] if self._starts else 0,
            "length": len(self),
            "segments": [segment.record() for segment in self._segments],
        }

    def restore(self, record: Any) -> None:
        """Take the values of a record in place of the present ones.

        Raises:
            FormatError: It isn't the record of a column.
        """
        if not isinstance(record, dict) or not isinstance(record.get("segments"), list):
            raise FormatError("a saved buffer holds something that is not a column")
        segments: list[Segment] = []
        starts: list[int] = []
        end = 0
        for number, saved in enumerate(record["segments"], 1):
            segment = segment_from_record(saved, 0)
            if number == len(record["segments"]) and isinstance(segment, ArraySegment):
                # The newest segment goes on growing.
                segment = segment_from_record(saved, self._capacity(segment.kind))
            segments.append(segment)
            starts.append(end)
            end += len(segment)
        offset = record.get("offset")
        if not isinstance(offset, int) or not 0 <= offset <= end or record.get("length") != end - offset:
            raise FormatError("a saved column's segments do not have as many rows as it says")
        self._segments, self._starts, self._first, self._end = segments, starts, offset, end

    def _locate(self, index: int) -> tuple[int, int]:
        row = self._first + index
        number = bisect_right(self._starts, row) - 1
        return number, row - self._starts[number]

    def _open_segment_for(self, value: Any, last: Segment | None) -> Segment:
        if last is not None and not last.full:
            if len(last) < _JUST_BEGUN_ROWS:
                mixed = ObjectSegment(last.items())
                self._segments[-1] = mixed
                return mixed
            last.seal()
        # Segments of one kind share the object, which makes comparing their kinds cheap.
        kind = last.kind if isinstance(last, ArraySegment) and last.accepts(value) else kind_of(value)
        segment: Segment = ObjectSegment() if kind is None else ArraySegment(kind, self._capacity(kind))
        self._segments.append(segment)
        self._starts.append(self._end)
        return segment

    def _capacity(self, kind: RowKind) -> int:
        row_bytes = max(1, kind.dtype.itemsize * int(np.prod(kind.shape, dtype=np.int64)))
        rows = self._segment_bytes // row_bytes
        # A small buffer gets small segments, so that rows that left do not outnumber those that stay.
        bound = max(self._max_rows // 8, _MIN_SEGMENT_BYTES // row_bytes)
        return max(1, min(rows, bound))


def _common_kind(segments: Sequence[Segment]) -> RowKind | None:
    """The kind of the rows of all of some segments, None if there is none."""
    kind: RowKind | None = None
    for segment in segments:
        if isinstance(segment, ObjectSegment):
            return None
        if kind is None:
            kind = segment.kind
        elif segment.kind is not kind and segment.kind != kind:
            return None
    return kind
