"""Retention in a launched system: what a keeper says, and on a storage that fails in the middle of a removal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from statevault.errors import StorageError
from statevault.launcher import launch
from statevault.state_persistence import (
    BestStatesKeeper,
    KeepAny,
    KeepBest,
    KeepLatest,
    LatestStatesKeeper,
    PolicyStatesKeeper,
    StatesKeeper,
    StateStore,
)
from statevault.storage import Body, LocalStorage
from tests.launcher.agent import Parts
from tests.state_persistence.last_two import LastTwo


def test_a_launched_system_keeps_what_a_policy_says(tmp_path: Path) -> None:
    parts = Parts()
    rewards = iter([1, 9])
    config = {
        "states_dir": tmp_path,
        "save_state_interval": 0.05,
        "max_uptime": 1.0,
        "web_api_address": None,
        "state_metadata": lambda: {"reward": next(rewards, 0)},
        "states_keeper": PolicyStatesKeeper(KeepAny((KeepLatest(2), KeepBest(1, metric="reward")))),
    }
    launch(parts.interaction, parts.models, parts.data, parts.trainers, config)
    with StateStore(tmp_path) as store:
        best, before, last = store.states()
        assert best.metadata == {"reward": 9}
        assert last.metadata == {"reward": 0, "exit": "clean"}
        assert last.sequence == before.sequence + 1 > 4


def test_a_launched_system_loses_nothing_by_a_metric_that_no_state_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = Parts()
    saves = iter([True] * 4)
    config = {
        "states_dir": tmp_path,
        "save_state_condition": lambda: next(saves, False),
        "max_uptime": 1.0,
        "web_api_address": None,
        "state_metadata": lambda: {"eval_reward": 1.5},
        "states_keeper": BestStatesKeeper(tmp_path, 1, "reward"),
    }
    launch(parts.interaction, parts.models, parts.data, parts.trainers, config)
    with StateStore(tmp_path) as store:
        assert len(store.names()) == 5 - len(list(saves))
    assert caplog.text.count("BestStatesKeeper can't judge the states of") == 1
    assert "Did you mean 'eval_reward'?" in caplog.text


@pytest.mark.parametrize(
    "keeper", [lambda: LatestStatesKeeper("", 2), LastTwo], ids=["chooses from the store", "is told"]
)
@pytest.mark.parametrize("call", ["put _vault/intents/", "put _vault/tombstones/", "delete 0.state/"])
def test_an_outage_in_the_middle_of_a_removal_leaves_no_state_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeper: Callable[[], StatesKeeper], call: str
) -> None:
    put, delete = LocalStorage.put, LocalStorage.delete
    failed: list[str] = []

    def fail(what: str) -> None:
        if what.startswith(call) and not failed:
            failed.append(what)
            raise StorageError("the disk is away for a moment")

    def fail_put(self: LocalStorage, key: str, body: Body, **options: Any) -> int:
        fail(f"put {key}")
        return put(self, key, body, **options)

    def fail_delete(self: LocalStorage, keys: Sequence[str]) -> None:
        for key in keys:
            fail(f"delete {key}")
        delete(self, keys)

    def looks_done() -> bool:
        return bool(failed) and not (tmp_path / "0.state").exists() and not (tmp_path / "1.state").exists()

    asked = 0

    def condition() -> bool:
        nonlocal asked
        asked += 1
        if asked > 4 and looks_done():
            signal.raise_signal(signal.SIGTERM)
        return asked <= 4

    with StateStore(tmp_path, incremental=False) as store:
        for number in range(2):
            store.save_state(name=f"{number}.state")
    monkeypatch.setattr(LocalStorage, "put", fail_put)
    monkeypatch.setattr(LocalStorage, "delete", fail_delete)
    parts = Parts()
    config = {
        "states_dir": tmp_path,
        "save_state_condition": condition,
        "states_keeper": keeper(),
        "incremental": False,
        "states_cleanup_interval": 0.05,
        "max_uptime": 60.0,
        "web_api_address": None,
    }
    launch(parts.interaction, parts.models, parts.data, parts.trainers, config)
    assert failed
    with StateStore(tmp_path) as store:
        names = store.names()
        assert len(names) == 2
        assert {path.name for path in tmp_path.iterdir()} == {"_vault", *names}
