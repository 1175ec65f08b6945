"""Real high-level experiments of Tianshou's: trained in one process, restored in another, through a real server.

Each process is a real one (``tests/persistence/tianshou_run.py``): CartPole with normalised observations, some seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from statevault.persistence import list_policies, verify_policy
from statevault.state_persistence import StateStore
from statevault.storage import open_storage
from tests.persistence.worlds import BACKENDS
from tests.servers import Servers, StorageTarget

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("tianshou") is None, reason="needs tianshou[eval]>=2"),
]

REMOTE = "juicefs" if "juicefs" in BACKENDS else "local"
ROOT = Path(__file__).parents[2]


class Experiments:
    """Experiments whose policies lie in one place, and whose other files lie in a local folder."""

    def __init__(self, target: StorageTarget, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._runs = 0

    def run(self, algorithm: str, *, train: bool, by_itself: bool = False, **options: Any) -> dict[str, Any]:
        """Run one in a process of its own, perhaps without us; returns what it prints."""
        self._runs += 1
        given = {
            "algorithm": algorithm,
            "log_directory": str(self._folder / f"log-{self._runs}"),
            "directory": None if by_itself else self._target.url,
            "train": train,
            "options": {"storage_options": dict(self._target.storage_options), **options},
        }
        command = [sys.executable, "-W", "ignore", "-m", "tests.persistence.tianshou_run", json.dumps(given)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
        printed: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        return printed

    @property
    def log(self) -> str:
        """The log of the last run."""
        (log,) = (self._folder / f"log-{self._runs}").rglob("log.txt")
        return log.read_text()


@pytest.fixture
def target(servers: Servers) -> StorageTarget:
    return servers.target(REMOTE)


@pytest.fixture
def experiments(target: StorageTarget, tmp_path: Path) -> Experiments:
    return Experiments(target, tmp_path)


def test_an_off_policy_training_is_restored_in_another_process(experiments: Experiments, target: StorageTarget) -> None:
    trained = experiments.run("dqn", train=True, allow_pickle=True)
    assert "PersistedAlgorithmFactory" in experiments.log, "Tianshou logs what an experiment consists of"
    assert not any(str(value) in experiments.log for value in target.storage_options.values()), "but no secrets"
    storage = open_storage(trained["run"], target.storage_options)
    best, *checkpoints = list_policies(storage)
    assert (best.name, best.best, best.score) == ("policy.pt", True, trained["score"])
    assert [policy.epoch for policy in checkpoints] == [1, 2], "Tianshou makes none for off-policy algorithms"
    assert [policy.env_step for policy in checkpoints] == [400, 800]
    for policy in (best, *checkpoints):
        assert policy.additional is not None
        assert set(policy.additional) == {"env_obs_rms.pkl"}
        verify_policy(storage, policy.name)
    evaluated = experiments.run("dqn", train=False, allow_pickle=True, restore_from=trained["run"])
    assert evaluated["policy"] == trained["policy"]
    assert evaluated["mean"] == trained["mean"], "the statistics of the best policy, not of the last epoch"


def test_an_on_policy_training_is_kept_as_states_and_goes_on_in_another_process(
    experiments: Experiments, target: StorageTarget
) -> None:
    options: dict[str, Any] = {"as_states": True, "mode": "policy_state_dict"}
    trained = experiments.run("ppo", train=True, **options)
    with StateStore(trained["run"], storage_options=target.storage_options) as store:
        states = store.states()
        assert {state.metadata["epoch"] for state in states if not state.metadata["best"]} == {1, 2}
        scores = [state.metadata["score"] for state in states if state.metadata["best"]]
        assert max(scores) == trained["score"]  # type: ignore[type-var]
    evaluated = experiments.run("ppo", train=False, restore_from=trained["run"], **options)
    assert (evaluated["policy"], evaluated["mean"]) == (trained["policy"], trained["mean"])
    experiments.run("ppo", train=True, restore_from=trained["run"], restore_epoch=1, **options)
    with StateStore(trained["run"], storage_options=target.storage_options) as store:
        assert "policy_epoch_1-2.state" in store.names()


def test_a_run_that_tianshou_has_saved_by_itself_is_restored(experiments: Experiments) -> None:
    trained = experiments.run("dqn", train=True, by_itself=True)
    assert Path(trained["run"], "policy.pt").is_file()
    evaluated = experiments.run("dqn", train=False, allow_pickle=True, restore_from=trained["run"])
    assert evaluated["policy"] == trained["policy"]
