"""Columns: what a save shares with the next one, and with the memory of the buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from statevault.codecs import Unchanging, decode_tree, encode_tree
from statevault.data.columns import Column
from statevault.errors import FormatError


def arrays(record: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The pieces of all segments."""
    rows = [segment["rows"] for segment in record["segments"]]
    pieces = [piece for each in rows for piece in (each if isinstance(each, list) else [each])]
    assert all(isinstance(piece, Unchanging) for piece in pieces)
    return [piece.array for piece in pieces]


def saved(record: dict[str, Any]) -> Any:
    """A record as it is when it was written and read."""
    return decode_tree(b"".join(encode_tree(record)))


def filled(count: int, *, max_rows: int = 10_000, segment_bytes: int = 1 << 16) -> Column:
    column = Column(max_rows=max_rows, segment_bytes=segment_bytes)
    for i in range(count):
        column.append(np.full(64, i, np.float64))
    return column


def test_sealed_segments_are_bit_identical_from_save_to_save() -> None:
    column = filled(1000)
    before = [rows.tobytes() for rows in arrays(column.record())]
    assert len(before) == 8
    for i in range(200):
        column.append(np.full(64, i, np.float64))
    column.drop_oldest(200)
    after = [rows.tobytes() for rows in arrays(column.record())]
    # 128 rows fill a segment: one left at the old end, the eighth grew, and there is a new one.
    assert after[:6] == before[1:7]
    assert len(after) == 9


def test_a_record_shares_memory_that_is_not_written_to_again() -> None:
    column = filled(300)
    record = column.record()
    copies = [rows.copy() for rows in arrays(record)]
    assert all(not rows.flags.writeable for rows in arrays(record))
    for i in range(300):
        column.replace(i, np.full(64, -1.0))
    for i in range(300):
        column.append(np.full(64, float(i)))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(record), copies, strict=True))


def test_a_replacement_changes_only_its_own_segment() -> None:
    column = filled(1024)
    before = [rows.tobytes() for rows in arrays(column.record())]
    column.replace(300, np.zeros(64))
    after = [rows.tobytes() for rows in arrays(column.record())]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False] + [True] * 5


def test_untouched_segments_are_not_even_copied() -> None:
    column = filled(1024)
    before = arrays(column.record())
    column.replace(300, np.zeros(64))
    after = arrays(column.record())
    assert [np.shares_memory(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False] + [True] * 5


def test_a_loaded_column_saves_the_same_sealed_segments() -> None:
    column = filled(1000)
    column.drop_oldest(130)
    record = column.record()
    loaded = Column(max_rows=10_000, segment_bytes=1 << 16)
    loaded.restore(saved(record))
    again = loaded.record()
    assert again["offset"] == record["offset"]
    assert [rows.tobytes() for rows in arrays(again)] == [rows.tobytes() for rows in arrays(record)]


def test_a_loaded_column_does_not_write_into_what_it_was_loaded_from() -> None:
    column = filled(300)
    record = column.record()
    copies = [rows.copy() for rows in arrays(record)]
    loaded = Column(max_rows=10_000, segment_bytes=1 << 16)
    loaded.restore(saved(record))
    for i in range(300):
        loaded.replace(i, np.full(64, -1.0))
    assert all(np.array_equal(a, b) for a, b in zip(arrays(record), copies, strict=True))


def test_memory_of_dropped_rows_is_given_back() -> None:
    column = filled(0, max_rows=1000)
    for i in range(20_000):
        column.append(np.full(64, i, np.float64))
        if len(column) > 1000:
            column.drop_oldest(1)
    kept = sum(rows.nbytes for rows in arrays(column.record()))
    assert kept < 1.3 * 1000 * 64 * 8


def test_a_rare_change_of_kind_keeps_segments_of_arrays() -> None:
    column = Column(max_rows=10_000)
    for shape in ((2,), (3,), (2,)):
        for _ in range(500):
            column.append(torch.zeros(shape))
    assert [s["kind"] for s in column.record()["segments"]] == ["tensor:float32"] * 3
    assert [tuple(t.shape) for t in column.items()] == [(2,)] * 500 + [(3,)] * 500 + [(2,)] * 500


def test_a_column_of_mixed_kinds_stays_correct() -> None:
    column = Column(max_rows=10_000)
    values = [i if i % 2 else float(i) for i in range(3000)]
    for value in values:
        column.append(value)
    items = column.items()
    assert items == values
    assert [type(v) for v in items] == [type(v) for v in values]
    assert len(column.record()["segments"]) == 3


def test_replacing_by_another_kind_stays_correct() -> None:
    column = filled(200)
    column.replace(7, "text")
    column.replace(8, None)
    items = column.items()
    assert items[7:9] == ["text", None]
    assert items[9][0] == 9
    assert items[199][0] == 199


def test_counting_the_newest_from_a_threshold() -> None:
    column = Column(max_rows=40_000)
    for i in range(30_000):
        column.append(float(i))
    column.drop_oldest(100)
    assert column.count_newest_from(29_990.0) == 10
    assert column.count_newest_from(5000.5) == 24_999
    assert column.count_newest_from(-np.inf) == 29_900
    assert column.count_newest_from(np.inf) == 0


def test_counting_stops_at_a_clock_that_went_back() -> None:
    column = Column(max_rows=100)
    for t in (10.0, 11.0, 5.0, 12.0, 13.0):
        column.append(t)
    assert column.count_newest_from(10.0) == 2


@pytest.mark.parametrize("record", [None, {}, {"segments": [{"kind": "array", "rows": np.zeros(())}]}, {"segments": 1}])
def test_malformed_records_are_refused(record: Any) -> None:
    with pytest.raises(FormatError):
        Column(max_rows=10).restore(saved(record))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e5m2", "uint4"])
def test_tensors_are_collected_and_loaded_under_any_default_device(name: str) -> None:
    dtype = getattr(torch, name)
    values = [torch.arange(8, dtype=torch.int16).view(torch.uint8).view(dtype) for _ in range(5)]
    with torch.device("meta"):
        column = Column(max_rows=100, segment_bytes=1 << 16)
        for value in values:
            column.append(value)
        record = saved(column.record())
        loaded = Column(max_rows=100, segment_bytes=1 << 16)
        loaded.restore(record)
    assert [segment["kind"] for segment in record["segments"]] == [f"tensor:{name}"]
    for got, value in zip(loaded.items(), values, strict=True):
        assert got.dtype is dtype
        assert torch.equal(got.view(torch.uint8), value.view(torch.uint8))


_SCALARS = [np.dtype(code).type(1) for code in "?bBhHiIlLqQefdgFDG"] + [
    np.datetime64("2024-01-01"),
    np.datetime64(5, "ns"),
    np.datetime64("NaT"),
    np.timedelta64(3, "h"),
]
_WITH_METADATA = np.dtype("f8", metadata={"unit": "m"})


class _Float64(np.float64):
    pass


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray | np.generic):
        dtypes = (one.dtype.num, one.dtype.metadata) == (other.dtype.num, other.dtype.metadata)
        return type(one) is type(other) and one.dtype == other.dtype and dtypes and repr(one) == repr(other)
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("value", _SCALARS, ids=lambda value: repr(value.dtype))
def test_scalars_of_numpy_lie_in_arrays_and_keep_their_type(value: np.generic) -> None:
    column = Column(max_rows=10_000)
    column.extend([value] * 1000)
    record = column.record()
    assert [segment["kind"] for segment in record["segments"]] == ["scalar"]
    assert all(_is_same(item, value) for item in column.items())
    loaded = Column(max_rows=10_000)
    loaded.restore(saved(record))
    of_the_tree = decode_tree(b"".join(encode_tree(value)))  # where longlong is int64
    assert all(_is_same(item, of_the_tree) for item in loaded.items())


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (True, np.bool_(False)),
        (np.bool_(True), False),
        (1, np.int64(2)),
        (1.0, np.float64(2)),
        (np.float64(1), _Float64(2)),
        (np.int64(1), np.longlong(2)),
        (np.longlong(1), np.int64(2)),
        (np.datetime64(1, "s"), np.datetime64(2, "ns")),
        (np.float32(1), np.array(2, np.float32)),
        (np.ones(2, np.int64), np.ones(2, np.longlong)),
        (np.ones(2), np.ones(2, _WITH_METADATA)),
        (np.ones(2, _WITH_METADATA), np.ones(2)),
        (np.array([1], "M8[s]"), np.array([1], "M8[ns]")),
        (1, None),
        (1, 2**70),
    ],
    ids=repr,
)
@pytest.mark.parametrize("how", ["append", "extend", "replace"])
def test_a_value_that_is_nearly_of_the_same_kind_keeps_its_type(value: Any, other: Any, how: str) -> None:
    column = Column(max_rows=10_000)
    values = [value] * 300 + [other] * 300
    if how == "append":
        for each in values:
            column.append(each)
    elif how == "extend":
        column.extend(values)
    else:
        column.extend([value] * 600)
        for index in range(300, 600):
            column.replace(index, other)
    assert all(_is_same(item, each) for item, each in zip(column.items(), values, strict=True))
