"""Policies as states of a store: their names, their metadata, and what a keeper leaves of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from statevault import KeepAny, KeepBest, KeepLatest, LatestStatesKeeper, StatesKeeper, StateStore
from statevault.errors import PickleNotAllowedError, StateNotFoundError
from statevault.persistence import Persistence, PersistEvent, PolicyPersistence, RestoreEvent
from tests.persistence.test_best import Run
from tests.persistence.worlds import STATE_DICT, Policy, Statistics, Trainer, value_of, world_in
from tests.servers import StorageTarget


def names(folder: Path) -> list[str]:
    with StateStore(folder / "store") as store:
        return store.names()


def test_each_policy_is_a_state_with_its_numbers(target: StorageTarget) -> None:
    policy = Policy(1)
    statistics = Statistics(1)
    world = world_in(target, policy, Trainer(score=2.5, epoch=3))
    options: dict[str, Any] = {"storage_options": target.storage_options}
    with PolicyPersistence(statistics, mode=STATE_DICT, store=f"{target.url}/store", **options) as persistence:
        persistence.persist(policy, world)
        save = persistence.get_save_checkpoint_fn(world)
        assert save is not None
        path = save(4, 400, 40)
    with StateStore(f"{target.url}/store", **options) as store:
        best, checkpoint = store.states()
        assert path == checkpoint.path
        assert (best.name, checkpoint.name) == ("policy_best_epoch_3.state", "policy_epoch_4.state")
        common = {"kind": "policy", "mode": "policy_state_dict"}
        numbers: dict[str, Any] = {"epoch": 3, "env_step": 300, "gradient_step": 30, "score": 2.5, "best": True}
        assert best.metadata == common | numbers
        numbers = {"epoch": 4, "env_step": 400, "gradient_step": 40, "score": None, "best": False}
        assert checkpoint.metadata == common | numbers
        assert best.components == ("policy",)
        assert [file.path for file in store.open_state(best.name).manifest.files] == [
            "policy/additional/empty.bin",
            "policy/additional/env/statistics.txt",
            "policy/policy_state_dict.pt",
        ]
        store.verify(best.name)


def test_a_rerun_gets_names_that_nobody_has_and_nobody_had(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        run = Run(tmp_path, "states")
        run.epoch(value, 1)
        run.test(value, score=value, epoch=2)
    assert names(tmp_path) == [
        *("policy_epoch_1.state", "policy_best_epoch_2.state"),
        *("policy_epoch_1-2.state", "policy_best_epoch_2-2.state"),
        *("policy_epoch_1-3.state", "policy_best_epoch_2-3.state"),
    ]
    with StateStore(tmp_path / "store") as store:
        store.remove(["policy_epoch_1.state", "policy_epoch_1-2.state"])
    run = Run(tmp_path, "states")
    run.epoch(4, 1)
    assert names(tmp_path)[-1] == "policy_epoch_1-4.state"
    assert run.restored(epoch=1) == (4, 4), "the newest of the epoch"
    assert run.restored(name="policy_epoch_1-3.state") == (3, 3)
    with pytest.raises(StateNotFoundError, match="policy_epoch_1-2"):
        run.restored(name="policy_epoch_1-2")


def test_what_belongs_to_a_policy_is_asked_once_however_many_names_are_taken(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(Statistics):
        @override
        def persist(self, event: PersistEvent, world: Any) -> None:
            asked.append(1)
            super().persist(event, world)

    with StateStore(tmp_path / "store") as store:
        for number in (1, 2, 3, 4):
            run = Run(tmp_path, "states")
            run.persistence.additional_persistence = Counting()
            run.epoch(number, 1)
            run.epoch(number, 2)  # the newest is never removed
            store.remove(name for name in store.names() if name.startswith("policy_epoch_1"))
    assert len(asked) == 8
    assert names(tmp_path)[-1] == "policy_epoch_2-4.state"


def test_a_keeper_decides_which_policies_stay(tmp_path: Path) -> None:
    run = Run(tmp_path, "states", keeper=KeepAny((KeepLatest(2), KeepBest(1, metric="score"))))
    run.test(1, score=10, epoch=0)
    for epoch in range(1, 6):
        run.epoch(epoch, epoch)
    assert names(tmp_path) == ["policy_best_epoch_0.state", "policy_epoch_4.state", "policy_epoch_5.state"]
    assert run.restored() == (1, 1)


def test_a_keeper_of_names_decides_as_well(tmp_path: Path) -> None:
    keeper = LatestStatesKeeper(tmp_path / "store", 2, state_name_pattern="policy_epoch_*.state")
    run = Run(tmp_path, "states", keeper=keeper)
    run.test(1, score=10, epoch=0)
    for epoch in range(1, 5):
        run.epoch(epoch, epoch)
    assert names(tmp_path) == ["policy_best_epoch_0.state", "policy_epoch_3.state", "policy_epoch_4.state"]


class KeepsEven(StatesKeeper):
    """A keeper of a user, by paths: removes odd epochs, and wants to remove the newest state always."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._paths: list[Path] = []

    @override
    def append(self, path: Path) -> None:
        self.told.append(path.name)
        self._paths.append(path)

    @override
    def select_removal_states(self) -> Iterable[Path]:
        selected = [path for path in self._paths if path.name[-7] in "13579"] + self._paths[-1:]
        self._paths = [path for path in self._paths if path not in selected]
        return selected


def test_a_keeper_of_a_users_own_is_told_of_each_state_once_and_spares_the_newest(tmp_path: Path) -> None:
    Run(tmp_path, "states").epoch(1, 1)
    keeper = KeepsEven()
    run = Run(tmp_path, "states", keeper=keeper)
    for epoch in (2, 3, 4):
        run.epoch(epoch, epoch)
        assert names(tmp_path)[-1] == f"policy_epoch_{epoch}.state"
    assert keeper.told == [f"policy_epoch_{epoch}.state" for epoch in (1, 2, 3, 4)]
    assert "policy_epoch_1.state" not in names(tmp_path)


def test_a_keeper_needs_a_store() -> None:
    with pytest.raises(ValueError, match="store"):
        PolicyPersistence(keeper=KeepLatest(3))


class Pickling(Persistence):
    """Additional state that a component of Tianshou's examples pickles by itself."""

    @override
    def persist(self, event: PersistEvent, world: Any) -> None:
        import pickle

        Path(world.persist_path("statistics.pkl")).write_bytes(pickle.dumps({"mean": 1.5}))

    @override
    def restore(self, event: RestoreEvent, world: Any) -> None:
        import pickle

        assert pickle.loads(Path(world.restore_path("statistics.pkl")).read_bytes()) == {"mean": 1.5}


@pytest.mark.parametrize("options", [{}, {"store": "store"}], ids=["files", "states"])
def test_what_an_additional_persistence_pickles_by_itself_is_its_own_affair(
    tmp_path: Path, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    persistence = PolicyPersistence(Pickling(), mode=STATE_DICT, **options)  # type: ignore[arg-type]
    persistence.persist(policy, world)
    restored = Policy()
    persistence.restore(restored, world, "cpu")
    assert value_of(restored) == 1
    whole = PolicyPersistence(Pickling(), **options)  # type: ignore[arg-type]
    whole.persist(policy, world)
    with pytest.raises(PickleNotAllowedError):
        whole.restore(restored, world, "cpu")
