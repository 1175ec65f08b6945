"""From a collector in one thread to a user in another."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from statevault import time
from statevault.codecs import save_pickle
from statevault.data import DataBuffer, DataUser, SampleFieldsError
from statevault.data.impls import RandomReplacementBuffer, SequentialBuffer
from statevault.errors import FormatError


class ListBuffer(DataBuffer[Any, list[Any]]):
    """A user's buffer in the new spelling, which refuses negative numbers."""

    def __init__(self, max_queue_size: int | None = None) -> None:
        super().__init__(max_queue_size)
        self.values: list[Any] = []

    @override
    def add(self, data: Any, /) -> None:
        if data < 0:
            raise ValueError("negative")
        self.values.append(data)

    @override
    def get_data(self) -> list[Any]:
        return list(self.values)

    @override
    def __len__(self) -> int:
        return len(self.values)


def test_collected_samples_reach_the_buffer_by_an_update() -> None:
    user = DataUser(SequentialBuffer[int](10))
    user.collector.collect(1)
    user.collector.collect(2)
    assert len(user) == 0
    assert len(user.collector) == 2
    user.update()
    assert len(user) == 2
    assert len(user.collector) == 0


def test_get_data_and_sample_update_first() -> None:
    user = DataUser(SequentialBuffer[int](10))
    user.collector.collect(1)
    assert user.get_data() == [1]
    user.collector.collect(1)
    assert user.sample(3).tolist() == [1, 1, 1]
    assert len(user) == 2


def test_a_full_queue_drops_its_oldest_samples() -> None:
    user = DataUser(ListBuffer(3))
    for i in range(10):
        user.collector.collect(i)
    assert user.get_data() == [7, 8, 9]


def test_an_unbounded_queue_drops_nothing() -> None:
    user = DataUser(ListBuffer())
    for i in range(10_000):
        user.collector.collect(i)
    assert user.get_data() == list(range(10_000))
    assert user.count_data_added_since(-math.inf) == 10_000


def test_a_wrong_sample_is_refused_where_it_is_collected() -> None:
    user = DataUser(SequentialBuffer[int](["a"], 10))
    with pytest.raises(SampleFieldsError, match=r"missing \['a'\], unexpected \['b'\]"):
        user.collector.collect({"b": 1})
    assert len(user.collector) == 0


def test_a_sample_that_the_buffer_refuses_does_not_take_others_with_it() -> None:
    user = DataUser(ListBuffer(10))
    for value in (1, -1, 2, 3):
        user.collector.collect(value)
    with pytest.raises(ValueError, match="negative"):
        user.update()
    assert len(user) == 1
    assert user.get_data() == [1, 2, 3]


def test_samples_are_counted_by_the_time_of_their_collection() -> None:
    user = DataUser(SequentialBuffer[int](100))
    for i in range(3):
        user.collector.collect(i)
    middle = math.nextafter(time.time(), math.inf)
    assert user.count_data_added_since(-math.inf) == 0
    user.update()
    while time.time() <= middle:
        pass
    for i in range(2):
        user.collector.collect(i)
    user.update()
    assert user.count_data_added_since(middle) == 2
    assert user.count_data_added_since(-math.inf) == 5
    assert user.count_data_added_since(time.time() + 1) == 0


def test_counted_samples_are_those_offered_not_those_kept() -> None:
    user = DataUser(RandomReplacementBuffer[int](10, replace_probability=0.1))
    for i in range(60):
        user.collector.collect(i)
    user.update()
    assert len(user) == 10
    assert user.count_data_added_since(-math.inf) == 60


def test_collecting_and_using_in_two_threads_loses_and_repeats_nothing() -> None:
    total = 30_000
    user = DataUser(SequentialBuffer[Any](["i", "obs"], total))
    done = threading.Event()
    errors: list[BaseException] = []

    def collect() -> None:
        try:
            for i in range(total):
                user.collector.collect({"i": i, "obs": np.full(2, i)})
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=collect)
    thread.start()
    while not done.is_set():
        data = user.get_data()
        assert len(data["i"]) == len(data["obs"])
        if len(user):
            batch = user.sample(16)
            assert np.array_equal(batch["i"], batch["obs"][:, 0])
    thread.join()
    assert not errors
    assert user.get_data()["i"] == list(range(total))
    assert user.count_data_added_since(-math.inf) == total


def test_users_of_one_buffer_in_many_threads_see_whole_samples() -> None:
    user = DataUser(SequentialBuffer[Any](["a", "b"], 50))
    stop = threading.Event()
    errors: list[BaseException] = []

    def use() -> None:
        try:
            while not stop.is_set():
                data = user.get_data()
                assert data["a"] == data["b"]
                user.count_data_added_since(0.0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(3000):
        user.collector.collect({"a": i, "b": i})
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors


class TestState:
    def test_samples_and_times_are_kept_those_still_waiting_too(self, tmp_path: Path) -> None:
        user = DataUser(SequentialBuffer[Any](["a", "obs"], 100))
        for i in range(5):
            user.collector.collect({"a": i, "obs": np.full(3, i)})
        user.update()
        between = time.time()
        for i in range(5, 8):
            user.collector.collect({"a": i, "obs": np.full(3, i)})
        user.save_state(tmp_path / "user")
        assert sorted(p.name for p in (tmp_path / "user").iterdir()) == ["buffer.tree", "timestamps.tree"]

        loaded = DataUser(SequentialBuffer[Any](["a", "obs"], 100))
        loaded.collector.collect({"a": -1, "obs": np.full(3, -1)})  # of a life that the load ends
        loaded.load_state(tmp_path / "user")
        assert len(loaded.collector) == 0
        data = loaded.get_data()
        assert data["a"] == list(range(8))
        assert [int(o[0]) for o in data["obs"]] == list(range(8))
        assert loaded.count_data_added_since(-math.inf) == 8
        assert loaded.count_data_added_since(between) == 3

    def test_a_buffer_without_state_of_its_own_is_saved_all_the_same(self, tmp_path: Path) -> None:
        user = DataUser(ListBuffer(10))
        user.collector.collect(1)
        user.save_state(tmp_path / "user")
        loaded = DataUser(ListBuffer(10))
        loaded.load_state(tmp_path / "user")
        assert len(loaded) == 0
        assert loaded.count_data_added_since(-math.inf) == 1

    def test_a_folder_of_pamiq_core_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "user").mkdir()
        save_pickle([5, 6], tmp_path / "user" / "buffer.pkl")
        save_pickle([100.0, 200.0], tmp_path / "user" / "timestamps.pkl")
        user = DataUser(SequentialBuffer[int](10))
        user.load_state(tmp_path / "user")
        assert user.get_data() == [5, 6]
        assert user.count_data_added_since(150.0) == 1

    def test_missing_and_foreign_files_are_refused_before_anything_changes(self, tmp_path: Path) -> None:
        user = DataUser(SequentialBuffer[int](10))
        user.collector.collect(1)
        with pytest.raises(FileNotFoundError, match=r"timestamps\.tree"):
            user.load_state(tmp_path / "nothing")
        other = DataUser(SequentialBuffer[int](10))
        other.save_state(tmp_path / "user")
        (tmp_path / "user" / "buffer.tree").write_bytes(b"not a tree")
        with pytest.raises(FormatError, match=r"buffer\.tree"):
            user.load_state(tmp_path / "user")
        assert user.get_data() == [1]


class TestCustomBuffers:
    def test_the_default_sample_draws_from_get_data(self) -> None:
        user = DataUser(ListBuffer(10))
        for i in range(5):
            user.collector.collect(i)
        batch = user.sample(20, rng=1)
        assert batch.shape == (20,)
        assert set(batch.tolist()) <= set(range(5))
        with pytest.raises(ValueError, match="empty"):
            DataUser(ListBuffer(10)).sample(1)

    def test_the_two_spellings_of_the_constructor(self) -> None:
        assert ListBuffer(3).max_queue_size == 3
        assert ListBuffer(3).max_size == 3
        assert ListBuffer().max_queue_size is None

        class Named(ListBuffer):
            def __init__(self) -> None:
                DataBuffer.__init__(self, ["a", "b"], 7)

        assert Named().max_queue_size == Named().max_size == 7
        assert Named().collecting_data_names == {"a", "b"}
        with pytest.raises(SampleFieldsError, match=r"missing \['b'\]"):
            Named().validate({"a": 1, "more": 2})
        Named().validate({"a": 1, "b": 2, "more": 3})

    @pytest.mark.parametrize(
        ("args", "kwargs", "error"),
        [
            ((["a"],), {}, TypeError),
            ((3,), {"max_size": 3}, TypeError),
            ((3,), {"max_queue_size": 3}, TypeError),
            ((["a"], 3), {"max_queue_size": 3}, TypeError),
            ((-1,), {}, ValueError),
            (("ab", 3), {}, TypeError),
        ],
    )
    def test_wrong_arguments_are_refused(self, args: Any, kwargs: Any, error: type[Exception]) -> None:
        class Free(ListBuffer):
            def __init__(self) -> None:
                DataBuffer.__init__(self, *args, **kwargs)

        with pytest.raises(error):
            Free()

    def test_a_subclass_may_make_max_size_a_property(self) -> None:
        class Sized(ListBuffer):
            @property
            @override
            def max_size(self) -> int:
                return 42

            @max_size.setter
            def max_size(self, value: int) -> None:
                raise AssertionError("the base class must not assign it")

        assert Sized(3).max_size == 42
