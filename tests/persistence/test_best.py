"""The best policy stays the best: over epochs, over reruns, and when what lies there is damaged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from statevault.persistence import PolicyPersistence, list_policies
from statevault.state_persistence import StateStore
from statevault.storage import open_storage
from tests.persistence.worlds import STATE_DICT, ForeignWorld, Policy, Statistics, Trainer, value_of, world_in

KINDS = ["files", "states"]


class Run:
    """A run of a training: a process of its own, as far as persistence can tell."""

    def __init__(self, folder: Path, kind: str, **options: Any) -> None:
        self.policy = Policy()
        self.statistics = Statistics()
        self.world = world_in(folder / "files", self.policy)
        if kind == "states":
            options["store"] = folder / "store"
        self.persistence = PolicyPersistence(self.statistics, mode=STATE_DICT, **options)
        self._save_best = self.persistence.get_save_best_fn(self.world)
        self.world.trainer = Trainer()  # as Tianshou: set when the functions are made already

    def test(self, value: float, score: float | None, epoch: int = 0) -> None:
        """A test whose score is the best of this run so far."""
        self.policy.set_to(value)
        self.statistics.value = value
        self.world.trainer = Trainer(score, epoch)
        self._save_best(self.policy)

    def epoch(self, value: float, epoch: int) -> None:
        """The end of an epoch."""
        self.policy.set_to(value)
        self.statistics.value = value
        save = self.persistence.get_save_checkpoint_fn(self.world)
        assert save is not None
        save(epoch, 100 * epoch, 10 * epoch)

    def restored(self, **which: Any) -> tuple[float, float]:
        """The values of a policy and of its statistics."""
        self.persistence.restore(self.policy, self.world, "cpu", **which)
        return value_of(self.policy), self.statistics.value


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_of_epochs_leave_the_best_policy_its_own_statistics(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path, kind)
    run.test(1, score=10, epoch=1)
    for epoch in (2, 3, 4):
        run.epoch(epoch, epoch)
    assert run.restored() == (1, 1)
    assert [run.restored(epoch=epoch) for epoch in (2, 3, 4)] == [(2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_worse_first_test_of_a_rerun_does_not_replace_the_best_policy(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    Run(tmp_path, kind).test(1, score=10, epoch=3)
    rerun = Run(tmp_path, kind)
    with caplog.at_level(logging.INFO, "statevault.persistence"):
        rerun.test(2, score=4)
    assert "score 4.0 is below the 10.0" in caplog.text
    assert rerun.restored() == (1, 1)
    rerun.test(3, score=10.5)
    assert rerun.restored() == (3, 3)
    rerun.test(4, score=10.5)
    assert rerun.restored() == (4, 4), "of equals, the newest is the best"


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_score_may_be_zero_or_negative(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path, kind)
    run.test(1, score=-5)
    run.test(2, score=0)
    Run(tmp_path, kind).test(3, score=-1)
    assert run.restored() == (2, 2)


@pytest.mark.parametrize(("before", "after"), [(None, 3.0), (3.0, None), (float("-inf"), -1e9)])
def test_a_score_that_is_not_known_is_no_reason_to_save_nothing(
    tmp_path: Path, before: float | None, after: float | None
) -> None:
    Run(tmp_path, "files").test(1, score=before)
    rerun = Run(tmp_path, "files")
    rerun.test(2, score=after)
    assert rerun.restored() == (2, 2)


@pytest.mark.parametrize("before", [10.0, None], ids=["known", "unknown"])
@pytest.mark.parametrize("after", [float("-inf"), float("inf"), float("nan")])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_diverged_does_not_replace_the_best_policy(
    tmp_path: Path, kind: str, after: float, before: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    Run(tmp_path, kind).test(1, score=before)
    rerun = Run(tmp_path, kind)
    rerun.test(2, score=after)
    assert rerun.restored() == (1, 1)
    assert f"its score {after} is not finite" in caplog.text
    with pytest.raises(FileNotFoundError):
        rerun.restored(name="policy_best_epoch_0-2" if kind == "states" else "policy_best")
    rerun.test(3, score=11.0)
    assert rerun.restored() == (3, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_diverged_at_once_saves_a_policy_without_a_score(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path, kind)
    run.test(1, score=float("nan"))
    assert run.restored() == (1, 1)
    run.test(2, score=-1e9)
    assert run.restored() == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_best_policy_that_is_damaged_is_not_even_in_the_way_of_a_training_that_diverged(
    tmp_path: Path, kind: str
) -> None:
    Run(tmp_path, kind).test(1, score=10)
    _damage_best(tmp_path, kind)
    rerun = Run(tmp_path, kind)
    rerun.test(2, score=float("nan"))
    rerun.restored(name="policy_best_epoch_0-2" if kind == "states" else None)
    assert value_of(rerun.policy) == 2


@pytest.mark.parametrize(
    "score", [torch.tensor(4.5), np.float32(4.5), np.array(4.5)], ids=["tensor", "float32", "array"]
)
def test_a_score_may_be_any_number(tmp_path: Path, score: Any) -> None:
    run = Run(tmp_path, "files")
    run.test(1, score=score)
    run.epoch(2, 1)
    (best, _) = list_policies(open_storage(tmp_path / "files"))
    assert best.score == 4.5


def test_what_is_no_number_is_no_score(tmp_path: Path) -> None:
    run = Run(tmp_path, "files")
    for value in (torch.zeros(2), np.zeros(2), "4.5", 10**400):
        run.test(1, score=value)  # type: ignore[arg-type]
        assert list_policies(open_storage(tmp_path / "files"))[0].score is None


@pytest.mark.parametrize("kind", KINDS)
def test_persist_saves_whatever_was_better(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path, kind)
    run.test(1, score=10)
    run.policy.set_to(2)
    run.statistics.value = 2
    run.world.trainer = Trainer(5.0)
    run.persistence.persist(run.policy, run.world)
    if kind == "files":
        assert run.restored() == (2, 2)
    else:
        assert run.restored() == (1, 1), "in a store nothing is replaced"
        assert run.restored(name="policy_best_epoch_0-2") == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_best_policy_that_is_damaged_is_not_in_the_way_of_a_worse_one(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    Run(tmp_path, kind).test(1, score=10)
    _damage_best(tmp_path, kind)
    rerun = Run(tmp_path, kind)
    rerun.test(2, score=4)
    assert rerun.restored() == (2, 2)
    assert "damaged" in caplog.text or "digest" in caplog.text


def _damage_best(folder: Path, kind: str) -> None:
    pattern = "policy_state_dict.pt" if kind == "files" else "policy_best*.state/policy/policy_state_dict.pt*"
    (path,) = (folder / ("files" if kind == "files" else "store")).glob(pattern)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_file_of_another_program_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "policy_state_dict.pt").write_bytes(b"of an older run")
    run = Run(tmp_path, "files")
    with caplog.at_level(logging.INFO, "statevault.persistence"):
        run.test(2, score=4)
    assert run.restored() == (2, 2)
    assert "its score is not known" in caplog.text


def test_the_score_and_the_progress_are_those_that_the_trainer_tells(tmp_path: Path) -> None:
    run = Run(tmp_path, "files")
    run.test(1, score=10.25, epoch=3)
    run.epoch(2, 4)
    best, checkpoint = list_policies(open_storage(tmp_path / "files"))
    assert (best.score, best.epoch, best.env_step, best.gradient_step, best.best) == (10.25, 3, 300, 30, True)
    assert (checkpoint.epoch, checkpoint.env_step, checkpoint.gradient_step) == (4, 400, 40)
    assert (checkpoint.score, checkpoint.best) == (None, False), "it was not tested when it was saved"


def test_a_trainer_of_older_versions_is_understood(tmp_path: Path) -> None:
    class OlderTrainer:
        best_reward = 7
        epoch = 2
        env_step = 50
        gradient_step = 5

    policy = Policy(1)
    world = ForeignWorld(policy, str(tmp_path), str(tmp_path))
    world.trainer = OlderTrainer()
    PolicyPersistence(mode=STATE_DICT).persist(policy, world)
    (saved,) = list_policies(open_storage(tmp_path))
    assert (saved.score, saved.epoch, saved.env_step, saved.gradient_step) == (7.0, 2, 50, 5)


def test_a_function_may_say_the_score(tmp_path: Path) -> None:
    run = Run(tmp_path, "files", score_of=lambda world: 100 - world.trainer._best_score)
    run.test(1, score=10)
    run.test(2, score=20)
    assert run.restored() == (1, 1)
    run.epoch(3, 1)
    checkpoint = list_policies(open_storage(tmp_path / "files"))[1]
    assert checkpoint.score == 80
    with pytest.raises(TypeError, match="score_of"):
        Run(tmp_path, "files", score_of=lambda world: "high").test(1, score=1)


def test_the_best_of_a_store_is_the_best_that_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path, "states")
    for value, score in ((1, 5.0), (2, 8.0), (3, 9.0)):
        run.test(value, score, epoch=value)
    run.epoch(4, 4)
    (path,) = (tmp_path / "store").glob("policy_best_epoch_3.state/policy/policy_state_dict.pt*")
    path.unlink()
    assert run.restored() == (2, 2)
    assert "trying the next one" in caplog.text


def test_without_a_best_one_the_newest_policy_of_a_store_is_restored(tmp_path: Path) -> None:
    run = Run(tmp_path, "states")
    with pytest.raises(FileNotFoundError, match="no policy"):
        run.restored()
    run.epoch(1, 1)
    run.epoch(2, 2)
    assert run.restored() == (2, 2)
    with pytest.raises(FileNotFoundError, match="epoch 7"):
        run.restored(epoch=7)
    with StateStore(tmp_path / "store") as store:
        assert store.names() == ["policy_epoch_1.state", "policy_epoch_2.state"]
