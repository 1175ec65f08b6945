"""Pickle files and the policy around them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from statevault.codecs import current_pickle_policy, load_pickle, pickle_policy, save_pickle
from statevault.errors import PickleNotAllowedError


def test_without_a_policy_pickles_work(tmp_path: Path) -> None:
    save_pickle({"a": {1, 2}}, tmp_path / "x.pkl")
    assert load_pickle(tmp_path / "x.pkl") == {"a": {1, 2}}
    assert current_pickle_policy() is None


def test_a_policy_forbids_both_ways_and_names_path_and_remedy(tmp_path: Path) -> None:
    save_pickle(1, tmp_path / "x.pkl")
    with pickle_policy(allowed=False) as policy:
        with pytest.raises(PickleNotAllowedError, match=r"y\.pkl.*allow_pickle=True"):
            save_pickle(1, tmp_path / "y.pkl")
        with pytest.raises(PickleNotAllowedError, match=r"x\.pkl.*allow_pickle=True"):
            load_pickle(tmp_path / "x.pkl")
    assert not (tmp_path / "y.pkl").exists()
    assert policy.written == set()


def test_an_allowing_policy_records_what_is_written(tmp_path: Path) -> None:
    with pickle_policy(allowed=True) as policy:
        save_pickle(1, tmp_path / "x.pkl")
        save_pickle(1, str(tmp_path / "y.pkl"))
        load_pickle(tmp_path / "x.pkl")
    assert policy.written == {tmp_path / "x.pkl", tmp_path / "y.pkl"}


def test_the_innermost_policy_counts_and_ends_with_its_block(tmp_path: Path) -> None:
    with pickle_policy(allowed=False):
        with pickle_policy(allowed=True):
            save_pickle(1, tmp_path / "x")
        with pytest.raises(PickleNotAllowedError):
            load_pickle(tmp_path / "x")
    with pytest.raises(KeyError), pickle_policy(allowed=False):
        raise KeyError
    assert load_pickle(tmp_path / "x") == 1


def test_a_policy_does_not_leak_into_other_threads(tmp_path: Path) -> None:
    seen: list[object] = []
    with pickle_policy(allowed=False):
        thread = threading.Thread(target=lambda: seen.append(current_pickle_policy()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_an_object_that_cannot_be_pickled_is_the_callers_error(tmp_path: Path) -> None:
    with pickle_policy(allowed=True) as policy, pytest.raises(Exception, match="pickle"):
        save_pickle(lambda: 0, tmp_path / "x")
    assert policy.written == set()
