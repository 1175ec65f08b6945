"""Data users and collectors by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from statevault.data import DataUser, DataUsersDict
from statevault.data.impls import SequentialBuffer
from statevault.errors import InvalidNameError


def make() -> DataUsersDict:
    return DataUsersDict.from_data_buffers({"one": SequentialBuffer(5)}, two=SequentialBuffer(["a"], 5))


def test_each_user_has_its_collector_under_the_same_name() -> None:
    users = make()
    assert sorted(users) == sorted(users.data_collectors_dict) == ["one", "two"]
    users.data_collectors_dict.acquire("two").collect({"a": 1})
    assert users["two"].get_data() == {"a": [1]}
    assert users["one"].get_data() == []


def test_a_collector_can_be_acquired_once() -> None:
    collectors = make().data_collectors_dict
    collectors.acquire("one")
    with pytest.raises(KeyError, match="already acquired"):
        collectors.acquire("one")
    collectors.acquire("two")
    with pytest.raises(KeyError, match=r"no data collector 'three'; there are \['one', 'two'\]"):
        collectors.acquire("three")


def test_replacing_and_deleting_a_user_takes_its_collector_along() -> None:
    users = make()
    users["one"] = DataUser(SequentialBuffer(5))
    assert users.data_collectors_dict["one"] is users["one"].collector
    del users["two"]
    assert sorted(users.data_collectors_dict) == ["one"]


@pytest.mark.parametrize("name", ["a/b", "", "..", "a\\b"])
def test_a_name_that_is_no_file_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(InvalidNameError):
        DataUsersDict.from_data_buffers({name: SequentialBuffer(5)})


def test_all_users_are_saved_and_loaded(tmp_path: Path) -> None:
    users = make()
    users["one"].collector.collect(1)
    users["two"].collector.collect({"a": 2})
    users.save_state(tmp_path / "data")
    loaded = make()
    loaded.load_state(tmp_path / "data")
    assert loaded["one"].get_data() == [1]
    assert loaded["two"].get_data() == {"a": [2]}


def test_a_user_that_the_state_lacks_is_named(tmp_path: Path) -> None:
    make().save_state(tmp_path / "data")
    more = DataUsersDict.from_data_buffers(one=SequentialBuffer(5), three=SequentialBuffer(5))
    with pytest.raises(FileNotFoundError, match="no data 'three'"):
        more.load_state(tmp_path / "data")
