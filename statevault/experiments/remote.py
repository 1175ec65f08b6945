"""A trial in another process: what is sent there, and what comes back.

Only plain pickles travel, whatever the executor could carry beside: what a worker unpickles from the experiment's
folder has to be importable there anyway.
"""

from __future__ import annotations

import functools
import pickle
import traceback
import uuid
from collections.abc import Callable
from typing import Any

from statevault.errors import TrialFailedError, UnsupportedTypeError
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.trial_run import Ending, Outcome, TrialId, TrialRunner, Watch

__all__ = ["pack", "run_packed", "watch_trials_with"]


def pack(manager: CheckpointManager, make_network: Callable[[Any], Any]) -> bytes:
    """What a worker needs to run trials: small, since it loads the rest from the experiment's folder.

    Raises:
        UnsupportedTypeError: Something in it can't be pickled.
    """
    for what, value in (("make_network", make_network), ("the checkpoint manager", manager)):
        try:
            pickle.dumps(value)
        except Exception as error:
            raise UnsupportedTypeError(
                f"{what} can't be sent to another process: {error}. A function that a module defines can, a lambda "
                "or a function inside another one can't"
            ) from error
    # The name makes a worker that outlives this run load everything anew in the next one.
    return pickle.dumps((uuid.uuid4().hex, manager, make_network))


def run_packed(packed: bytes, trial: TrialId) -> Outcome:
    """Run a trial, in a worker process.

    Args:
        packed: From :func:`pack`.
        trial: Which.
    """
    try:
        outcome = _unpack(packed).run(trial)
    except Exception as error:  # noqa: BLE001 - it is raised where the experiment was started
        error.add_note(f"in a worker process that was to run trial {trial.trial} of algorithm {trial.alg_idx}")
        outcome = Outcome(trial, Ending.FAILED, error=error)
    if outcome.error is None:
        return outcome
    return Outcome(trial, outcome.ending, outcome.iterations, _portable(outcome.error))


def watch_trials_with(watch: Watch) -> None:
    """Let something watch the trials that this process is given from now on."""
    global _watch  # noqa: PLW0603 - a worker process has one, from its start
    _watch = watch
    _unpack.cache_clear()


_watch = Watch()


@functools.lru_cache(maxsize=1)
def _unpack(packed: bytes) -> TrialRunner:
    # What algorithms and problem are loaded once for all trials of a run that this process is given.
    _, manager, make_network = pickle.loads(packed)  # noqa: S301 - from whoever started this process
    return TrialRunner(manager, make_network, _watch)


def _portable(error: Exception) -> Exception:
    """An exception that arrives in the process that started the experiment, with its traceback as a note."""
    told = "".join(traceback.format_exception(error))
    error.__cause__ = error.__context__ = None  # they are in the text, and may not be picklable
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own; many can be pickled, and not be unpickled
    except Exception:  # noqa: BLE001 - whatever it raises, it does not travel
        return TrialFailedError(told)
    error.add_note(f"In the worker process:\n{told}")
    return error
