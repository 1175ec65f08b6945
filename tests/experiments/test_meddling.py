"""Two experiments in one place, races, backups under way, and folders that somebody has meddled with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from typing_extensions import override

from statevault.cli.app import app
from statevault.errors import ExperimentExistsError, StorageError, TrialTakenError
from statevault.experiments import CheckpointManager, resume_experiment, run_experiment
from statevault.experiments.backup import BackupArchive
from statevault.storage import ObjectInfo
from tests.experiments.objects import Counting
from tests.state_persistence.storages import DictStorage, WatchedStorage

CLAIMS = "/claims/"


def save(manager: CheckpointManager, iteration: int, network: Any = None) -> None:
    manager.save_checkpoint(
        alg_idx=0, trial=0, iteration=iteration, algorithm=Counting("a"), network=network, rng_state=None
    )


def run(*arguments: object) -> int:
    return CliRunner().invoke(app, list(map(str, arguments))).exit_code


def experiment(folder: Path, name: str = "a", network: Any = None) -> None:
    with CheckpointManager(folder) as manager:
        manager.initialize([Counting(name)], name, 1)
        manager.mark_trial_complete(alg_idx=0, trial=0, iteration=9, algorithm=Counting(name), network=network)


def test_cp_does_not_overwrite_another_experiment(tmp_path: Path) -> None:
    experiment(tmp_path / "one", "a")
    experiment(tmp_path / "other", "b")
    assert run("cp", tmp_path / "one", tmp_path / "other") != 0
    with CheckpointManager(tmp_path / "other") as other:
        assert other.load_benchmark_problem() == "b"


def test_a_copy_is_not_resumed_from_checkpoints_of_an_experiment_that_was_cleared(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "one") as manager:
        manager.initialize([Counting("a")], None, 1)
        for iteration in (1, 3, 5):
            save(manager, iteration, "old")
        run("cp", tmp_path / "one", tmp_path / "copy")
        manager.clear()
    with CheckpointManager(tmp_path / "one") as manager:
        manager.initialize([Counting("a")], None, 1)
        save(manager, 1, "new")
    copied = run("cp", tmp_path / "one", tmp_path / "copy")
    with CheckpointManager(tmp_path / "copy") as copy:
        loaded = copy.load_checkpoint(0, 0)
    assert copied != 0 or (loaded is not None and loaded[1] == "new")


def test_verify_finds_a_checkpoint_that_was_cut_short(tmp_path: Path) -> None:
    experiment(tmp_path / "one", network=np.random.default_rng(0).bytes(5000))
    [checkpoint] = (tmp_path / "one").glob("algorithm_0/trial_0/checkpoint_*")
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    assert run("verify", tmp_path / "one") == 4


def test_verify_finds_that_a_final_checkpoint_is_missing(tmp_path: Path) -> None:
    experiment(tmp_path / "one")
    [checkpoint] = (tmp_path / "one").glob("algorithm_0/trial_0/checkpoint_*")
    checkpoint.unlink()
    assert run("verify", tmp_path / "one") == 4


def test_of_two_who_initialize_at_once_one_does_and_all_of_it_is_its_own() -> None:
    storage = DictStorage()
    outcomes: list[str] = []

    def initialize(name: str) -> None:
        # Two scopes, as two processes have: WatchedStorage is another object for each.
        with CheckpointManager(WatchedStorage(storage, lambda call: time.sleep(0.002))) as manager:
            try:
                manager.initialize([Counting(name)], name, 1)
                outcomes.append(name)
            except ExperimentExistsError:
                outcomes.append("told")

    threads = [threading.Thread(target=initialize, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert "told" in outcomes
    winner = next(name for name in outcomes if name != "told")
    manager = CheckpointManager(storage)
    assert manager.load_benchmark_problem() == winner
    assert [algorithm.name for algorithm in manager.load_initial_algorithms()] == [winner]


def test_the_metadata_in_a_backup_is_whole_although_it_was_changed_meanwhile(tmp_path: Path) -> None:
    storage = DictStorage()
    with CheckpointManager(storage) as manager:
        manager.initialize([Counting("a")], None, 1)
        save(manager, 1)

        def before(call: str) -> None:
            if call.startswith("get algorithm_0") and b"note" not in storage.objects["metadata.json"]:
                manager.append_metadata({"note": "longer than before"})

        archive = b"".join(BackupArchive(WatchedStorage(storage, before)))
    zipfile.ZipFile(BytesIO(archive)).extractall(tmp_path)
    with CheckpointManager(tmp_path) as restored:
        assert restored.load_metadata()["n_trials"] == 1


def test_a_checkpoint_that_retention_takes_does_not_end_a_backup() -> None:
    storage = DictStorage()
    with CheckpointManager(storage, keep_n_checkpoints=1) as manager:
        manager.initialize([Counting("a")], None, 1)
        save(manager, 1)

        def before(call: str) -> None:
            if call.startswith("get algorithm_0/trial_0/checkpoint_0000001"):
                save(manager, 2)

        names = zipfile.ZipFile(BytesIO(b"".join(BackupArchive(WatchedStorage(storage, before))))).namelist()
    assert "algorithm_0/trial_0/checkpoint_0000002.pkl.zst" in names


class Interrupted(DictStorage):
    """Ctrl-C comes while claims are listed for the first time."""

    is_interrupted = False

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if prefix.endswith(CLAIMS) and not self.is_interrupted:
            self.is_interrupted = True
            raise KeyboardInterrupt
        return super().list(prefix)


def test_ctrl_c_while_a_claim_is_taken_leaves_no_claim_that_nobody_can_take() -> None:
    with CheckpointManager(Interrupted()) as manager:
        with pytest.raises(KeyboardInterrupt):
            save(manager, 1)
        save(manager, 1)


class Undeleting(DictStorage):
    """Deletes of claims fail while that is wanted."""

    fails = False

    @override
    def delete(self, keys: Sequence[str]) -> None:
        if self.fails and any(CLAIMS in key for key in keys):
            raise StorageError("slow down", transient=True)
        super().delete(keys)


def test_a_claim_that_could_not_be_deleted_does_not_keep_its_own_process_out() -> None:
    storage = Undeleting()
    with CheckpointManager(storage) as manager:
        storage.fails = True
        with manager.working_on(0, 0):
            pass
        storage.fails = False
        with manager.working_on(0, 0):
            save(manager, 1)


def test_a_killed_process_that_nobody_has_waited_for_has_no_claim(tmp_path: Path) -> None:
    code = (
        "import sys, time; from statevault.experiments import CheckpointManager\n"
        "manager = CheckpointManager(sys.argv[1])\n"
        "with manager.working_on(0, 0): print('it has', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and stays a zombie
        try:
            with CheckpointManager(tmp_path) as manager, manager.working_on(0, 0):
                pass
        except TrialTakenError as error:
            pytest.fail(str(error))


def test_a_manager_can_be_used_again_after_clear(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "one") as manager:
        manager.initialize([Counting("a")], None, 1)
        save(manager, 1)
        manager.clear()
        manager.initialize([Counting("a")], None, 1)
        save(manager, 1)


def test_clear_leaves_what_others_have_put_there(tmp_path: Path) -> None:
    experiment(tmp_path / "one")
    trial = tmp_path / "one" / "algorithm_0" / "trial_0"
    shutil.copytree(trial, trial / "by hand")
    with CheckpointManager(tmp_path / "one") as manager:
        manager.clear()
    assert list((trial / "by hand").glob("checkpoint_*"))


@dataclass(frozen=True)
class Frozen:
    """Its number of iterations can't be set."""

    name: str
    iterations: int

    def step(self, network: Any, iteration: int) -> None:
        network["x"] += 1


def test_trials_can_be_added_where_iterations_were_and_cannot_be_set(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path) as manager:
        run_experiment(manager, [Frozen("a", 2)], {"x": 0}, 1)
        resume_experiment(manager, increase_iterations=1, create_backup=False)
        result = resume_experiment(manager, increase_trials=1, create_backup=False)
    assert [trial.iteration for trial in result.trials["a"]] == [2, 2]


def test_an_iteration_may_be_a_number_of_numpys(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path, 5) as manager:
        numbers: list[Any] = list(np.arange(10))
        for iteration in numbers:
            if manager.should_checkpoint(iteration):
                save(manager, iteration)


@pytest.mark.parametrize(
    "metadata",
    [
        '{"n_trials": 1, "algorithms": [{"name": "a", "iterations": 1, "index": 5}]}',
        '{"n_trials": 1, "algorithms": [], "x": "\\ud800", "digest": "00"}',
        '{"n_trials": 1, "algorithms": [], "x": NaN, "digest": "00"}',
    ],
)
@pytest.mark.parametrize("command", ["ls", "show"])
def test_malformed_metadata_is_told_and_no_traceback(tmp_path: Path, command: str, metadata: str) -> None:
    experiment(tmp_path)
    (tmp_path / "metadata.json").write_text(metadata)
    assert run(command, tmp_path) in (4, 7)


def test_a_link_in_a_folder_of_others_is_ignored_as_all_foreign_files_are(tmp_path: Path) -> None:
    experiment(tmp_path)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "latest").symlink_to("somewhere")
    assert run("ls", tmp_path) == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_increase_that_is_no_whole_number_does_not_destroy_the_metadata(tmp_path: Path) -> None:
    half: Any = 10 / 2
    with CheckpointManager(tmp_path) as manager:
        manager.initialize([Counting("a")], None, 1)
        with pytest.raises((TypeError, ValueError)):
            manager.extend(increase_iterations=half)
        assert manager.load_metadata()["algorithms"][0]["iterations"] == 10


def test_who_has_lost_a_trial_leaves_no_beat_that_shows_it_as_claimed(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path) as manager:
        manager.initialize([Counting("a")], None, 1)
        save(manager, 1)
        claims = tmp_path / "algorithm_0" / "trial_0" / "claims"
        for claim in claims.iterdir():
            if claim.suffix != ".beat":
                claim.unlink()
        with pytest.raises(TrialTakenError):
            save(manager, 2)
    assert not claims.exists() or not list(claims.iterdir())
