"""The CheckpointManager: what its specification says, method by method."""

from __future__ import annotations

import json
import logging
import pickle
import random
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from statevault.errors import (
    CorruptStateError,
    ExperimentExistsError,
    ExperimentNotFoundError,
    FormatError,
    InvalidNameError,
    TrialIncompleteError,
    UnsupportedTypeError,
)
from statevault.experiments import CheckpointManager
from statevault.state_persistence import KeepAny, KeepBest, KeepLatest, KeepPeriodic, KeepWithin
from statevault.storage import RetryingStorage, open_storage
from tests.experiments.objects import Agent, Counting, Network, stable_key
from tests.servers import StorageTarget
from tests.state_persistence.storages import DictStorage


def save(manager: CheckpointManager, iteration: int, *, trial: int = 0, algorithm: Any = None) -> None:
    algorithm = algorithm or Counting()
    manager.save_checkpoint(
        alg_idx=0, trial=trial, iteration=iteration, algorithm=algorithm, network=None, rng_state=iteration
    )


def complete(manager: CheckpointManager, alg_idx: int, trial: int, name: str, network: Any = None) -> None:
    manager.mark_trial_complete(
        alg_idx=alg_idx, trial=trial, iteration=9, algorithm=Counting(name), network=network, rng_state=None
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint_*"))


@pytest.fixture
def manager(tmp_path: Path) -> CheckpointManager:
    return CheckpointManager(tmp_path / "run", checkpoint_step=2)


@pytest.fixture
def started(manager: CheckpointManager) -> CheckpointManager:
    manager.initialize([Counting("a"), Counting("b", 20)], {"problem": 1}, 2, rng_seed=7)
    return manager


def test_an_experiment_on_every_backend(target: StorageTarget) -> None:
    with CheckpointManager(target.url, 1, storage_options=target.storage_options) as manager:
        assert manager.is_empty()
        assert not manager.is_benchmark_started()
        assert not manager.is_benchmark_completed()
        manager.initialize([Counting("a")], ["problem"], 1)
        assert manager.is_benchmark_started()
        assert not manager.is_empty()
        for iteration in range(5):
            save(manager, iteration, algorithm=Counting("a"))
        loaded = manager.load_checkpoint(0, 0)
        assert loaded is not None
        assert loaded[2:] == (4, 4)
        complete(manager, 0, 0, "a")
        assert manager.is_benchmark_completed()
    with CheckpointManager(target.url, storage_options=target.storage_options) as again:
        result = again.load_benchmark_result()
        assert result.problem == ["problem"]
        assert [trial.iteration for trial in result.trials["a"]] == [9]
        again.append_metadata({"machine": "m"})
        assert again.load_metadata()["benchmark_metadata"] == {"machine": "m"}
        if target.name == "memory":  # where a folder is a whole bucket
            backup = None
        else:
            backup = again.create_backup()
            assert backup.exists()
        again.clear()
        assert again.is_empty()
        if backup is not None:
            open_storage(target.url.rpartition("/")[0], target.storage_options).delete([backup.name])


@pytest.mark.parametrize("argument", ["checkpoint_step", "keep_n_checkpoints"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("3", TypeError)]
)
def test_steps_and_counts_are_positive_integers(
    tmp_path: Path, argument: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"{argument} must be"):
        CheckpointManager(tmp_path, **{argument: value})


def test_checkpoints_are_due_every_step(manager: CheckpointManager, tmp_path: Path) -> None:
    assert [manager.should_checkpoint(iteration) for iteration in range(6)] == [False, True] * 3
    assert not CheckpointManager(tmp_path).should_checkpoint(999)
    with pytest.raises(ValueError, match="-1"):
        manager.should_checkpoint(-1)


def test_the_folder_is_as_the_format_says(started: CheckpointManager, tmp_path: Path) -> None:
    save(started, 1)
    complete(started, 0, 0, "a")
    started.save_metrics_result({"loss": 1})
    started.put_result("table.txt", b"x")
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert files == {
        "metadata.json",
        "benchmark_problem.pkl.zst",
        "initial_algorithms.pkl.zst",
        "metric_computation.pkl.zst",
        "metric_computation_complete.json",
        "algorithm_0/trial_0/checkpoint_0000001.pkl.zst",
        "algorithm_0/trial_0/checkpoint_0000009.pkl.zst",
        "algorithm_0/trial_0/progress.json",
        "algorithm_0/trial_0/complete.json",
        "results/table.txt",
    }
    metadata = json.loads((tmp_path / "run/metadata.json").read_text())
    metadata.pop("digest")
    assert len(metadata.pop("id")) == 16
    assert metadata == {
        "n_trials": 2,
        "algorithms": [
            {"name": "a", "iterations": 10, "index": 0},
            {"name": "b", "iterations": 20, "index": 1},
        ],
        "rng_seed": 7,
    }
    record = json.loads((tmp_path / "run/algorithm_0/trial_0/complete.json").read_text())
    record.pop("digest")
    assert record == {
        "alg_name": "a",
        "alg_idx": 0,
        "trial": 0,
        "iteration": 9,
        "checkpoint_path": "checkpoint_0000009.pkl.zst",
        "of_iterations": 10,
    }
    progress = json.loads((tmp_path / "run/algorithm_0/trial_0/progress.json").read_text())
    assert progress["last_completed_iteration"] == 9
    stored = (tmp_path / "run/algorithm_0/trial_0/checkpoint_0000001.pkl.zst").read_bytes()
    checkpoint = pickle.loads(zstandard.ZstdDecompressor().stream_reader(stored).read())
    assert checkpoint.keys() == {"algorithm", "network", "iteration", "rng_state"}


def test_an_initialized_folder_is_not_initialized_again(started: CheckpointManager) -> None:
    with pytest.raises(ExperimentExistsError, match=r"resume it, clear\(\) it"):
        started.initialize([Counting("other")], None, 1)
    assert [entry["name"] for entry in started.load_metadata()["algorithms"]] == ["a", "b"]


def test_an_initialization_that_broke_off_is_made_anew() -> None:
    class Full(DictStorage):
        def put(self, key: str, body: Any, *, create_only: bool = False) -> int:
            if key == "metadata.json" and self.is_full:
                raise OSError("full")
            return super().put(key, body, create_only=create_only)

        is_full = True

    storage = Full()
    manager = CheckpointManager(storage)
    with pytest.raises(OSError, match="full"):
        manager.initialize([Counting("a")], None, 1)
    assert not manager.is_benchmark_started()
    assert not manager.is_empty()
    storage.is_full = False
    manager.initialize([Counting("b")], None, 1)
    assert [algorithm.name for algorithm in manager.load_initial_algorithms()] == ["b"]


@pytest.mark.parametrize(
    ("algorithms", "n_trials", "message"),
    [
        ([], 1, "needs at least one algorithm"),
        ([Counting("a"), Counting("a")], 1, "two algorithms are called 'a'"),
        ([Counting("a", 0)], 1, "iterations of the algorithm 'a' must be at least 1, not 0"),
        ([Counting("a")], 0, "n_trials"),
    ],
)
def test_an_experiment_that_makes_no_sense_is_refused(
    manager: CheckpointManager, algorithms: list[Counting], n_trials: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        manager.initialize(algorithms, None, n_trials)
    assert manager.is_empty()


def test_without_an_experiment_one_is_told_so(manager: CheckpointManager) -> None:
    for call in (
        manager.load_metadata,
        manager.load_initial_algorithms,
        manager.load_benchmark_problem,
        manager.load_benchmark_result,
        manager.load_metrics_result,
        lambda: manager.append_metadata({}),
        lambda: manager.extend(increase_trials=1),
        lambda: manager.get_completed_trials(0),
    ):
        with pytest.raises(ExperimentNotFoundError):
            call()
    assert not manager.is_benchmark_completed()
    assert not manager.are_metrics_computed()
    assert manager.load_checkpoint(0, 0) is None


def test_what_algorithm_and_network_share_stays_shared(started: CheckpointManager) -> None:
    algorithm, network = Counting(), Network()
    network.history = algorithm.history  # type: ignore[attr-defined]
    started.save_checkpoint(
        alg_idx=0, trial=0, iteration=0, algorithm=algorithm, network=[network, network], rng_state=algorithm.history
    )
    loaded = started.load_checkpoint(0, 0)
    assert loaded is not None
    algorithm, networks, _, rng_state = loaded
    assert networks[0] is networks[1]
    assert networks[0].history is algorithm.history is rng_state
    assert networks[0].agents[0].neighbours[1] is networks[0].agents[1]


def test_the_last_n_checkpoints_are_kept(started: CheckpointManager, tmp_path: Path) -> None:
    for iteration in range(10):
        save(started, iteration)
    assert names(tmp_path / "run/algorithm_0/trial_0") == [
        f"checkpoint_000000{iteration}.pkl.zst" for iteration in (7, 8, 9)
    ]


def test_a_retention_policy_says_what_is_kept(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run", keep_n_checkpoints=KeepPeriodic(daily=3))
    for iteration in range(5):
        save(manager, iteration)
    assert len(names(tmp_path / "run/algorithm_0/trial_0")) <= 2
    assert manager.load_checkpoint(0, 0)[2] == 4  # type: ignore[index]


def test_a_policy_that_can_not_judge_checkpoints_deletes_none_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = KeepAny((KeepLatest(1), KeepBest(1, metric="reward")))
    manager = CheckpointManager(tmp_path / "run", keep_n_checkpoints=policy)
    for iteration in range(4):
        save(manager, iteration)
    assert len(names(tmp_path / "run/algorithm_0/trial_0")) == 4
    (warning,) = caplog.messages
    assert warning.startswith("keep_n_checkpoints can't judge those of trial 0: no state has a finite number")
    assert "Numbers are at 'iteration', 'alg_idx', 'trial'" in warning


def test_checkpoints_of_a_storage_that_tells_no_times_are_not_taken_for_old() -> None:
    storage = DictStorage()
    for iteration in range(4):
        # Another process each time, which knows of the others what the storage tells.
        with CheckpointManager(storage, keep_n_checkpoints=KeepWithin(timedelta(days=1))) as manager:
            save(manager, iteration)
    assert len([key for key in storage.objects if "checkpoint_" in key]) == 4


def test_the_checkpoint_of_a_complete_trial_is_kept(started: CheckpointManager, tmp_path: Path) -> None:
    complete(started, 0, 0, "a")
    for iteration in range(10, 20):
        save(started, iteration)
    assert "checkpoint_0000009.pkl.zst" in names(tmp_path / "run/algorithm_0/trial_0")
    assert started.load_trial_result(0, 0).iteration == 9


def test_saving_the_same_iteration_again_does_nothing(started: CheckpointManager, tmp_path: Path) -> None:
    save(started, 3, algorithm=Counting("first"))
    before = (tmp_path / "run/algorithm_0/trial_0/checkpoint_0000003.pkl.zst").stat().st_mtime_ns
    save(started, 3, algorithm=Counting("second"))
    save(CheckpointManager(tmp_path / "run"), 3, algorithm=Counting("third"))
    assert (tmp_path / "run/algorithm_0/trial_0/checkpoint_0000003.pkl.zst").stat().st_mtime_ns == before
    assert started.load_checkpoint(0, 0)[0].name == "first"  # type: ignore[index]


def test_a_damaged_checkpoint_is_saved_again(started: CheckpointManager, tmp_path: Path) -> None:
    save(started, 3, algorithm=Counting("first"))
    path = tmp_path / "run/algorithm_0/trial_0/checkpoint_0000003.pkl.zst"
    path.write_bytes(path.read_bytes()[:-60])
    save(CheckpointManager(tmp_path / "run"), 3, algorithm=Counting("again"))
    assert started.load_checkpoint(0, 0)[0].name == "again"  # type: ignore[index]


@pytest.mark.parametrize("argument", ["alg_idx", "trial", "iteration"])
def test_numbers_are_not_negative(started: CheckpointManager, argument: str) -> None:
    numbers = {"alg_idx": 0, "trial": 0, "iteration": 0} | {argument: -1}
    with pytest.raises(ValueError, match=argument):
        started.save_checkpoint(**numbers, algorithm=None, network=None, rng_state=None)


def test_what_pickle_can_not_take_is_told(started: CheckpointManager) -> None:
    with pytest.raises(UnsupportedTypeError, match="importable by their names"):
        save(started, 0, algorithm=lambda: None)
    assert started.load_checkpoint(0, 0) is None


def test_complete_trials(started: CheckpointManager) -> None:
    with pytest.raises(TrialIncompleteError, match="not complete") as caught:
        started.load_trial_result(0, 1)
    assert isinstance(caught.value, ValueError)
    complete(started, 0, 1, "a")
    assert started.get_completed_trials(0) == [1]
    assert started.get_completed_trials(0, n_trials=1) == []
    started.unmark_trial_complete(0, 1)
    started.unmark_trial_complete(0, 1)
    assert started.get_completed_trials(0) == []
    assert started.load_checkpoint(0, 1)[2] == 9  # type: ignore[index]


def test_a_folder_can_be_moved(started: CheckpointManager, tmp_path: Path) -> None:
    complete(started, 0, 0, "a")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert CheckpointManager(tmp_path / "moved").load_trial_result(0, 0).alg_name == "a"


def test_a_damaged_result_is_a_value_error(started: CheckpointManager, tmp_path: Path) -> None:
    complete(started, 0, 0, "a")
    path = tmp_path / "run/algorithm_0/trial_0/checkpoint_0000009.pkl.zst"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged") as caught:
        started.load_trial_result(0, 0)
    assert isinstance(caught.value, CorruptStateError)


def test_results_leave_out_what_is_unfinished_or_of_another_name(
    started: CheckpointManager, caplog: pytest.LogCaptureFixture
) -> None:
    for trial in range(2):
        complete(started, 0, trial, "a")
    complete(started, 1, 0, "b")
    assert not started.is_benchmark_completed()
    with caplog.at_level(logging.WARNING):
        assert started.load_benchmark_result().trials.keys() == {"a"}
    assert "b is left out: 1 of its 2 trials are not complete (1)" in caplog.text
    complete(started, 1, 1, "another")
    caplog.clear()
    assert started.load_benchmark_result().trials.keys() == {"a"}
    assert "b is left out: its trials are of another, b" in caplog.text


def test_extended_totals_are_remembered(started: CheckpointManager) -> None:
    complete(started, 0, 0, "a")
    started.extend(increase_trials=3)
    assert started.get_completed_trials(0) == [0]
    started.extend(increase_iterations=5)
    assert started.get_completed_trials(0) == []
    metadata = CheckpointManager(started.url).load_metadata()
    assert metadata["n_trials"] == 5
    assert [entry["iterations"] for entry in metadata["algorithms"]] == [15, 25]
    assert [algorithm.iterations for algorithm in started.load_initial_algorithms()] == [15, 25]
    with pytest.raises(ValueError, match="increase_trials"):
        started.extend(increase_trials=-1)


def test_metadata_is_merged(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run", benchmark_metadata={"a": 1, "b": 1})
    manager.initialize([Counting()], None, 1)
    manager.append_metadata({"b": 2, "c": [3]})
    assert manager.load_metadata()["benchmark_metadata"] == {"a": 1, "b": 2, "c": [3]}
    with pytest.raises(UnsupportedTypeError):
        manager.append_metadata({"d": object()})  # type: ignore[dict-item]
    assert manager.load_metadata()["benchmark_metadata"] == {"a": 1, "b": 2, "c": [3]}


def test_damaged_metadata_is_told(started: CheckpointManager, tmp_path: Path) -> None:
    path = tmp_path / "run/metadata.json"
    whole = path.read_text()
    path.write_text(whole.replace('"n_trials": 2', '"n_trials": 3'))
    with pytest.raises(CorruptStateError, match="digest"):
        started.load_metadata()
    path.write_text(whole[:20])
    with pytest.raises(FormatError, match=r"metadata\.json"):
        started.load_metadata()
    path.write_text('{"n_trials": "many", "algorithms": []}')
    with pytest.raises(FormatError, match="n_trials"):
        started.load_metadata()


def test_a_backup_is_a_zip_beside_the_folder(started: CheckpointManager, tmp_path: Path) -> None:
    save(started, 1)
    with started.working_on(1, 1):
        backup = started.create_backup()
    assert backup.parent == tmp_path
    assert backup.name.startswith("run_backup_")
    with zipfile.ZipFile(str(backup)) as archive:
        assert archive.testzip() is None
        assert not [name for name in archive.namelist() if "claims" in name]
        archive.extractall(tmp_path / "restored")
    restored = CheckpointManager(tmp_path / "restored")
    assert restored.load_metadata() == started.load_metadata()
    assert restored.load_checkpoint(0, 0)[2] == 1  # type: ignore[index]


def test_a_backup_replaces_no_other(started: CheckpointManager, tmp_path: Path) -> None:
    first = started.create_backup()
    with pytest.raises(FileExistsError):
        for _ in range(20):  # at most one of them falls into the next second
            started.create_backup()
    assert first.exists()


def test_a_whole_bucket_has_no_place_for_a_backup() -> None:
    manager = CheckpointManager("memory://run")
    with pytest.raises(InvalidNameError, match="use a folder below it"):
        manager.create_backup()


def test_clearing_leaves_what_is_not_its_own(started: CheckpointManager, tmp_path: Path) -> None:
    save(started, 1)
    started.put_result("table.txt", b"x")
    (tmp_path / "run/notes.md").write_text("mine")
    (tmp_path / "run/algorithm_0/trial_0/notes.md").write_text("mine")
    started.clear()
    left = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {"notes.md", "algorithm_0/trial_0/notes.md"}


def test_results_stay_in_their_folder(started: CheckpointManager, tmp_path: Path) -> None:
    assert started.get_results_path() == tmp_path / "run/results"
    assert started.put_result("plots/a.png", b"png") == tmp_path / "run/results/plots/a.png"
    for name in ("", "../x", "a//b", "/x"):
        with pytest.raises(InvalidNameError):
            started.put_result(name, b"")


def test_the_size_is_in_whole_megabytes(started: CheckpointManager) -> None:
    assert started.checkpoint_size() == 0
    started.put_result("big", bytes(2_400_000))
    assert started.checkpoint_size() == 2


def test_files_of_older_runs_are_read(started: CheckpointManager, tmp_path: Path) -> None:
    folder = tmp_path / "run/algorithm_0/trial_0"
    folder.mkdir(parents=True)
    plain = {"algorithm": "plain", "network": None, "iteration": 3, "rng_state": None}
    (folder / "checkpoint_0000003.pkl").write_bytes(pickle.dumps(plain))
    assert started.load_checkpoint(0, 0)[0] == "plain"  # type: ignore[index]
    compressed = pickle.dumps({**plain, "algorithm": "zstd", "iteration": 5})
    (folder / "checkpoint_0000005.pkl.zst").write_bytes(zstandard.compress(compressed))
    assert started.load_checkpoint(0, 0)[0] == "zstd"  # type: ignore[index]
    (tmp_path / "run/benchmark_problem.pkl.zst").rename(tmp_path / "run/gone")
    (tmp_path / "run/benchmark_problem.pkl").write_bytes(pickle.dumps("older"))
    assert started.load_benchmark_problem() == "older"
    (folder / "complete.json").write_text(
        '{"alg_name": "a", "alg_idx": 0, "trial": 0, "iteration": 5, '
        '"checkpoint_path": "/elsewhere/algorithm_0/trial_0/checkpoint_0000005.pkl.zst"}'
    )
    assert started.load_trial_result(0, 0).algorithm == "zstd"
    save(started, 7)
    assert started.load_checkpoint(0, 0)[2] == 7  # type: ignore[index]


def test_a_pickle_of_code_that_is_gone_says_where_it_is(started: CheckpointManager, tmp_path: Path) -> None:
    save(started, 1, algorithm=Agent(1))
    path = tmp_path / "run/algorithm_0/trial_0/checkpoint_0000001.pkl.zst"
    moved = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().replace(b"Agent", b"Moved")
    path.write_bytes(zstandard.compress(moved))
    with pytest.raises(AttributeError) as caught:
        started.load_checkpoint(0, 0)
    assert "may have changed" in caught.value.__notes__[0]


def test_agent_keyed_attributes_belong_to_the_network(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run", key_of=stable_key)
    network, algorithm = Network(), Counting()
    algorithm.weights = {agent: agent.number / 2 for agent in reversed(network.agents)}
    before = dict(algorithm.weights)
    network.algorithm = algorithm  # type: ignore[attr-defined]
    manager.save_checkpoint(alg_idx=0, trial=0, iteration=0, algorithm=algorithm, network=network, rng_state=None)
    assert algorithm.weights == before
    loaded = manager.load_checkpoint(0, 0)
    assert loaded is not None
    assert loaded[1].algorithm is loaded[0]
    assert list(loaded[0].weights) == list(reversed(loaded[1].agents))
    other = Network()
    assert list(manager.load_checkpoint(0, 0, network=other)[0].weights) == list(reversed(other.agents))  # type: ignore[index]
    with pytest.raises(ValueError, match=r"Counting\.weights.*does not have: 2"):
        manager.load_checkpoint(0, 0, network=Network(2))
    with pytest.raises(ValueError, match="same key_of"):
        CheckpointManager(tmp_path / "run").load_checkpoint(0, 0)


def test_two_agents_of_one_key_are_refused(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run", key_of=stable_key)
    algorithm = Counting()
    algorithm.weights = {Agent(1): 1.0, Agent(1): 2.0}
    with pytest.raises(ValueError, match="tell agents apart"):
        save(manager, 0, algorithm=algorithm)


def test_dictionaries_with_other_keys_stay_as_they_are(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run", key_of=stable_key)
    algorithm = Counting()
    algorithm.weights = {"a": 1.0}
    save(manager, 0, algorithm=algorithm)
    assert manager.load_checkpoint(0, 0)[0].weights == {"a": 1.0}  # type: ignore[index]


def test_a_manager_goes_to_another_process(tmp_path: Path) -> None:
    manager = CheckpointManager(
        tmp_path / "run",
        3,
        KeepLatest(2),
        {"a": 1},
        5,
        storage_options={"skip_instance_cache": True},
        key_of=stable_key,
    )
    other = pickle.loads(pickle.dumps(manager))
    assert other.url == manager.url
    assert [other.should_checkpoint(iteration) for iteration in range(3)] == [False, False, True]
    assert pickle.dumps(other) == pickle.dumps(manager)


def test_a_mark_of_fewer_iterations_than_there_are_now_counts_for_nothing(started: CheckpointManager) -> None:
    """Of a worker that has read the old total, and marks the trial behind the back of who extends."""
    other = CheckpointManager(started.url)
    complete(other, 0, 0, "a")
    marked = other._storage.get("algorithm_0/trial_0/complete.json")
    started.extend(increase_iterations=5)
    other._storage.put("algorithm_0/trial_0/complete.json", marked)
    assert not started.is_trial_complete(0, 0)
    assert started.completed_trials() == set()
    complete(other, 0, 0, "a")
    assert started.completed_trials() == {(0, 0)}


def test_storage_draws_nothing_from_the_algorithms_generators() -> None:
    # What is not there is asked for as well, and that is a call that fails.
    manager = CheckpointManager(RetryingStorage(DictStorage()), 1)
    random.seed(1)
    before = random.getstate()
    manager.initialize([Counting("a")], None, 1)
    save(manager, 0)
    manager.append_metadata({"a": 1})
    assert not manager.is_trial_complete(0, 0)
    assert random.getstate() == before


def test_rewinding_a_run_of_another_version_goes_on_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "run/algorithm_0/trial_0"
    folder.mkdir(parents=True)
    older = {"algorithm": "older", "network": None, "iteration": 10, "rng_state": None}
    (folder / "checkpoint_0000010.pkl").write_bytes(pickle.dumps(older))
    save(CheckpointManager(tmp_path / "run"), 5)
    assert CheckpointManager(tmp_path / "run").load_checkpoint(0, 0)[2] == 5  # type: ignore[index]


def test_an_algorithm_without_a_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "run")
    with pytest.raises(AttributeError, match="name"):
        manager.mark_trial_complete(alg_idx=0, trial=0, iteration=1, algorithm=object(), network=None)
    assert manager.is_empty()
