"""How far an experiment is, told without loading any of it: for people, and for programs that watch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from statevault.errors import CorruptStateError, FormatError, ObjectNotFoundError
from statevault.experiments.layout import (
    ALGORITHMS_KEY,
    METADATA_KEY,
    completion_key,
    parse_checkpoint,
    parse_trial,
    progress_key,
    trial_claims,
)
from statevault.experiments.records import CompletionRecord, ExperimentMetadata, ProgressRecord
from statevault.storage import ObjectInfo, Storage

__all__ = ["ExperimentOverview", "TrialOverview", "is_experiment", "look_at_experiment"]


@dataclass(frozen=True, slots=True)
class TrialOverview:
    """How far a trial is.

    Attributes:
        alg_idx: The number of its algorithm.
        trial: Its number.
        iteration: The last iteration that a checkpoint has; None if there is none.
        is_complete: Whether it is complete.
        is_claimed: Whether a worker has it, or had it when it died.
        checkpoints: How many checkpoints lie there.
        size: Bytes of all files of the trial.
    """

    alg_idx: int
    trial: int
    iteration: int | None
    is_complete: bool
    is_claimed: bool
    checkpoints: int
    size: int

    @property
    def name(self) -> str:
        """Its folder: ``algorithm_0/trial_3``."""
        return f"algorithm_{self.alg_idx}/trial_{self.trial}"


@dataclass(frozen=True, slots=True)
class ExperimentOverview:
    """How far an experiment is.

    Attributes:
        metadata: Its totals.
        trials: All trials of all algorithms, in order; those that have not begun too.
        size: Bytes of all files.
    """

    metadata: ExperimentMetadata
    trials: tuple[TrialOverview, ...]
    size: int

    def of(self, alg_idx: int) -> tuple[TrialOverview, ...]:
        """The trials of one algorithm."""
        return tuple(trial for trial in self.trials if trial.alg_idx == alg_idx)


def is_experiment(storage: Storage) -> bool:
    """Whether a folder holds an experiment.

    Raises:
        StorageError: The storage failed.
    """
    try:
        ExperimentMetadata.from_bytes(storage.get(METADATA_KEY), where=METADATA_KEY)
    except ObjectNotFoundError:
        return False
    except CorruptStateError:
        return True
    except FormatError:
        return storage.exists(ALGORITHMS_KEY)  # many programs keep a file of the name of the metadata
    return True


def look_at_experiment(storage: Storage) -> ExperimentOverview:
    """Tell how far an experiment is.

    Takes one listing, and one small read for each trial that has begun.

    Raises:
        ObjectNotFoundError: The folder holds no experiment.
        CorruptStateError: Its metadata is damaged.
        StorageError: The storage failed.
    """
    where = f"{METADATA_KEY} in {storage.url}"
    metadata = ExperimentMetadata.from_bytes(storage.get(METADATA_KEY), where=where)
    found = list(storage.list())
    of_trials: dict[tuple[int, int], list[ObjectInfo]] = defaultdict(list)
    for info in found:
        numbers = parse_trial(info.key)
        if numbers is not None:
            of_trials[numbers].append(info)
    trials = [
        _look_at_trial(storage, entry.index, trial, of_trials.get((entry.index, trial), ()))
        for entry in metadata.algorithms
        for trial in range(metadata.n_trials)
    ]
    return ExperimentOverview(metadata, tuple(trials), sum(info.size for info in found))


def _look_at_trial(storage: Storage, alg_idx: int, trial: int, found: Iterable[ObjectInfo]) -> TrialOverview:
    objects = {info.key: info.size for info in found}
    parsed = [parse_checkpoint(key.rpartition("/")[2]) for key in objects]
    iterations = [iteration for iteration in parsed if iteration is not None]
    done, last = completion_key(alg_idx, trial), progress_key(alg_idx, trial)
    completion = _read(storage, done, CompletionRecord) if done in objects else None
    progress = _read(storage, last, ProgressRecord) if completion is None and last in objects else None
    if isinstance(completion, CompletionRecord):
        iteration: int | None = completion.iteration
    elif isinstance(progress, ProgressRecord):
        iteration = progress.last_completed_iteration
    else:
        iteration = max(iterations, default=None)
    return TrialOverview(
        alg_idx=alg_idx,
        trial=trial,
        iteration=iteration,
        is_complete=completion is not None,
        is_claimed=any(key.startswith(trial_claims(alg_idx, trial)) for key in objects),
        checkpoints=len(iterations),
        size=sum(objects.values()),
    )


def _read(
    storage: Storage, key: str, kind: type[CompletionRecord | ProgressRecord]
) -> CompletionRecord | ProgressRecord | None:
    try:
        return kind.from_bytes(storage.get(key), where=key)
    except (ObjectNotFoundError, FormatError, CorruptStateError):
        return None
