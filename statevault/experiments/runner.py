"""Batch experiments: several algorithms, each in several trials, run to the end whatever interrupts them.

How many trials and iterations there are to be, and what they draw, follows from what lies in the experiment's folder,
never from what a caller remembers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from statevault.experiments.algorithm import check_runnable, network_of
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.processes import ProcessWorkers, shared_cells
from statevault.experiments.progress import TrialCounts
from statevault.experiments.remote import pack
from statevault.experiments.results import ExperimentResult
from statevault.experiments.rounds import Rounds
from statevault.experiments.seeds import checked_seed, new_seed
from statevault.experiments.trial_run import TrialRunner
from statevault.experiments.workers import (
    AnyExecutor,
    ExecutorWorkers,
    InProcessWorkers,
    JoblibWorkers,
    Workers,
)

if TYPE_CHECKING:
    from statevault.experiments.metrics import Metric

__all__ = ["resume_experiment", "run_experiment"]

_logger = logging.getLogger(__name__)

_BACKUP_TRIES = 5


def run_experiment(
    manager: CheckpointManager,
    algorithms: Sequence[Any],
    problem: Any,
    n_trials: int,
    *,
    seed: int | None = None,
    n_processes: int = 1,
    executor: AnyExecutor | None = None,
    make_network: Callable[[Any], Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    show_progress: bool | None = None,
) -> ExperimentResult:
    """Run a new experiment to its end.

    Args:
        manager: Where it is kept, and how often trials are saved.
        algorithms: What is compared: see :class:`~statevault.experiments.algorithm.Algorithm`. They are pickled into
            the folder; each trial works on a copy.
        problem: What they are to solve; any object that can be pickled.
        n_trials: How many trials each algorithm is given.
        seed: What all that is drawn follows from; None: one is drawn. It is kept in the metadata.
        n_processes: In how many processes trials run. More than one are spawned: a script must call this below
            ``if __name__ == "__main__":``.
        executor: Runs the trials instead: a :class:`concurrent.futures.Executor` or a ``joblib.Parallel``. Its
            workers must reach the folder. Those that are threads of one process take turns.
        make_network: Makes a trial's network from the problem. By default it is a deep copy of ``problem.network``, or
            of the problem where it has none. For other processes it must be picklable.
        metrics: What is computed of the result: see :func:`~statevault.experiments.metrics.compute_metrics`. The
            tables and plots are written below ``results/``.
        show_progress: Show bars on stderr; None: if it is a terminal and rich is installed. False: neither bars nor
            lines in the log.

    Returns:
        What all trials came to.

    Raises:
        ExperimentExistsError: The folder holds an experiment already: go on with :func:`resume_experiment`.
        ExceptionGroup: Trials failed, each for one of the exceptions, or a process died
            (:class:`~statevault.errors.WorkerDiedError`). All others were run. Notes say where.
        UnsupportedTypeError: `make_network`, or the manager, can't be sent to another process.
        TypeError: An algorithm is none, the seed is no whole number, or the executor no executor.
        ValueError: A count is less than 1, names are not different, or both `n_processes` and `executor` are given.
        StorageError: The storage failed.
    """
    check_runnable(algorithms)
    seed = new_seed() if seed is None else checked_seed(seed)
    setting = _Setting(manager, n_processes, executor, make_network)
    manager.initialize(list(algorithms), problem, n_trials, rng_seed=seed)
    _logger.info("Experiment in %s: %d algorithms, %d trials, seed %d", manager.url, len(algorithms), n_trials, seed)
    return setting.run(metrics, bars=show_progress)


def resume_experiment(
    manager: CheckpointManager,
    increase_iterations: int = 0,
    increase_trials: int = 0,
    create_backup: bool = True,
    *,
    n_processes: int = 1,
    executor: AnyExecutor | None = None,
    make_network: Callable[[Any], Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    show_progress: bool | None = None,
) -> ExperimentResult:
    """Go on with an experiment, from the newest whole checkpoint of each trial, and extend it if wanted.

    Several may do that at the same time, with one folder: they share the trials, and each returns when all are
    complete.

    Args:
        manager: Where it is kept.
        increase_iterations: How many iterations each algorithm is given in addition. Written down before anything is
            run: resume without it if this run is interrupted.
        increase_trials: How many trials each algorithm is given in addition; likewise.
        create_backup: Make a zip of the folder first, beside it.
        n_processes: As for :func:`run_experiment`, and so are all others. It needs not be as it was.
        executor: See there.
        make_network: See there. It must be what the experiment was begun with.
        metrics: See there.
        show_progress: See there.

    Returns:
        What all trials came to.

    Raises:
        ExperimentNotFoundError: The folder holds no experiment.
        ExceptionGroup: As for :func:`run_experiment`, and so are all others.
        UnsupportedTypeError: See there.
        TypeError: See there.
        ValueError: A number is negative, or `n_processes` less than 1.
        StorageError: The storage failed.
    """
    for name, value in (("increase_iterations", increase_iterations), ("increase_trials", increase_trials)):
        if value < 0:
            raise ValueError(f"{name} is {value}: an experiment can't be made smaller")
    setting = _Setting(manager, n_processes, executor, make_network)
    manager.load_metadata()
    if create_backup:
        _back_up(manager)
    if increase_iterations or increase_trials:
        manager.extend(increase_iterations=increase_iterations, increase_trials=increase_trials)
    return setting.run(metrics, bars=show_progress)


class _Setting:
    """How an experiment is run."""

    def __init__(
        self,
        manager: CheckpointManager,
        n_processes: int,
        executor: AnyExecutor | None,
        make_network: Callable[[Any], Any] | None,
    ) -> None:
        if n_processes < 1:
            raise ValueError(f"n_processes is {n_processes}; 1 is the least")
        if executor is not None and n_processes > 1:
            raise ValueError("give either n_processes or an executor: the executor has its own number of workers")
        if not (executor is None or isinstance(executor, Executor) or callable(executor)):
            raise TypeError(
                f"executor is a {type(executor).__name__}, and must be a concurrent.futures.Executor or joblib.Parallel"
            )
        if n_processes > 1 and manager.url.startswith("memory:"):
            raise ValueError(f"{manager.url} is memory of this process: other processes find nothing there")
        self._manager = manager
        self._n_processes = n_processes
        self._executor = executor
        self._make_network = make_network or network_of
        # Now, so that what can't be sent is refused before anything is written.
        self._packed = b"" if executor is None and n_processes == 1 else pack(manager, self._make_network)

    def run(self, metrics: Mapping[str, Metric] | None, *, bars: bool | None) -> ExperimentResult:
        counts = self._counts()
        with self._workers(counts) as workers:
            result = Rounds(self._manager, workers, counts, bars=bars).run()
        if metrics is not None:
            _evaluate(self._manager, result, metrics)
        return result

    def _counts(self) -> TrialCounts:
        metadata = self._manager.load_metadata()
        algorithms, n_trials = metadata["algorithms"], metadata["n_trials"]
        return TrialCounts(
            [algorithm["name"] for algorithm in algorithms],
            [algorithm["iterations"] for algorithm in algorithms],
            n_trials,
            shared_cells(len(algorithms) * n_trials) if self._n_processes > 1 else None,
        )

    def _workers(self, counts: TrialCounts) -> Workers:
        if self._executor is None:
            if self._n_processes > 1:
                return ProcessWorkers(self._n_processes, self._packed, counts)
            return InProcessWorkers(TrialRunner(self._manager, self._make_network, counts))
        if isinstance(self._executor, Executor):
            return ExecutorWorkers(self._executor, self._packed)
        return JoblibWorkers(self._executor, self._packed)


def _back_up(manager: CheckpointManager) -> None:
    """Make a backup. Its name holds the second: of several runs that begin in the same one, each makes its own."""
    for attempt in range(_BACKUP_TRIES):
        try:
            path = manager.create_backup()
        except FileExistsError:
            if attempt + 1 == _BACKUP_TRIES:
                raise
            time.sleep(1.0)
        else:
            _logger.info("Backup of %s: %s", manager.url, path)
            return


def _evaluate(manager: CheckpointManager, result: ExperimentResult, metrics: Mapping[str, Metric]) -> None:
    from statevault.experiments.metrics import compute_metrics  # noqa: PLC0415 - with what draws plots, only when asked
    from statevault.experiments.report import write_results  # noqa: PLC0415

    computed = compute_metrics(result, metrics)
    manager.save_metrics_result(computed)
    for path in write_results(manager, computed):
        _logger.info("Wrote %s", path)
