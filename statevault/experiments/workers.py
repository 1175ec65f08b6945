"""Who runs the trials: this process, processes of its own, or an executor of the caller's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from typing import Any, Self, TypeAlias

from typing_extensions import override

from statevault.errors import WorkerDiedError
from statevault.experiments.remote import run_packed
from statevault.experiments.trial_run import Ending, Outcome, TrialId, TrialRunner

__all__ = [
    "AnyExecutor",
    "ExecutorWorkers",
    "InProcessWorkers",
    "JoblibWorkers",
    "Workers",
    "submitted",
]

AnyExecutor: TypeAlias = Executor | Callable[[Iterable[Any]], Any]
"""A :class:`concurrent.futures.Executor` (of Dask, loky, mpi4py, …), or a ``joblib.Parallel``."""


class Workers(ABC):
    """What runs trials, as long as the ``with`` block lasts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def run(self, trials: Sequence[TrialId]) -> Iterator[Outcome]:
        """Try to run trials; yields what became of each, in any order.

        Raises:
            WorkerDiedError: A process died. Trials of which no outcome came are as they were saved last.
        """


class InProcessWorkers(Workers):
    """This process, one trial after the other.

    Args:
        runner: Runs them.
    """

    def __init__(self, runner: TrialRunner) -> None:
        self._runner = runner

    @override
    def run(self, trials: Sequence[TrialId]) -> Iterator[Outcome]:
        return map(self._runner.run, trials)


class ExecutorWorkers(Workers):
    """An executor of the caller's, who starts and ends it.

    Args:
        executor: Runs functions, here or elsewhere.
        packed: What they need, from :func:`statevault.experiments.remote.pack`.
    """

    def __init__(self, executor: Executor, packed: bytes) -> None:
        self._executor = executor
        self._packed = packed

    @override
    def run(self, trials: Sequence[TrialId]) -> Iterator[Outcome]:
        try:
            yield from submitted(self._executor, self._packed, trials)
        except BrokenExecutor as error:
            raise WorkerDiedError(f"a worker of {type(self._executor).__name__} died: {error}") from error


class JoblibWorkers(Workers):
    """A ``joblib.Parallel`` of the caller's.

    Args:
        parallel: Runs delayed calls, by whichever backend it has.
        packed: As for :class:`ExecutorWorkers`.
    """

    def __init__(self, parallel: Callable[[Iterable[Any]], Any], packed: bytes) -> None:
        self._parallel = parallel
        self._packed = packed

    @override
    def run(self, trials: Sequence[TrialId]) -> Iterator[Outcome]:
        from joblib import delayed  # noqa: PLC0415 - whoever has a Parallel has joblib

        try:
            yield from self._parallel(delayed(run_packed)(self._packed, trial) for trial in trials)
        except BrokenExecutor as error:
            raise WorkerDiedError(f"a worker of {type(self._parallel).__name__} died: {error}") from error


def submitted(executor: Executor, packed: bytes, trials: Sequence[TrialId]) -> Iterator[Outcome]:
    """Submit all trials; yields their outcomes as they come.

    Raises:
        BrokenExecutor: The executor has lost a worker.
    """
    futures: dict[Future[Outcome], TrialId] = {}
    try:
        for trial in trials:
            futures[executor.submit(run_packed, packed, trial)] = trial
        for future in as_completed(futures):
            yield _outcome(futures[future], future)
    finally:
        for future in futures:
            future.cancel()


def _outcome(trial: TrialId, future: Future[Outcome]) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenExecutor) or not isinstance(error, Exception):
        raise error
    # Not of the trial: those come as outcomes. The executor could not run it, or not bring back what became of it.
    error.add_note(f"from the executor that was to run trial {trial.trial} of algorithm {trial.alg_idx}")
    return Outcome(trial, Ending.FAILED, error=error)
