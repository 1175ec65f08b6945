"""The built-in buffers: spellings, what they keep, what they return, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from statevault.codecs import save_pickle
from statevault.data import SampleFieldsError
from statevault.data.impls import (
    DictRandomReplacementBuffer,
    DictSequentialBuffer,
    RandomReplacementBuffer,
    SequentialBuffer,
)
from statevault.errors import FormatError, UnsupportedTypeError

FIELD_BUFFERS: list[Callable[[], Any]] = [
    lambda: SequentialBuffer(["a", "b"], 4),
    lambda: SequentialBuffer(["a", "b"], max_size=4),
    lambda: SequentialBuffer(collecting_data_names=["a", "b"], max_size=4),
    lambda: DictSequentialBuffer(["a", "b"], 4),
    lambda: DictSequentialBuffer(keys=["a", "b"], max_size=4),
    lambda: RandomReplacementBuffer(["a", "b"], 4),
    lambda: RandomReplacementBuffer(["a", "b"], max_size=4, replace_probability=0.5),
    lambda: RandomReplacementBuffer(["a", "b"], 4, 0.5),
    lambda: RandomReplacementBuffer(collecting_data_names=["a", "b"], max_size=4, expected_survival_length=100),
    lambda: DictRandomReplacementBuffer(["a", "b"], 4, None, 100),
]
ITEM_BUFFERS: list[Callable[[], Any]] = [
    lambda: SequentialBuffer(4),
    lambda: SequentialBuffer(max_size=4),
    lambda: RandomReplacementBuffer(4),
    lambda: RandomReplacementBuffer(4, 0.5),
    lambda: RandomReplacementBuffer(4, None, 100),
    lambda: RandomReplacementBuffer(max_size=4, replace_probability=0.5),
]


@pytest.mark.parametrize("make", FIELD_BUFFERS)
def test_a_buffer_with_fields_returns_a_dict_of_lists(make: Callable[[], Any]) -> None:
    buffer = make()
    buffer.add({"b": "x", "a": 1})
    buffer.add({"a": 2, "b": "y"})
    assert buffer.get_data() == {"a": [1, 2], "b": ["x", "y"]}
    assert list(buffer.get_data()) == ["a", "b"]
    assert len(buffer) == 2
    assert buffer.max_size == 4
    assert buffer.collecting_data_names == {"a", "b"}
    assert not buffer.is_full


@pytest.mark.parametrize("make", ITEM_BUFFERS)
def test_a_buffer_without_fields_returns_a_list_of_any_items(make: Callable[[], Any]) -> None:
    buffer = make()
    items = [1, "two", {"three": 3}, (4.0, None)]
    for item in items:
        buffer.add(item)
    assert buffer.get_data() == items
    assert buffer.is_full
    assert buffer.collecting_data_names == set()


@pytest.mark.parametrize("make", FIELD_BUFFERS)
def test_a_sample_with_other_fields_is_refused_by_name(make: Callable[[], Any]) -> None:
    buffer = make()
    with pytest.raises(SampleFieldsError, match=r"missing \['b'\], unexpected \['c'\]"):
        buffer.add({"a": 1, "c": 2})
    with pytest.raises(KeyError, match="got int"):
        buffer.add(3)
    with pytest.raises(ValueError, match="missing"):
        buffer.add({})
    assert len(buffer) == 0


def test_a_full_random_replacement_buffer_refuses_wrong_samples_too() -> None:
    buffer: RandomReplacementBuffer[int] = RandomReplacementBuffer(["a"], 1, 0.0)
    buffer.add({"a": 1})
    with pytest.raises(SampleFieldsError, match="unexpected"):
        buffer.add({"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (SequentialBuffer, TypeError),
        (lambda: SequentialBuffer(["a"]), TypeError),  # type: ignore[call-overload]
        (lambda: SequentialBuffer(3, 4), TypeError),  # type: ignore[call-overload]
        (lambda: SequentialBuffer("abc", 4), TypeError),
        (lambda: SequentialBuffer(["a", "a"], 4), ValueError),
        (lambda: SequentialBuffer(-1), ValueError),
        (RandomReplacementBuffer, TypeError),
        (lambda: RandomReplacementBuffer(4, max_size=4), TypeError),  # type: ignore[call-overload]
        (lambda: RandomReplacementBuffer(4, probability=0.5), TypeError),  # type: ignore[call-overload]
        (lambda: RandomReplacementBuffer(4, 0.5, None, 3), TypeError),  # type: ignore[call-overload]
        (lambda: RandomReplacementBuffer(4, 0.5, 100), ValueError),
        (lambda: RandomReplacementBuffer(4, 1.5), ValueError),
        (lambda: RandomReplacementBuffer(0), ValueError),
        (lambda: RandomReplacementBuffer(4, None, 0), ValueError),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_the_sequential_buffer_keeps_the_newest() -> None:
    buffer: SequentialBuffer[int] = SequentialBuffer(3)
    for i in range(10):
        buffer.add(i)
    assert buffer.get_data() == [7, 8, 9]


def test_a_buffer_of_size_zero_keeps_nothing() -> None:
    buffer: SequentialBuffer[int] = SequentialBuffer(0)
    buffer.add(1)
    assert buffer.get_data() == []


@pytest.mark.parametrize(
    ("max_size", "survival_length", "expected"),
    [(100, 1000, 100 / 1000 * (np.log(100) + np.euler_gamma)), (100, 10, 1.0), (1, 10**9, np.euler_gamma / 1e9)],
)
def test_the_replace_probability_follows_from_the_survival_length(
    max_size: int, survival_length: int, expected: float
) -> None:
    buffer = RandomReplacementBuffer[int](max_size, expected_survival_length=survival_length)
    assert buffer.replace_probability == pytest.approx(expected)


def test_samples_are_expected_to_be_gone_after_the_survival_length() -> None:
    length = 500
    gone = []
    for seed in range(40):
        buffer: RandomReplacementBuffer[int] = RandomReplacementBuffer(20, None, length, seed=seed)
        for _ in range(20):
            buffer.add(-1)
        steps = 0
        while -1 in buffer.get_data():
            buffer.add(steps)
            steps += 1
        gone.append(steps)
    # The mean of 40 runs, whose standard deviation is about a third of it; the seeds fix the result.
    assert 0.8 * length < np.mean(gone) < 1.25 * length


def test_a_replace_probability_of_zero_keeps_the_first_samples() -> None:
    buffer: RandomReplacementBuffer[int] = RandomReplacementBuffer(3, 0.0)
    for i in range(100):
        buffer.add(i)
    assert buffer.get_data() == [0, 1, 2]


class TestValues:
    """What comes back is what was added: the same types, the same bits."""

    @pytest.mark.parametrize(
        "values",
        [
            [True, False],
            [1, -(2**63), 2**63 - 1],
            [2**63, 1],
            [1, 2**100],
            [0.5, float("inf"), -0.0],
            [1, 2.0, True, None, "x"],
            [np.float32(1.5), np.float32(2.5)],
            [np.float32(1.5), np.float64(2.5)],
            [np.int8(3), 3],
            [[1, 2], [3]],
            [{"deep": [1]}, ("t",)],
            [1j],
        ],
    )
    def test_plain_values(self, values: list[Any]) -> None:
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        for value in values:
            buffer.add(value)
        data = buffer.get_data()
        assert data == values
        assert [type(v) for v in data] == [type(v) for v in values]

    @pytest.mark.parametrize("dtype", ["?", "i1", "u2", "f2", "f4", "f8", "c8", "i8", "<U3", "M8[s]", ">f4"])
    @pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
    def test_arrays(self, dtype: str, shape: tuple[int, ...]) -> None:
        values = [np.ones(shape, "i1").astype(dtype) for _ in range(3)]
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        for value in values:
            buffer.add(value)
        for value, got in zip(values, buffer.get_data(), strict=True):
            assert type(got) is np.ndarray
            assert got.dtype == value.dtype
            assert got.shape == shape
            assert got.tobytes() == value.tobytes()

    def test_arrays_that_are_not_contiguous(self) -> None:
        source = np.arange(24).reshape(4, 6)
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        buffer.add(source[:, ::2])
        buffer.add(source.T[:3].T[:, ::-1])
        first, second = buffer.get_data()
        assert np.array_equal(first, source[:, ::2])
        assert np.array_equal(second, source.T[:3].T[:, ::-1])

    @pytest.mark.parametrize(
        "dtype",
        [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.int64, torch.complex64, torch.uint8],
    )
    @pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
    def test_tensors_can_be_stacked(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        values = [torch.full(shape, i).to(dtype) for i in range(3)]
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        for value in values:
            buffer.add(value)
        data = buffer.get_data()
        assert [t.dtype for t in data] == [dtype] * 3
        assert torch.stack(data).view(torch.uint8).equal(torch.stack(values).view(torch.uint8))

    def test_tensors_with_a_graph_and_subclasses_stay_the_objects_they_are(self) -> None:
        parameter = torch.nn.Parameter(torch.ones(2))
        tracked = torch.ones(2, requires_grad=True) * 2
        sparse = torch.eye(2).to_sparse()
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        for value in (parameter, tracked, sparse):
            buffer.add(value)
        assert [a is b for a, b in zip(buffer.get_data(), (parameter, tracked, sparse), strict=True)] == [True] * 3

    def test_inference_tensors_come_back_usable_by_autograd(self) -> None:
        with torch.inference_mode():
            value = torch.ones(3)
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        buffer.add(value)
        weight = torch.ones(3, requires_grad=True)
        (weight * buffer.get_data()[0]).sum().backward()
        assert weight.grad is not None

    def test_changing_an_added_array_does_not_change_the_buffer(self) -> None:
        observation = np.zeros(3)
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        buffer.add(observation)
        observation += 1
        assert buffer.get_data()[0].tolist() == [0, 0, 0]

    def test_arrays_from_get_data_are_read_only(self) -> None:
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        buffer.add(np.zeros(3))
        with pytest.raises(ValueError, match="read-only"):
            buffer.get_data()[0][0] = 1

    def test_data_in_hand_does_not_change_when_samples_are_replaced(self) -> None:
        buffer: RandomReplacementBuffer[Any] = RandomReplacementBuffer(8, seed=0)
        for i in range(8):
            buffer.add(torch.full((4,), float(i)))
        in_hand = buffer.get_data()
        for _ in range(50):
            buffer.add(torch.full((4,), -1.0))
        assert [t[0].item() for t in in_hand] == list(range(8))
        assert any(t[0].item() == -1 for t in buffer.get_data())


class TestSample:
    def test_it_draws_stacked_batches_by_field(self) -> None:
        buffer = SequentialBuffer[Any](["obs", "tensor", "reward", "done", "info"], 100, seed=3)
        for i in range(250):
            obs, tensor = np.full((2, 2), i, np.float32), torch.full((3,), i, dtype=torch.bfloat16)
            buffer.add({"obs": obs, "tensor": tensor, "reward": float(i), "done": i % 2 == 0, "info": {"i": i}})
        batch = buffer.sample(32)
        assert batch["obs"].shape == (32, 2, 2)
        assert batch["obs"].dtype == np.float32
        assert batch["tensor"].shape == (32, 3)
        assert batch["tensor"].dtype == torch.bfloat16
        assert batch["done"].dtype == np.bool_
        # The fields of one sample stay together.
        for k in range(32):
            i = int(batch["reward"][k])
            assert 150 <= i < 250
            assert batch["obs"][k, 0, 0] == i
            assert batch["tensor"][k].equal(torch.full((3,), i, dtype=torch.bfloat16))
            assert batch["done"][k] == (i % 2 == 0)
            assert batch["info"][k] == {"i": i}

    def test_a_batch_has_memory_of_its_own(self) -> None:
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        buffer.add(np.zeros(3))
        buffer.sample(2)[:] = 1
        assert buffer.get_data()[0].tolist() == [0, 0, 0]

    def test_all_samples_are_drawn_equally_often(self) -> None:
        buffer: SequentialBuffer[int] = SequentialBuffer(10)
        for i in range(25):
            buffer.add(i)
        values, counts = np.unique(buffer.sample(100_000, rng=0), return_counts=True)
        assert values.tolist() == list(range(15, 25))
        # 10,000 expected, standard deviation 95; the seed fixes the result.
        assert abs(counts - 10_000).max() < 500

    def test_a_seed_and_a_generator_fix_the_draw(self) -> None:
        buffer: SequentialBuffer[int] = SequentialBuffer(10)
        for i in range(10):
            buffer.add(i)
        assert buffer.sample(8, rng=5).tolist() == buffer.sample(8, rng=np.random.default_rng(5)).tolist()
        assert buffer.sample(8).tolist() != buffer.sample(8).tolist()

    def test_values_that_do_not_stack_come_as_a_list(self) -> None:
        buffer: SequentialBuffer[Any] = SequentialBuffer(10)
        for value in (np.zeros(2), np.zeros(3)):
            buffer.add(value)
        batch = buffer.sample(6, rng=0)
        assert isinstance(batch, list)
        assert {v.shape for v in batch} == {(2,), (3,)}

    def test_an_empty_buffer_says_so(self) -> None:
        with pytest.raises(ValueError, match="empty"):
            SequentialBuffer[int](3).sample(1)
        with pytest.raises(ValueError, match="-1"):
            SequentialBuffer[int](3).sample(-1)


class TestState:
    def fill(self, buffer: Any, steps: int) -> None:
        for i in range(steps):
            buffer.add({"obs": np.full(50, i), "tensor": torch.full((2,), i, dtype=torch.bfloat16), "any": (i, "x")})

    @pytest.mark.parametrize("steps", [0, 1, 10, 1000, 5000])
    @pytest.mark.parametrize("cls", [SequentialBuffer, RandomReplacementBuffer])
    def test_a_loaded_buffer_goes_on_like_the_saved_one(self, cls: Any, steps: int, tmp_path: Path) -> None:
        fields = ["obs", "tensor", "any"]
        saved, loaded = cls(fields, 400, seed=1), cls(fields, 400, seed=2)
        self.fill(saved, steps)
        saved.save_state(tmp_path / "buffer")
        assert [p.name for p in tmp_path.iterdir()] == ["buffer.tree"]
        loaded.load_state(tmp_path / "buffer")
        for _ in range(2):
            one, other = saved.get_data(), loaded.get_data()
            assert np.array_equal(one["obs"], other["obs"])
            assert [t.tolist() for t in one["tensor"]] == [t.tolist() for t in other["tensor"]]
            assert {t.dtype for t in other["tensor"]} <= {torch.bfloat16}
            assert one["any"] == other["any"]
            # Also the random numbers are the same from here on.
            self.fill(saved, 300)
            self.fill(loaded, 300)
            assert np.array_equal(saved.sample(7)["obs"], loaded.sample(7)["obs"])

    def test_a_smaller_buffer_takes_the_newest_samples(self, tmp_path: Path) -> None:
        big, small = SequentialBuffer[int](100), SequentialBuffer[int](10)
        for i in range(100):
            big.add(i)
        big.save_state(tmp_path / "b")
        small.load_state(tmp_path / "b")
        assert small.get_data() == list(range(90, 100))
        small.add(100)
        assert small.get_data() == list(range(91, 101))

    def test_the_order_of_fields_may_change(self, tmp_path: Path) -> None:
        one, other = SequentialBuffer[int](["a", "b"], 5), SequentialBuffer[int](["b", "a"], 5)
        one.add({"a": 1, "b": 2})
        one.save_state(tmp_path / "b")
        other.load_state(tmp_path / "b")
        assert other.get_data() == {"b": [2], "a": [1]}

    @pytest.mark.parametrize("other", [["a"], ["a", "c"], None])
    def test_other_fields_are_refused_and_leave_the_buffer_as_it_was(self, other: Any, tmp_path: Path) -> None:
        buffer = SequentialBuffer[int](["a", "b"], 5)
        buffer.add({"a": 1, "b": 2})
        buffer.save_state(tmp_path / "b")
        target: Any = SequentialBuffer(5) if other is None else SequentialBuffer(other, 5)
        with pytest.raises(FormatError, match=r"\['a', 'b'\]"):
            target.load_state(tmp_path / "b")
        assert len(target) == 0

    def test_a_foreign_tree_is_refused(self, tmp_path: Path) -> None:
        from statevault.codecs import write_tree

        records: list[Any] = [
            [1, 2],
            {"fields": None, "columns": [], "rng": {}},
            {"fields": None, "columns": [{"segments": [5], "offset": 0, "length": 1}], "rng": {}},
            {"fields": None, "columns": [{"segments": [], "offset": 1, "length": 0}], "rng": {}},
            {"fields": None, "columns": [{"segments": [], "offset": 0, "length": 0}], "rng": {"state": 1}},
            {
                "fields": None,
                "columns": [
                    {"segments": [{"kind": "tensor:nn", "rows": np.zeros(1)}], "offset": 0, "length": 1},
                ],
                "rng": {},
            },
        ]
        for record in records:
            write_tree(record, tmp_path / "b.tree")
            with pytest.raises(FormatError):
                SequentialBuffer[int](5).load_state(tmp_path / "b")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"b\.tree"):
            SequentialBuffer[int](5).load_state(tmp_path / "b")

    def test_a_value_that_needs_pickle_is_refused_at_save(self, tmp_path: Path) -> None:
        buffer: SequentialBuffer[Any] = SequentialBuffer(5)
        buffer.add(object())
        with pytest.raises(UnsupportedTypeError, match="object"):
            buffer.save_state(tmp_path / "b")

    def test_pickles_of_pamiq_core_are_read(self, tmp_path: Path) -> None:
        save_pickle({"a": [1, 2], "b": [3.0, 4.0]}, tmp_path / "old.pkl")
        save_pickle([{"a": 1, "b": 3.0}, {"b": 4.0, "a": 2}], tmp_path / "new.pkl")
        save_pickle([7, 8, 9], tmp_path / "items.pkl")
        for name in ("old", "new"):
            buffer = SequentialBuffer[float](["a", "b"], 5)
            buffer.load_state(tmp_path / name)
            assert buffer.get_data() == {"a": [1, 2], "b": [3.0, 4.0]}
        items = RandomReplacementBuffer[int](2)
        items.load_state(tmp_path / "items")
        assert items.get_data() == [8, 9]
