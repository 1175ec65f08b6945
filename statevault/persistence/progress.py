"""How far a training is, and how good its policy: what the world's trainer says."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from numbers import Integral
from typing import Any, NamedTuple, SupportsFloat

__all__ = ["Progress", "ScoreOf", "as_score", "best_score_of_trainer", "progress_of", "to_record"]

_logger = logging.getLogger(__name__)

ScoreOf = Callable[[Any], float | None]
"""Says what the policy of a world has scored; the higher, the better. None: that is not known."""

_SCORES = ("best_score", "_best_score", "best_reward", "_best_reward")
# The last is what torch raises for a tensor of several numbers.
_NO_NUMBER = (TypeError, ValueError, OverflowError, RuntimeError)
_EPOCHS = ("epoch", "_epoch")
_ENV_STEPS = ("env_step", "_env_step")
_GRADIENT_STEPS = ("gradient_step", "_gradient_step", "_current_update_step")


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        epoch: Number of the epoch.
        env_step: Steps of the environment so far.
        gradient_step: Steps of the optimizer so far.
    """

    epoch: int | None = None
    env_step: int | None = None
    gradient_step: int | None = None


def progress_of(world: Any) -> Progress:
    """What the trainer of a world says of its progress; Tianshou's does."""
    trainer = getattr(world, "trainer", None)

    def count(names: tuple[str, ...]) -> int | None:
        values: list[Any] = [getattr(trainer, name, None) for name in names]
        return next((int(value) for value in values if isinstance(value, Integral)), None)

    return Progress(count(_EPOCHS), count(_ENV_STEPS), count(_GRADIENT_STEPS))


def best_score_of_trainer(world: Any) -> float | None:
    """The best score that the trainer of a world has seen (Tianshou 2: ``_best_score``, 1: ``best_reward``)."""
    trainer = getattr(world, "trainer", None)
    for name in _SCORES:
        value: Any = getattr(trainer, name, None)
        # Also a tensor or an array of one number.
        if isinstance(value, SupportsFloat):
            with suppress(*_NO_NUMBER):
                return float(value)
    return None


def as_score(value: Any) -> float | None:
    """A score as a number, which may not be finite, or None for one that is not known.

    Raises:
        TypeError: It is no number.
    """
    if value is None:
        return None
    try:
        return float(value)
    except _NO_NUMBER:
        raise TypeError(f"score_of() must return a number, or None where it is not known, not {value!r}") from None


def to_record(score: float | None) -> float | None:
    """A score as it is kept: a finite number, or None."""
    if score is None or math.isfinite(score):
        return score
    _logger.warning("The score %s is not finite: the policy is saved without a score", score)
    return None
