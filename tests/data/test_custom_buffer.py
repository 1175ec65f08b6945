"""A buffer written as PAMIQ-Core's documentation teaches it works in a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import pytest
from typing_extensions import override

from statevault.data import DataBuffer, DataUsersDict
from statevault.state_persistence import read_tree, write_tree

V = TypeVar("V")


class WindowBuffer(DataBuffer[V]):
    """Keeps the last samples as one list per field; checks and bounds by the attributes of the base class."""

    def __init__(self, collecting_data_names: list[str], max_size: int) -> None:
        super().__init__(collecting_data_names, max_size)
        self._lists: dict[str, list[V]] = {name: [] for name in collecting_data_names}

    @override
    def add(self, data: dict[str, V], /) -> None:
        for name in self._collecting_data_names:
            if name not in data:
                raise KeyError(f"no {name}")
        for name, values in self._lists.items():
            values.append(data[name])
            del values[: -self.max_size]

    @override
    def get_data(self) -> dict[str, list[V]]:
        return {name: list(values) for name, values in self._lists.items()}

    @override
    def __len__(self) -> int:
        return min(map(len, self._lists.values()))

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        write_tree(self._lists, path / "lists.tree")

    @override
    def load_state(self, path: Path) -> None:
        self._lists = read_tree(path / "lists.tree")


def test_it_collects_and_is_saved(tmp_path: Path) -> None:
    users = DataUsersDict.from_data_buffers(window=WindowBuffer[Any](["obs", "reward"], 3))
    collector = users.data_collectors_dict.acquire("window")
    for i in range(5):
        collector.collect({"obs": [i], "reward": i / 2})
        users["window"].update()
    users.save_state(tmp_path / "data")
    loaded = DataUsersDict.from_data_buffers(window=WindowBuffer[Any](["obs", "reward"], 3))
    loaded.load_state(tmp_path / "data")
    assert loaded["window"].get_data() == {"obs": [[2], [3], [4]], "reward": [1.0, 1.5, 2.0]}


def test_sample_works_without_being_written() -> None:
    buffer = WindowBuffer[Any](["obs", "reward"], 3)
    for i in range(3):
        buffer.add({"obs": [i], "reward": i / 2})
    batch = buffer.sample(10, rng=0)
    assert batch["reward"].shape == (10,)
    assert [obs[0] / 2 for obs in batch["obs"]] == batch["reward"].tolist()


def test_a_missing_field_is_a_key_error() -> None:
    users = DataUsersDict.from_data_buffers(window=WindowBuffer[Any](["obs", "reward"], 3))
    with pytest.raises(KeyError, match="reward"):
        users["window"].collector.collect({"obs": 1})
