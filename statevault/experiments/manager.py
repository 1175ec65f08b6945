"""The CheckpointManager: what users and the runner hold in their hands."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from statevault.errors import ExperimentNotFoundError, ObjectNotFoundError, TrialIncompleteError
from statevault.experiments.loading_bar import loading_bar
from statevault.experiments.records import AlgorithmEntry
from statevault.experiments.results import ExperimentResult, TrialResult
from statevault.experiments.trials import ExperimentTrials

__all__ = ["CheckpointManager"]

_logger = logging.getLogger(__name__)


class CheckpointManager(ExperimentTrials):
    """Keeps a batch experiment, several algorithms by several trials, in a folder on any storage.

    **Algorithms, networks and problems are pickles: loading them runs code of whoever can write to the folder.**

    Every write is atomic and has a digest. Whoever saves checkpoints of a trial holds a claim on it, until the trial is
    complete, the manager is closed, or the process ends.

    Args:
        checkpoint_dir: A path, or the URL of any storage that fsspec reaches. It need not exist.
        checkpoint_step: After how many iterations a checkpoint is due; None for none but the last.
        keep_n_checkpoints: How many checkpoints of a trial are kept, in the order in which they were saved; or a
            policy, such as :class:`~statevault.KeepPeriodic`. The newest, and that of a complete trial, always stay.
        benchmark_metadata: What is kept in the metadata beside the totals: a JSON object.
        compression_level: The zstd level, -100 to 22.
        storage_options: What fsspec's filesystem of that protocol takes; where silent, the usual environment variables
            hold.
        key_of: The stable key of an agent, and None for what is none: attributes of an algorithm that are dictionaries
            with agents as keys are stored by those.
        agents_of: The agents of a network; by default its ``agents``.

    Raises:
        TypeError: A step or a count is no integer.
        ValueError: One is not positive.
        UnsupportedTypeError: `benchmark_metadata` is not JSON.
        InvalidNameError: The URL can't be used.
        MissingExtraError: The protocol needs a package that is not installed.
    """

    def load_trial_result(self, alg_idx: int, trial: int) -> TrialResult:
        """Load a complete trial.

        **This runs code that the file names.**

        Raises:
            TrialIncompleteError: It is not complete: a ValueError.
            CorruptStateError: It is damaged: a ValueError.
            StorageError: The storage failed.
        """
        checkpoints = self._look_at(alg_idx, trial)
        record = checkpoints.completion()
        key = None if record is None else checkpoints.final_key(record)
        if record is None or key is None:
            raise TrialIncompleteError(f"trial {trial} of algorithm {alg_idx} in {self.url} is not complete")
        try:
            checkpoint = checkpoints.load(key)
        except ObjectNotFoundError:
            raise TrialIncompleteError(
                f"trial {trial} of algorithm {alg_idx} in {self.url} is being worked on"
            ) from None
        self._put_back(checkpoint, None)
        return TrialResult(
            alg_idx=alg_idx,
            alg_name=record.alg_name,
            trial=trial,
            iteration=checkpoint["iteration"],
            algorithm=checkpoint["algorithm"],
            network=checkpoint["network"],
        )

    def is_benchmark_completed(self) -> bool:
        """Whether all trials of all algorithms are complete. False where there is no experiment.

        Raises:
            StorageError: The storage failed.
        """
        try:
            metadata = self._metadata.read()
        except ExperimentNotFoundError:
            return False
        complete = self.completed_trials()
        return all(
            (entry.index, trial) in complete for entry in metadata.algorithms for trial in range(metadata.n_trials)
        )

    def load_benchmark_result(self) -> ExperimentResult:
        """Load all algorithms of which all trials are complete. Others are left out, with a warning.

        **This runs code that the files name.** A progress bar is shown in a terminal above 1 GB.

        Raises:
            ExperimentNotFoundError: The folder holds no experiment.
            CorruptStateError: A complete trial is damaged.
            StorageError: The storage failed.
        """
        metadata = self._metadata.read()
        problem = self.load_benchmark_problem()
        complete = self.completed_trials()
        whole = [entry for entry in metadata.algorithms if self._is_finished(entry, metadata.n_trials, complete)]
        trials: dict[str, list[TrialResult]] = {}
        # What lies there, and not only what is loaded: an upper bound will do for the decision.
        size = sum(found.size for found in self._storage.list("algorithm_"))
        with loading_bar(f"loading {self.url}", size, steps=len(whole) * metadata.n_trials) as advance:
            for entry in whole:
                trials[entry.name] = []
                for trial in range(metadata.n_trials):
                    trials[entry.name].append(self.load_trial_result(entry.index, trial))
                    advance()
        return ExperimentResult(problem, trials)

    def _is_finished(self, entry: AlgorithmEntry, n_trials: int, complete: set[tuple[int, int]]) -> bool:
        unfinished = [trial for trial in range(n_trials) if (entry.index, trial) not in complete]
        if unfinished:
            _logger.warning(
                "%s is left out: %d of its %d trials are not complete (%s)",
                entry.name,
                len(unfinished),
                n_trials,
                ", ".join(map(str, unfinished[:10])),
            )
            return False
        names = Counter(
            record.alg_name
            for trial in range(n_trials)
            if (record := self._look_at(entry.index, trial).completion()) is not None
        )
        if set(names) != {entry.name}:
            _logger.warning("%s is left out: its trials are of %s", entry.name, ", ".join(sorted(names)))
            return False
        return True

    def save_metrics_result(self, result: Any) -> None:
        """Store computed metrics.

        Once all trials are complete, a field (or key) ``network_views`` is left out: it is made anew of the trials when
        the metrics are loaded. The caller's object is not changed.

        Args:
            result: Any object that pickle takes.

        Raises:
            ExperimentNotFoundError: The folder holds no experiment.
            UnsupportedTypeError: Pickle can't take it.
            StorageError: The storage failed.
        """
        self._metrics.save(result, self._metadata.read(), leave_out_views=self.is_benchmark_completed())

    def load_metrics_result(self, skip_network_views: bool = False) -> Any:
        """Load the computed metrics.

        **This runs code that the files name.**

        Args:
            skip_network_views: Leave the field ``network_views`` out, which is None then.

        Returns:
            What was given to :meth:`save_metrics_result`. A field ``network_views`` that was left out is made anew:
            the networks of the trials, in order, by the name of the algorithm.

        Raises:
            ExperimentNotFoundError: They are not computed, or not of all trials that there are now.
            CorruptStateError: They are damaged.
            StorageError: The storage failed.
        """

        def rebuilt() -> dict[str, list[Any]]:
            trials = self.load_benchmark_result().trials
            return {name: [result.network for result in results] for name, results in trials.items()}

        return self._metrics.load(self._metadata.read(), None if skip_network_views else rebuilt)

    def are_metrics_computed(self) -> bool:
        """Whether the metrics are there, and are of all trials and iterations that there are now.

        Raises:
            StorageError: The storage failed.
        """
        try:
            return self._metrics.marker(self._metadata.read()) is not None
        except ExperimentNotFoundError:
            return False
