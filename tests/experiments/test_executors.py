"""Trials in other processes and threads: the same results, errors that say where, and nothing left behind."""

from __future__ import annotations

import importlib
import json
import logging
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from statevault.errors import TrialFailedError, WorkerDiedError
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.runner import resume_experiment, run_experiment
from statevault.experiments.workers import AnyExecutor
from tests.experiments.learners import FAIL_AT, Learner, Problem, learners, make_tagged, picture
from tests.experiments.test_oracle import ITERATIONS, TRIALS, uninterrupted
from tests.servers import Servers

SEED = 5


def run(manager: CheckpointManager, **keywords: Any) -> dict[str, list[Any]]:
    arguments: dict[str, Any] = {"make_network": make_tagged, "show_progress": False, **keywords}
    return picture(run_experiment(manager, learners(ITERATIONS), Problem(), TRIALS, seed=SEED, **arguments))


def resume(manager: CheckpointManager, iterations: int = 0, trials: int = 0, **keywords: Any) -> dict[str, list[Any]]:
    arguments: dict[str, Any] = {"make_network": make_tagged, "show_progress": False, **keywords}
    return picture(resume_experiment(manager, iterations, trials, create_backup=False, **arguments))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[CheckpointManager]:
    with CheckpointManager(tmp_path / "experiment", 1) as manager:
        yield manager


@pytest.mark.parametrize(
    "backend", ["local", *(pytest.param(name, marks=pytest.mark.long) for name in ("juicefs", "fake-gcs"))]
)
def test_two_processes_give_what_one_gives_also_when_extended(backend: str, servers: Servers) -> None:
    target = servers.target(backend)
    with CheckpointManager(target.url, 2, storage_options=target.storage_options) as manager:
        assert run(manager, n_processes=2) == uninterrupted(SEED, ITERATIONS, TRIALS)
        assert resume(manager, 2, 1, n_processes=2) == uninterrupted(SEED, ITERATIONS + 2, TRIALS + 1)


def test_generators_that_come_with_the_algorithms_are_seeded_in_a_fresh_process(
    manager: CheckpointManager, tmp_path: Path
) -> None:
    """A worker has no torch before it loads the algorithms: only they bring it."""
    spawned = run(manager, n_processes=2, make_network=None)
    assert spawned == run(CheckpointManager(tmp_path / "here"), make_network=None)


def test_progress_of_workers_is_seen(manager: CheckpointManager, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(manager, n_processes=2, show_progress=None)
    assert f"slow: {ITERATIONS * TRIALS} of {ITERATIONS * TRIALS} iterations" in caplog.text


def test_a_failure_in_a_worker_tells_where_it_was_and_ends_no_other_trial(
    manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAIL_AT, "fast:3:raise")
    with pytest.raises(ExceptionGroup) as caught:
        run(manager, n_processes=2)
    assert len(caught.value.exceptions) == TRIALS
    for error in caught.value.exceptions:
        assert isinstance(error, ArithmeticError)
        where, trace = error.__notes__
        assert where.startswith("in algorithm 'fast' (number 1), trial ")
        assert "iteration 3" in where
        assert "learners.py" in trace
    assert manager.get_completed_trials(0) == [0, 1]
    monkeypatch.delenv(FAIL_AT)
    assert resume(manager, n_processes=2) == uninterrupted(SEED, ITERATIONS, TRIALS)


def test_a_failure_that_can_not_be_sent_is_told_in_words(
    manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAIL_AT, "fast:3:unpicklable")
    with pytest.raises(ExceptionGroup) as caught:
        run(manager, n_processes=2)
    for error in caught.value.exceptions:
        assert isinstance(error, TrialFailedError)
        assert "UnpicklableError" in str(error)
        assert "in algorithm 'fast' (number 1), trial " in str(error)


def test_a_killed_worker_is_an_error_and_a_resume_goes_on(
    manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAIL_AT, "fast:3:die")
    with pytest.raises(ExceptionGroup) as caught:
        run(manager, n_processes=2)
    (error,) = caught.value.exceptions
    assert isinstance(error, WorkerDiedError)
    assert "was killed by SIGKILL" in str(error)
    monkeypatch.delenv(FAIL_AT)
    assert any(manager.load_checkpoint(1, trial) is not None for trial in range(TRIALS))
    assert resume(manager) == uninterrupted(SEED, ITERATIONS, TRIALS)


@contextmanager
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(3) as executor:
        yield executor


@contextmanager
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@contextmanager
def joblib_parallel(backend: str, **keywords: Any) -> Iterator[AnyExecutor]:
    joblib = pytest.importorskip("joblib")
    with joblib.Parallel(2, backend=backend, **keywords) as parallel:
        yield parallel
    if backend == "loky":
        loky = importlib.import_module("joblib.externals.loky")
        loky.get_reusable_executor().shutdown(kill_workers=True)


@contextmanager
def ray_parallel() -> Iterator[AnyExecutor]:
    ray = pytest.importorskip("ray")
    joblib = pytest.importorskip("joblib")
    importlib.import_module("ray.util.joblib").register_ray()
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(Path.cwd())}})
    try:
        with joblib.Parallel(2, backend="ray") as parallel:
            yield parallel
    finally:
        ray.shutdown()


@contextmanager
def dask() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=2, dashboard_address=None) as client:
        yield client.get_executor()


EXECUTORS: dict[str, Callable[[], Any]] = {
    "threads": threads,
    "processes": processes,
    "loky": lambda: joblib_parallel("loky"),
    "loky-unordered": lambda: joblib_parallel("loky", return_as="generator_unordered"),
    "joblib-threads": lambda: joblib_parallel("threading"),
    "joblib-sequential": lambda: joblib_parallel("sequential"),
}


@pytest.mark.parametrize(
    "opened",
    [
        *(pytest.param(opened, id=name) for name, opened in EXECUTORS.items()),
        pytest.param(ray_parallel, id="ray", marks=pytest.mark.long),
        pytest.param(dask, id="dask", marks=pytest.mark.long),
    ],
)
def test_executors_give_what_one_process_gives(opened: Callable[[], Any], manager: CheckpointManager) -> None:
    with opened() as executor:
        assert run(manager, executor=executor) == uninterrupted(SEED, ITERATIONS, TRIALS)
        assert resume(manager, 1, 1, executor=executor) == uninterrupted(SEED, ITERATIONS + 1, TRIALS + 1)


def test_a_worker_of_an_executor_that_dies_is_an_error(
    manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAIL_AT, "fast:3:die")
    with (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor,
        pytest.raises(ExceptionGroup) as caught,
    ):
        run(manager, executor=executor)
    (error,) = caught.value.exceptions
    assert isinstance(error, WorkerDiedError)
    assert "ProcessPoolExecutor" in str(error)
    monkeypatch.delenv(FAIL_AT)
    assert resume(manager) == uninterrupted(SEED, ITERATIONS, TRIALS)


def test_a_worker_of_joblib_that_dies_is_an_error(manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FAIL_AT, "fast:3:die")
    with joblib_parallel("loky") as parallel, pytest.raises(ExceptionGroup) as caught:
        run(manager, executor=parallel)
    assert any(isinstance(error, WorkerDiedError) for error in caught.value.exceptions)


def test_a_worker_that_lives_on_does_not_remember_an_older_experiment(manager: CheckpointManager) -> None:
    with ThreadPoolExecutor(1) as executor:
        run(manager, executor=executor)
        manager.clear()
        other = [Learner("other", 2)]
        result = run_experiment(manager, other, Problem(), 1, seed=SEED, executor=executor, make_network=make_tagged)
    assert result.trials.keys() == {"other"}


def test_what_a_worker_can_not_load_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A class that was typed in: there is no file from which a worker could import it."""
    code = f"""
import json, sys
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.runner import run_experiment

class Local:
    name = "local"
    iterations = 1
    def step(self, network, iteration):
        pass

if __name__ == "__main__":
    try:
        run_experiment(CheckpointManager({str(tmp_path / "x")!r}), [Local()], 0, 1, n_processes=2)
    except* AttributeError as group:
        print(json.dumps([str(error) + str(error.__notes__) for error in group.exceptions]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    (message,) = json.loads(done.stdout)
    assert "Local" in message
    assert "trial 0" in message
