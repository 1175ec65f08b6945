"""A keeper of policies on a storage that fails now and then: what it has chosen goes in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typing_extensions import override

from statevault import KeepAny, KeepBest, KeepLatest, LatestStatesKeeper, PolicyStatesKeeper, StateStore
from statevault.errors import StateVaultError, StorageError
from statevault.persistence import PolicyPersistence, World
from tests.persistence.worlds import STATE_DICT, Trainer
from tests.state_persistence.last_two import LastTwo
from tests.state_persistence.storages import DictStorage, FailingStorage, Failure


def saver(store: StateStore, keeper: Any) -> Callable[[int, int, int], Any]:
    """The function that saves the policy of an epoch."""
    world = World(nn.Linear(1, 1), None, trainer=Trainer())
    save = PolicyPersistence(mode=STATE_DICT, store=store, keeper=keeper).get_save_checkpoint_fn(world)
    assert save is not None
    return save


@pytest.mark.parametrize(
    "keeper",
    [lambda: LatestStatesKeeper("", 2), lambda: PolicyStatesKeeper(KeepLatest(2)), lambda: KeepLatest(2), LastTwo],
    ids=["latest", "by policy", "policy", "told"],
)
@pytest.mark.parametrize("failure", [Failure.NO_EFFECT, Failure.LOST_ANSWER], ids=lambda failure: failure.value)
def test_an_outage_at_any_call_of_a_save_or_a_removal_leaves_no_policy_behind(
    keeper: Callable[[], Any], failure: Failure
) -> None:
    fail_at, failed_removals, reached = 0, 0, True
    while reached:
        fail_at += 1
        storage = FailingStorage(inner := DictStorage(), failure=failure)
        with StateStore(storage, incremental=False) as store:
            save = saver(store, keeper())
            for epoch in (1, 2):
                save(epoch, 0, 0)
            storage.fail_at = len(storage.calls) + fail_at
            try:
                save(3, 0, 0)
            except StorageError:
                failed_removals += "policy_epoch_3.state" in store.names()
            reached = len(storage.calls) >= storage.fail_at
            storage.fail_at = 0
            for epoch in (4, 5):
                save(epoch, 0, 0)
            kept = ["policy_epoch_4.state", "policy_epoch_5.state"]
            assert store.names() == kept, f"call {fail_at} failed"
            folders = {key.partition("/")[0] for key in inner.objects} - {"policy_epoch_3.state"}  # half of a save
            assert folders == {"_vault", *kept}, f"call {fail_at} failed, and something was left behind"
    assert failed_removals > 5


def test_a_score_that_no_policy_has_removes_none_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with StateStore(DictStorage()) as store:
        save = saver(store, KeepAny((KeepLatest(1), KeepBest(1, metric="scor"))))
        for epoch in (1, 2, 3):
            save(epoch, 0, 0)
        assert len(store.names()) == 3
        (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
        assert "can't judge" in warning
        assert "at 'scor'" in warning


def test_what_a_keeper_raises_is_reported_with_its_name() -> None:
    class Broken(LastTwo):
        @override
        def select_removal_states(self) -> Iterable[Path]:
            raise LookupError("lost count")

    with StateStore(DictStorage()) as store:
        save = saver(store, Broken())
        with pytest.raises(StateVaultError, match=r"Broken\.select_removal_states\(\) failed: LookupError"):
            save(1, 0, 0)
        assert store.names() == ["policy_epoch_1.state"], "the policy was saved all the same"
