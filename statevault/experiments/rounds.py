"""All trials of an experiment, round after round, until none is left: with whoever else works on them.

What is left is asked of the folder in each round, since others complete trials as well, and may extend the experiment
meanwhile. A trial that another run has begun is left to that, and looked at again when this run has nothing else to do.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

from statevault.errors import CorruptStateError, TrialIncompleteError, TrialTakenError, WorkerDiedError
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.progress import TrialCounts, shown
from statevault.experiments.results import ExperimentResult
from statevault.experiments.trial_run import Ending, Outcome, TrialId
from statevault.experiments.workers import Workers

__all__ = ["Rounds"]

_logger = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_REPORT_EVERY_S = 10.0
_NAMED = 5
_LOOKS_AT_RESULT = 5


class Rounds:
    """Runs what is not complete.

    Args:
        manager: Where the experiment is kept.
        workers: Who run the trials.
        counts: Is told which trials are complete, and shown while they run.
        bars: How: see :func:`~statevault.experiments.progress.shown`.
    """

    def __init__(self, manager: CheckpointManager, workers: Workers, counts: TrialCounts, *, bars: bool | None) -> None:
        self._manager = manager
        self._workers = workers
        self._counts = counts
        self._bars = bars
        self._complete: set[TrialId] = set()
        self._iterations: list[int] = []
        self._failed: dict[TrialId, Exception] = {}

    def run(self) -> ExperimentResult:
        """Run until all trials are complete.

        Returns:
            The result.

        Raises:
            ExceptionGroup: Trials failed, or a worker died.
            CorruptStateError: Complete trials are damaged again and again.
            StorageError: The storage failed.
        """
        for _ in range(_LOOKS_AT_RESULT):
            with shown(self._counts, bars=self._bars):
                self._run_what_is_left()
            try:
                result = self._manager.load_benchmark_result()
            except (CorruptStateError, TrialIncompleteError) as error:
                _logger.warning("The result is not whole: %s", error)
                self._reopen_damaged()
                continue
            # Another run may have extended the experiment just now.
            self._complete.clear()
            if not self._left():
                return result
        return self._manager.load_benchmark_result()

    def _run_what_is_left(self) -> None:
        others = _Others(self._manager.url)
        while left := self._left():
            try:
                outcomes = [self._note(outcome) for outcome in self._workers.run(left)]
            except WorkerDiedError as error:
                self._fail([*self._failed.values(), error])
            if all(outcome.ending is Ending.TAKEN for outcome in outcomes):
                others.wait(left)
            else:
                others.forget()
        if self._failed:
            self._fail(list(self._failed.values()))

    def _note(self, outcome: Outcome) -> Outcome:
        if outcome.error is not None:
            _logger.warning("Trial %d of algorithm %d failed: %r", *outcome.trial, outcome.error)
            self._failed[outcome.trial] = outcome.error
        elif outcome.ending is Ending.COMPLETE:
            _logger.info("Trial %d of algorithm %d is complete", *outcome.trial)
            self._finish(outcome.trial)
        return outcome

    def _fail(self, errors: list[Exception]) -> None:
        what = "an error has" if len(errors) == 1 else f"{len(errors)} errors have"
        raise ExceptionGroup(
            f"{what} kept trials in {self._manager.url} from being completed. What was saved stays: resume_experiment "
            "goes on from there",
            errors,
        )

    def _left(self) -> list[TrialId]:
        """The trials that are not complete and have not failed; all algorithms of a trial before the next one."""
        metadata = self._manager.load_metadata()
        iterations = [algorithm["iterations"] for algorithm in metadata["algorithms"]]
        if iterations != self._iterations:
            self._iterations = iterations
            self._complete.clear()
        complete = self._manager.completed_trials()
        left: list[TrialId] = []
        for number in range(metadata["n_trials"]):
            for alg_idx in range(len(iterations)):
                trial = TrialId(number, alg_idx)
                if trial in self._complete or trial in self._failed:
                    continue
                if (alg_idx, number) in complete:
                    self._finish(trial)
                else:
                    left.append(trial)
        return left

    def _finish(self, trial: TrialId) -> None:
        self._complete.add(trial)
        self._counts.finish(trial)

    def _reopen_damaged(self) -> None:
        """Let complete trials whose final checkpoint is damaged go on from the one before it."""
        for trial in sorted(self._complete):
            # Others find the damage as well; only one may conclude from it.
            with contextlib.suppress(TrialTakenError), self._manager.working_on(trial.alg_idx, trial.trial):
                try:
                    self._manager.load_trial_result(trial.alg_idx, trial.trial)
                except CorruptStateError as error:
                    _logger.warning("Trial %d of algorithm %d is run again: %s", *trial, error)
                    self._manager.unmark_trial_complete(trial.alg_idx, trial.trial)
                except TrialIncompleteError:
                    continue
        self._complete.clear()


class _Others:
    """Other runs, which have all trials that are left: waits for them a bit longer each time.

    Args:
        url: The experiment's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._reported_at = time.monotonic()
        self._wait_s = _FIRST_WAIT_S

    def wait(self, trials: Sequence[TrialId]) -> None:
        """Wait for some seconds at most; then it is time to look again."""
        if time.monotonic() - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = time.monotonic()
            named = ", ".join(f"trial {trial.trial} of algorithm {trial.alg_idx}" for trial in trials[:_NAMED])
            more = f" and {len(trials) - _NAMED} more" if len(trials) > _NAMED else ""
            # A warning, so that whoever sits at a terminal without a logging configuration sees it too.
            _logger.warning("Waiting for other workers on %s, which have %s%s", self._url, named, more)
        time.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def forget(self) -> None:
        """There was something to do."""
        self._reported_at = time.monotonic()
        self._wait_s = _FIRST_WAIT_S
