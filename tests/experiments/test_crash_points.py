"""A worker that fails, or dies, at every single storage call, in each way a call can fail; then another goes on.

Invariants: what was acknowledged is not lost, nothing half is loaded, and the trial can be finished.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from statevault.errors import StateVaultError, TrialTakenError
from statevault.experiments import CheckpointManager
from statevault.experiments.layout import METADATA_CLAIMS, METADATA_KEY, trial_claims
from tests.experiments.objects import Counting
from tests.state_persistence.storages import FAILURES, DictStorage, FailingStorage, Failure, ProcessDiedError

DIES = [pytest.param(True, id="dies"), pytest.param(False, id="error")]


class Worker:
    """Saves iterations 0 to 4 of a trial, the last one as its end; remembers what was acknowledged."""

    def __init__(self, storage: DictStorage | FailingStorage, mark: str) -> None:
        self.manager = CheckpointManager(storage, keep_n_checkpoints=2)
        self.mark = mark
        self.acknowledged = -1
        self.is_complete = False

    def run(self, start: int = 0) -> None:
        for iteration in range(start, 4):
            self._save(self.manager.save_checkpoint, iteration)
        self._save(self.manager.mark_trial_complete, 4)
        self.is_complete = True
        self.manager.close()

    def _save(self, method: object, iteration: int) -> None:
        method(  # type: ignore[operator]
            alg_idx=0,
            trial=0,
            iteration=iteration,
            algorithm=Counting("a", 5),
            network=(self.mark, iteration),
            rng_state=None,
        )
        self.acknowledged = iteration


def an_experiment() -> DictStorage:
    storage = DictStorage()
    with CheckpointManager(storage) as manager:
        manager.initialize([Counting("a", 5)], None, 1)
    return storage


def calls_of_a_run() -> int:
    failing = FailingStorage(an_experiment())
    Worker(failing, "counted").run()
    return len(failing.calls)


def check(storage: DictStorage, worker: Worker, what: str) -> int:
    """Look at what is there; returns the iteration at which the trial goes on."""
    manager = CheckpointManager(storage)
    loaded = manager.load_checkpoint(0, 0)
    last = -1 if loaded is None else loaded[2]
    assert last in (worker.acknowledged, worker.acknowledged + 1), what
    if loaded is not None:
        assert loaded[1] == (worker.mark, last), what
    if worker.is_complete:
        assert manager.is_trial_complete(0, 0), what
    if manager.is_trial_complete(0, 0):
        assert manager.load_trial_result(0, 0).network == (worker.mark, 4), what
    return last + 1


@pytest.mark.parametrize("dies", DIES)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_worker_fails_at_every_call_of_a_trial(failure: Failure, dies: bool) -> None:
    for number in range(1, calls_of_a_run() + 1):
        storage = an_experiment()
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=dies)
        worker = Worker(failing, "first")
        with suppress(StateVaultError, ProcessDiedError):
            worker.run()
        what = f"call {number}: {failing.calls[number - 1]}"
        start = check(storage, worker, what)
        forget_claims(worker, storage)
        second = Worker(storage, "second")
        second.run(min(start, 4))
        check_finished(storage, what)
        failing.land()
        check_finished(storage, what)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_process_dies_at_every_call_of_an_initialization(failure: Failure) -> None:
    failing = FailingStorage(DictStorage())
    CheckpointManager(failing).initialize([Counting("a", 5)], "problem", 1)
    for number in range(1, len(failing.calls) + 1):
        storage = DictStorage()
        dying = FailingStorage(storage, fail_at=number, failure=failure, dies=True)
        with pytest.raises(ProcessDiedError):
            CheckpointManager(dying).initialize([Counting("a", 5)], "problem", 1)
        manager = CheckpointManager(storage)
        if failure is Failure.TORN and METADATA_KEY in storage.objects:
            continue  # of a backend that puts no object atomically nothing is promised but that it is told
        storage.delete([key for key in list(storage.objects) if key.startswith(METADATA_CLAIMS)])  # it is dead
        if not manager.is_benchmark_started():
            manager.initialize([Counting("a", 5)], "problem", 1)
        dying.land()
        assert manager.load_benchmark_problem() == "problem"
        assert [algorithm.name for algorithm in manager.load_initial_algorithms()] == ["a"]


@pytest.mark.parametrize("dies", DIES)
@pytest.mark.parametrize("failure", [Failure.NO_EFFECT, Failure.LOST_ANSWER])
def test_an_extension_that_fails_at_any_call_can_be_made_again(failure: Failure, dies: bool) -> None:
    counted = FailingStorage(finished())
    CheckpointManager(counted).extend(increase_iterations=3)
    for number in range(1, len(counted.calls) + 1):
        storage = finished()
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=dies)
        manager = CheckpointManager(failing)
        with suppress(StateVaultError, ProcessDiedError):
            manager.extend(increase_iterations=3)
        total = CheckpointManager(storage).load_metadata()["algorithms"][0]["iterations"]
        assert total in (5, 8), failing.calls[-1]
        again = CheckpointManager(storage)
        assert again.load_checkpoint(0, 0)[2] == 4  # type: ignore[index]
        if total == 8:
            assert not again.is_trial_complete(0, 0)


def finished() -> DictStorage:
    storage = an_experiment()
    Worker(storage, "done").run()
    return storage


def check_finished(storage: DictStorage, what: str) -> None:
    manager = CheckpointManager(storage)
    assert manager.is_benchmark_completed(), what
    mark, iteration = manager.load_trial_result(0, 0).network
    assert iteration == 4, what
    assert mark in ("first", "second"), what


def forget_claims(worker: Worker, storage: DictStorage) -> None:
    """The process is dead: what it held is told to be a dead process's, here by taking it away."""
    with suppress(ProcessDiedError):
        worker.manager._claims.release_all()
    storage.delete([key for key in list(storage.objects) if key.startswith(trial_claims(0, 0))])


def test_a_worker_that_was_taken_for_dead_is_told_at_its_next_checkpoint() -> None:
    storage = an_experiment()
    worker = Worker(storage, "first")
    worker._save(worker.manager.save_checkpoint, 0)
    storage.delete([key for key in list(storage.objects) if key.startswith(trial_claims(0, 0))])
    with pytest.raises(TrialTakenError, match="stop here"):
        worker._save(worker.manager.save_checkpoint, 1)
    assert CheckpointManager(storage).load_checkpoint(0, 0)[2] == 0  # type: ignore[index]
