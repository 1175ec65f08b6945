"""The trials of an experiment: who works on them, their checkpoints, which are complete."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from upath import UPath

from statevault.errors import ExperimentNotFoundError
from statevault.experiments.agent_keys import put_back
from statevault.experiments.checkpoints import TrialCheckpoints
from statevault.experiments.folder import ExperimentFolder
from statevault.experiments.layout import completion_key, is_completion_key, trial_claims, trial_prefix, trials_in
from statevault.experiments.records import CompletionRecord, ExperimentMetadata
from statevault.state_persistence.whole_numbers import whole_number
from statevault.worker_pool import parallel_map

__all__ = ["ExperimentTrials"]

_logger = logging.getLogger(__name__)
_READERS = 8


class ExperimentTrials(ExperimentFolder):
    """The part of a :class:`~statevault.experiments.CheckpointManager` that is about single trials."""

    def should_checkpoint(self, iteration: int) -> bool:
        """Whether a checkpoint is due after an iteration.

        Args:
            iteration: Its number, from 0.

        Raises:
            TypeError: It is no integer.
            ValueError: It is negative.
        """
        iteration = whole_number("iteration", iteration, minimum=0)
        return self._checkpoint_step is not None and (iteration + 1) % self._checkpoint_step == 0

    @contextmanager
    def working_on(self, alg_idx: int, trial: int) -> Iterator[None]:
        """Work on a trial inside a ``with`` block, alone: no other process, nor another thread of this one, does.

        Args:
            alg_idx: The number of the algorithm.
            trial: The number of the trial.

        Raises:
            TrialTakenError: Another worker has the trial.
            StorageError: The storage failed.
        """
        with self._claims.exclusively(trial_claims(alg_idx, trial)):
            self._worked_on.pop((alg_idx, trial), None)  # somebody else may have worked on it since
            try:
                yield
            finally:
                self._worked_on.pop((alg_idx, trial), None)

    def save_checkpoint(
        self, *, alg_idx: int, trial: int, iteration: int, algorithm: Any, network: Any, rng_state: Any
    ) -> UPath:
        """Save a trial as it is after an iteration; then delete the checkpoints that are not kept.

        Saving the iteration that was saved last again does nothing. An earlier one than the last sets the trial back.
        References that algorithm and network share stay shared.

        Args:
            alg_idx: The number of the algorithm.
            trial: The number of the trial.
            iteration: The last iteration that was completed, from 0.
            algorithm: Any object that pickle takes.
            network: Another one.
            rng_state: The random generators: another one.

        Returns:
            The checkpoint.

        Raises:
            TrialTakenError: Another process works on the trial, or has taken it over.
            TypeError: A number is no integer.
            ValueError: One is negative, or two agents have one key.
            UnsupportedTypeError: Pickle can't take something.
            StorageError: The storage failed.
        """
        alg_idx = whole_number("alg_idx", alg_idx, minimum=0)
        trial = whole_number("trial", trial, minimum=0)
        iteration = whole_number("iteration", iteration, minimum=0)
        self._claim(alg_idx, trial)
        checkpoint = {"algorithm": algorithm, "network": network, "iteration": iteration, "rng_state": rng_state}
        key = self._claimed(alg_idx, trial).save(checkpoint, self._policy, self._pickler([algorithm]))
        return self._storage.path(key)

    def load_checkpoint(self, alg_idx: int, trial: int, *, network: Any = None) -> tuple[Any, Any, int, Any] | None:
        """Load the newest checkpoint of a trial that is whole. Damaged ones are passed over, with a warning.

        **This runs code that the file names.**

        Args:
            alg_idx: The number of the algorithm.
            trial: The number of the trial.
            network: Whose agents become the keys of the algorithm's dictionaries; by default the one of the checkpoint.

        Returns:
            The algorithm, the network, the last completed iteration and the random generators' state: the trial goes on
            at the iteration after it. None if nothing usable was saved.

        Raises:
            ValueError: A stored key is that of no agent of the network.
            StorageError: The storage failed.
        """
        checkpoint = self._look_at(alg_idx, trial).newest_whole()
        if checkpoint is None:
            return None
        self._put_back(checkpoint, network)
        return checkpoint["algorithm"], checkpoint["network"], checkpoint["iteration"], checkpoint.get("rng_state")

    def mark_trial_complete(
        self, *, alg_idx: int, trial: int, iteration: int, algorithm: Any, network: Any, rng_state: Any = None
    ) -> UPath:
        """Save the final checkpoint of a trial, and note that it is complete.

        Args:
            alg_idx: As for :meth:`save_checkpoint`, as are the others.
            trial: The number of the trial.
            iteration: The last iteration.
            algorithm: As it is at the end.
            network: As it is at the end.
            rng_state: As it is at the end.

        Returns:
            The checkpoint.

        Raises:
            TrialTakenError: Another process works on the trial, or has taken it over.
            UnsupportedTypeError: Pickle can't take something.
            StorageError: The storage failed.
        """
        alg_name = str(algorithm.name)  # before anything is written: one without a name can't be marked
        path = self.save_checkpoint(
            alg_idx=alg_idx, trial=trial, iteration=iteration, algorithm=algorithm, network=network, rng_state=rng_state
        )
        self._metrics.forget()
        record = CompletionRecord(
            alg_name=alg_name,
            alg_idx=alg_idx,
            trial=trial,
            iteration=iteration,
            checkpoint_path=path.name,
            of_iterations=self._iterations().get(alg_idx),
        )
        self._claimed(alg_idx, trial).complete(record)
        if not self._claims.is_exclusive(trial_claims(alg_idx, trial)):
            self._claims.release(trial_claims(alg_idx, trial))
        return path

    def unmark_trial_complete(self, alg_idx: int, trial: int) -> None:
        """Let a trial go on: it is not complete any more. Its checkpoints stay.

        Raises:
            StorageError: The storage failed.
        """
        self._metrics.forget()
        self._storage.delete([completion_key(alg_idx, trial)])

    def is_trial_complete(self, alg_idx: int, trial: int) -> bool:
        """Whether a trial is complete, and its final checkpoint there.

        Raises:
            StorageError: The storage failed.
        """
        return (alg_idx, trial) in self._completed(trial_prefix(alg_idx, trial))

    def completed_trials(self) -> set[tuple[int, int]]:
        """The numbers of algorithm and trial of all complete trials: with one listing, and a small read for each.

        Raises:
            StorageError: The storage failed.
        """
        return self._completed("algorithm_")

    def _completed(self, prefix: str) -> set[tuple[int, int]]:
        keys = {found.key for found in self._storage.list(prefix)}
        iterations = self._iterations()

        def is_complete(numbers: tuple[int, int]) -> bool:
            checkpoints = self._look_at(*numbers)
            record = checkpoints.completion()
            return (
                record is not None
                and self._still_counts(record, iterations)
                and checkpoints.final_key(record, keys) is not None
            )

        marked = sorted(numbers for numbers in trials_in(keys) if completion_key(*numbers) in keys)
        are_complete = parallel_map(is_complete, marked, workers=_READERS, name="statevault-trials")
        return {numbers for numbers, whole in zip(marked, are_complete, strict=True) if whole}

    def _iterations(self) -> dict[int, int]:
        """How many iterations there are to be, by the number of the algorithm; empty where there is no experiment."""
        try:
            return {entry.index: entry.iterations for entry in self._metadata.read().algorithms}
        except ExperimentNotFoundError:
            return {}

    @staticmethod
    def _still_counts(record: CompletionRecord, iterations: Mapping[int, int]) -> bool:
        # Whoever extends takes marks away, but one may be made between that and the new totals.
        return record.of_iterations is None or record.of_iterations >= iterations.get(record.alg_idx, 0)

    def get_completed_trials(self, alg_idx: int, n_trials: int | None = None) -> list[int]:
        """The numbers of the complete trials of an algorithm.

        Args:
            alg_idx: The number of the algorithm.
            n_trials: How many trials to look at; by default those of the metadata.

        Raises:
            ExperimentNotFoundError: `n_trials` is not given, and the folder holds no experiment.
            StorageError: The storage failed.
        """
        count = self._metadata.read().n_trials if n_trials is None else n_trials
        return sorted(trial for _, trial in self._completed(f"algorithm_{alg_idx}/") if trial < count)

    def extend(self, *, increase_iterations: int = 0, increase_trials: int = 0) -> None:
        """Raise the totals, for this run and all later ones. Complete trials go on where iterations are added.

        Args:
            increase_iterations: How many more iterations of each algorithm.
            increase_trials: How many more trials of each algorithm.

        Raises:
            ExperimentNotFoundError: The folder holds no experiment.
            TypeError: A number is no integer.
            ValueError: One is negative.
            TrialTakenError: Another process has been changing the metadata for half a minute.
            StorageError: The storage failed.
        """
        increase_iterations = whole_number("increase_iterations", increase_iterations, minimum=0)
        increase_trials = whole_number("increase_trials", increase_trials, minimum=0)
        if not increase_iterations and not increase_trials:
            return
        self._metrics.forget()

        def raised(now: ExperimentMetadata) -> ExperimentMetadata:
            algorithms = [
                entry.model_copy(update={"iterations": entry.iterations + increase_iterations})
                for entry in now.algorithms
            ]
            return now.model_copy(update={"n_trials": now.n_trials + increase_trials, "algorithms": algorithms})

        changed = self._metadata.change(raised)
        if increase_iterations:
            # They count for nothing any more, but for those of older runs, which do not say of how many iterations they
            # are. One that was made since is made again.
            listed = self._storage.list("algorithm_")
            self._storage.delete([found.key for found in listed if is_completion_key(found.key)])
        _logger.info(
            "%s has %d trials of each algorithm now; iterations: %s",
            self.url,
            changed.n_trials,
            ", ".join(f"{entry.name} {entry.iterations}" for entry in changed.algorithms),
        )

    def _claim(self, alg_idx: int, trial: int) -> None:
        prefix = trial_claims(alg_idx, trial)
        if not self._claims.is_held(prefix):
            self._worked_on.pop((alg_idx, trial), None)  # somebody else may have worked on it since
        self._claims.ensure(prefix)

    def _claimed(self, alg_idx: int, trial: int) -> TrialCheckpoints:
        """The checkpoints of a trial that this process has claimed: what was listed once is known."""
        if (alg_idx, trial) not in self._worked_on:
            self._worked_on[alg_idx, trial] = self._look_at(alg_idx, trial)
        return self._worked_on[alg_idx, trial]

    def _look_at(self, alg_idx: int, trial: int) -> TrialCheckpoints:
        return TrialCheckpoints(self._storage, self._pickles, alg_idx=alg_idx, trial=trial)

    def _put_back(self, checkpoint: Mapping[str, Any], network: Any) -> None:
        given = checkpoint["network"] if network is None else network
        put_back(checkpoint["algorithm"], given, self._agents_of, self._key_of)
