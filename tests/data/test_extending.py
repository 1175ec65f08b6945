"""Adding many samples at once does what adding them one after the other does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from statevault.data import DataUser, SampleFieldsError
from statevault.data.columns import Column
from statevault.data.impls import RandomReplacementBuffer, SequentialBuffer

COUNT = 700
RUNS: dict[str, list[Any]] = {
    "floats": [i / 7 for i in range(COUNT)],
    "ints": list(range(COUNT)),
    "ints beyond 64 bits": [2**63 - COUNT + 2 * i for i in range(COUNT)],
    "bools": [i % 3 == 0 for i in range(COUNT)],
    "floats and ints": [float(i) if i % 100 else i for i in range(COUNT)],
    "scalars": [np.float32(i) for i in range(COUNT)],
    "scalars of two types": [np.float32(i) if i < 500 else np.float64(i) for i in range(COUNT)],
    "arrays": [np.full((3, 2), i, np.float32) for i in range(COUNT)],
    "arrays in Fortran's order": [np.asfortranarray(np.arange(6.0).reshape(3, 2) + i) for i in range(COUNT)],
    "arrays of no dimension": [np.array(i) for i in range(COUNT)],
    "empty arrays": [np.empty((0, 2))] * COUNT,
    "arrays of two types": [np.full(2, i, np.int32 if i < 400 else np.int64) for i in range(COUNT)],
    "arrays of two shapes": [np.full(2 if i < 400 else 3, i) for i in range(COUNT)],
    "tensors": [torch.full((2, 2), i) for i in range(COUNT)],
    "tensors without a dtype in numpy": [torch.full((2,), i, dtype=torch.bfloat16) for i in range(COUNT)],
    "transposed tensors": [torch.arange(6).reshape(2, 3).T + i for i in range(COUNT)],
    "tensors, some with a graph": [torch.full((2,), float(i), requires_grad=i == 300) for i in range(COUNT)],
    "texts": [str(i) for i in range(COUNT)],
    "all sorts": [[i, float(i), str(i), None, np.zeros(2)][i % 5] for i in range(COUNT)],
}


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.requires_grad == other.requires_grad and torch.equal(one, other)
    return bool(one == other)


@pytest.mark.parametrize("values", RUNS.values(), ids=RUNS.keys())
def test_a_column_extended_equals_one_appended_to(values: list[Any]) -> None:
    extended, appended = Column(max_rows=COUNT, segment_bytes=1000), Column(max_rows=COUNT, segment_bytes=1000)
    for start in (0, 10, 300):
        extended.extend(values[start : {0: 10, 10: 300, 300: None}[start]])
    for value in values:
        appended.append(value)
    assert len(extended) == COUNT
    assert all(map(same, extended.items(), values))
    assert all(map(same, appended.items(), values))


@pytest.mark.parametrize("kind", ["floats", "arrays", "tensors", "empty arrays"])
def test_values_of_one_kind_lie_in_arrays_however_they_were_added(kind: str) -> None:
    extended, appended = Column(max_rows=COUNT), Column(max_rows=COUNT)
    extended.extend(RUNS[kind])
    for value in RUNS[kind]:
        appended.append(value)
    kinds = [segment["kind"] for segment in extended.record()["segments"]]
    assert "object" not in kinds
    assert kinds == [segment["kind"] for segment in appended.record()["segments"]]


def test_extending_does_not_change_what_was_handed_out() -> None:
    column = Column(max_rows=COUNT)
    column.extend(RUNS["arrays"][:5])
    record, items = column.record(), column.items()
    column.extend(RUNS["arrays"][5:])
    assert all(map(same, items, RUNS["arrays"][:5]))
    assert len(record["segments"][0]["rows"].array) == 5


def test_what_is_added_is_a_copy() -> None:
    value = np.zeros(3)
    buffer = SequentialBuffer[Any](10)
    buffer.extend([value] * 3)
    value[:] = 1
    assert np.array_equal(buffer.sample(3), np.zeros((3, 3)))


@pytest.mark.parametrize("kind", ["floats", "arrays", "tensors"])
@pytest.mark.parametrize("segment_bytes", [64, 1 << 20])
def test_a_batch_gathers_its_rows_from_few_and_from_many_segments(kind: str, segment_bytes: int) -> None:
    column = Column(max_rows=8 if segment_bytes == 64 else COUNT, segment_bytes=segment_bytes)
    column.extend(RUNS[kind])
    column.drop_oldest(13)
    picks = np.random.default_rng(0).integers(0, COUNT - 13, size=50)
    batch = column.gather(picks)
    for got, pick in zip(batch, picks.tolist(), strict=True):
        assert np.array_equal(np.asarray(got), np.asarray(RUNS[kind][13 + pick]))


def test_a_batch_has_memory_of_its_own() -> None:
    column = Column(max_rows=8, segment_bytes=64)
    column.extend(RUNS["arrays"])
    column.gather(np.arange(50))[:] = -1
    assert all(map(same, column.items(), RUNS["arrays"]))


@pytest.mark.parametrize("size", [1, 5, 256, 300, 2000])
def test_a_sequential_buffer_keeps_the_newest(size: int) -> None:
    buffer = SequentialBuffer[Any](["x"], size)
    buffer.extend({"x": i} for i in range(COUNT))
    assert buffer.get_data() == {"x": list(range(COUNT))[-size:]}


def test_the_same_samples_are_replaced_at_random() -> None:
    one, other = (RandomReplacementBuffer[Any](100, 0.5, seed=1) for _ in range(2))
    one.extend(range(COUNT))
    for i in range(COUNT):
        other.add(i)
    assert one.get_data() == other.get_data()


@pytest.mark.parametrize(
    "buffer", [SequentialBuffer(["x", "y"], 400), RandomReplacementBuffer(["x", "y"], 400)], ids=["newest", "random"]
)
def test_samples_before_a_refused_one_are_added(buffer: Any) -> None:
    samples = iter([{"x": i, "y": float(i)} if i != 300 else {"x": i} for i in range(310)])
    with pytest.raises(SampleFieldsError, match="missing"):
        buffer.extend(samples)
    assert buffer.get_data() == {"x": list(range(300)), "y": [float(i) for i in range(300)]}
    assert len(list(samples)) == 9


def test_a_refused_sample_leaves_a_full_buffer_at_its_size() -> None:
    buffer = SequentialBuffer[Any](["x"], 10)
    with pytest.raises(SampleFieldsError):
        buffer.extend([*({"x": i} for i in range(30)), {"z": 0}])
    assert buffer.get_data() == {"x": list(range(20, 30))}


def test_a_user_loses_only_the_refused_sample_of_many() -> None:
    user = DataUser(SequentialBuffer[Any](["x"], 1000))
    samples: list[dict[str, Any]] = [{"x": i} for i in range(600)]
    for sample in samples:
        user.collector.collect(sample)
    samples[300].clear()  # changed after it was collected
    with pytest.raises(SampleFieldsError):
        user.update()
    assert (len(user), len(user.collector), user.count_data_added_since(0.0)) == (300, 299, 300)
    user.update()
    assert user.get_data() == {"x": [*range(300), *range(301, 600)]}
    assert user.count_data_added_since(0.0) == 599


class Doubling(SequentialBuffer[int]):
    """Adds in its own way."""

    def add(self, data: int, /) -> None:
        super().add(2 * data)


class Rounding(RandomReplacementBuffer[float]):
    """Adds in its own way."""

    def add(self, data: float, /) -> None:
        super().add(round(data))


def test_a_subclass_that_adds_in_its_own_way_is_asked_for_every_sample() -> None:
    doubling, rounding = DataUser(Doubling(1000)), DataUser(Rounding(1000))
    for i in range(5):
        doubling.collector.collect(i)
        rounding.collector.collect(i + 0.2)
    assert doubling.get_data() == [0, 2, 4, 6, 8]
    assert rounding.get_data() == [0, 1, 2, 3, 4]
