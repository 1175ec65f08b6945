"""The keys of everything in the folder of an experiment (``docs/format.md``, section 10)."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "ALGORITHMS_KEY",
    "METADATA_CLAIMS",
    "METADATA_KEY",
    "METRICS_KEY",
    "METRICS_MARKER_KEY",
    "OWN_PREFIXES",
    "PROBLEM_KEY",
    "RESULTS",
    "TOP_KEYS",
    "checkpoint_key",
    "completion_key",
    "is_completion_key",
    "is_own_key",
    "is_sealed_key",
    "older_key",
    "parse_checkpoint",
    "parse_trial",
    "progress_key",
    "trial_claims",
    "trial_prefix",
    "trials_in",
]

METADATA_KEY = "metadata.json"
PROBLEM_KEY = "benchmark_problem.pkl.zst"
ALGORITHMS_KEY = "initial_algorithms.pkl.zst"
METRICS_KEY = "metric_computation.pkl.zst"
METRICS_MARKER_KEY = "metric_computation_complete.json"
METADATA_CLAIMS = "claims/metadata/"
RESULTS = "results/"

_TRIAL = re.compile(r"algorithm_(\d+)/trial_(\d+)/", re.ASCII)
_CHECKPOINT = re.compile(r"checkpoint_(\d{7,})\.pkl(?:\.zst)?", re.ASCII)
TOP_KEYS = frozenset({METADATA_KEY, PROBLEM_KEY, ALGORITHMS_KEY, METRICS_KEY, METRICS_MARKER_KEY})
"""The keys at the top of the folder."""

OWN_PREFIXES = ("algorithm_", "claims/", RESULTS)
"""What all other keys of an experiment start with."""


def trial_prefix(alg_idx: int, trial: int) -> str:
    """What all keys of a trial start with."""
    return f"algorithm_{alg_idx}/trial_{trial}/"


def checkpoint_key(alg_idx: int, trial: int, iteration: int) -> str:
    """The key of the checkpoint after an iteration."""
    return f"{trial_prefix(alg_idx, trial)}checkpoint_{iteration:07d}.pkl.zst"


def progress_key(alg_idx: int, trial: int) -> str:
    """The key of the record that tells people how far a trial is."""
    return trial_prefix(alg_idx, trial) + "progress.json"


def completion_key(alg_idx: int, trial: int) -> str:
    """The key of the record that a trial is complete."""
    return trial_prefix(alg_idx, trial) + "complete.json"


def is_completion_key(key: str) -> bool:
    """Whether a key is that of a record that some trial is complete."""
    numbers = parse_trial(key)
    return numbers is not None and key == completion_key(*numbers)


def trial_claims(alg_idx: int, trial: int) -> str:
    """What the keys of the claims on a trial start with."""
    return trial_prefix(alg_idx, trial) + "claims/"


def older_key(key: str) -> str:
    """The key under which an older run kept the same thing, uncompressed."""
    return key.removesuffix(".zst")


def parse_checkpoint(name: str) -> int | None:
    """The iteration of a checkpoint, from its base name; None for a file of another kind."""
    match = _CHECKPOINT.fullmatch(name)
    return None if match is None else int(match[1])


def parse_trial(key: str) -> tuple[int, int] | None:
    """The numbers of the algorithm and the trial that a key belongs to; None for one of no trial."""
    match = _TRIAL.match(key)
    if match is None or key.partition(match[0])[0]:
        return None
    alg_idx, trial = int(match[1]), int(match[2])
    return (alg_idx, trial) if key.startswith(trial_prefix(alg_idx, trial)) else None


def trials_in(keys: Iterable[str]) -> set[tuple[int, int]]:
    """The trials that keys belong to: numbers of algorithm and trial."""
    return {numbers for key in keys if (numbers := parse_trial(key)) is not None}


def is_sealed_key(key: str) -> bool:
    """Whether what lies under a key has a seal, or a digest in it, where this version wrote it."""
    numbers = parse_trial(key)
    if numbers is None:
        return key in TOP_KEYS
    name = key.removeprefix(trial_prefix(*numbers))
    return parse_checkpoint(name) is not None or name in ("progress.json", "complete.json")


def is_own_key(key: str) -> bool:
    """Whether a key is one that an experiment writes: what else lies in its folder is somebody else's."""
    if key.startswith((RESULTS, "claims/")) or is_sealed_key(key) or is_sealed_key(f"{key}.zst"):
        return True
    numbers = parse_trial(key)
    return numbers is not None and key.startswith(trial_claims(*numbers))
