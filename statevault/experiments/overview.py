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
    older_key,
    parse_checkpoint,
    parse_trial,
    progress_key,
    trial_claims,
)
from statevault.experiments.own_objects import own_objects
from statevault.experiments.records import CompletionRecord, ExperimentMetadata, ProgressRecord
from statevault.storage import ObjectInfo, Storage
from statevault.worker_pool import parallel_map

__all__ = ["ExperimentOverview", "TrialOverview", "is_experiment", "look_at_experiment"]

_READERS = 16


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
        trials: The trials that have begun, in order: something of each lies there.
        size: Bytes of all files that are the experiment's.
    """

    metadata: ExperimentMetadata
    trials: tuple[TrialOverview, ...]
    size: int

    @property
    def total(self) -> int:
        """How many trials all algorithms have, with those that have not begun."""
        return len(self.metadata.algorithms) * self.metadata.n_trials

    def of(self, alg_idx: int) -> tuple[TrialOverview, ...]:
        """The trials of one algorithm that have begun."""
        return tuple(trial for trial in self.trials if trial.alg_idx == alg_idx)

    def named(self, name: str) -> TrialOverview | None:
        """The trial of a name (``algorithm_0/trial_3``), begun or not; None if the experiment has none of it."""
        numbers = parse_trial(f"{name}/")
        if numbers is None or not _has(self.metadata, *numbers):
            return None
        alg_idx, trial = numbers
        return next(
            (found for found in self.trials if found.name == name),
            TrialOverview(alg_idx, trial, None, is_complete=False, is_claimed=False, checkpoints=0, size=0),
        )


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
        # Many programs keep a file of the name of the metadata.
        return storage.exists(ALGORITHMS_KEY) or storage.exists(older_key(ALGORITHMS_KEY))
    return True


def look_at_experiment(storage: Storage) -> ExperimentOverview:
    """Tell how far an experiment is.

    Takes a listing, and a small read for each trial that has begun, many at a time.

    Raises:
        ObjectNotFoundError: The folder holds no experiment.
        CorruptStateError: Its metadata is damaged.
        FormatError: Its metadata is not as it must be.
        StorageError: The storage failed.
    """
    where = f"{METADATA_KEY} in {storage.url}"
    metadata = ExperimentMetadata.from_bytes(storage.get(METADATA_KEY), where=where)
    found = list(own_objects(storage))
    of_trials: dict[tuple[int, int], list[ObjectInfo]] = defaultdict(list)
    for info in found:
        numbers = parse_trial(info.key)
        if numbers is not None and _has(metadata, *numbers):
            of_trials[numbers].append(info)

    def look_at(numbers: tuple[int, int]) -> TrialOverview:
        return _look_at_trial(storage, *numbers, of_trials[numbers])

    trials = parallel_map(look_at, sorted(of_trials), workers=_READERS, name="statevault-overview")
    return ExperimentOverview(metadata, tuple(trials), sum(info.size for info in found))


def _has(metadata: ExperimentMetadata, alg_idx: int, trial: int) -> bool:
    return alg_idx < len(metadata.algorithms) and trial < metadata.n_trials


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
