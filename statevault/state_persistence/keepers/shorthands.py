"""Keepers for the usual policies, made as :class:`LatestStatesKeeper` is.

The `states_dir` of each is for people: what it decides on is the store of the run, or of the paths appended to it.
"""

from __future__ import annotations

import math
import numbers
import os
from datetime import timedelta
from typing import Literal

import numpy as np
from typing_extensions import TypeIs
from upath import UPath

from statevault.state_persistence.keepers.by_policy import PolicyStatesKeeper
from statevault.state_persistence.retention import KeepBest, KeepPeriodic, KeepWithin, KeepWithinSize
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["BestStatesKeeper", "PeriodicStatesKeeper", "SizeBasedStatesKeeper", "TimeBasedStatesKeeper"]

_MIB = 1024**2


class SizeBasedStatesKeeper(PolicyStatesKeeper):
    """Keeps the newest states that fit into a size together (:class:`KeepWithinSize`).

    What counts is what they need of the store: compressed, and shared objects once.

    Args:
        states_dir: The store.
        max_total_size_mb: The size, in units of 1024 * 1024 bytes.
        state_name_pattern: Glob pattern; states with other names are neither counted nor removed.

    Raises:
        TypeError: `max_total_size_mb` is no number.
        ValueError: It is not positive, or so large that no store holds as much.
    """

    def __init__(
        self,
        states_dir: str | os.PathLike[str] | UPath,
        max_total_size_mb: float,
        state_name_pattern: str = "*.state",
    ) -> None:
        if not _is_number(max_total_size_mb):
            raise TypeError(f"max_total_size_mb must be a number, not {max_total_size_mb!r}")
        if not 0 < max_total_size_mb < math.inf:
            raise ValueError(f"max_total_size_mb must be a positive number, not {max_total_size_mb!r}")
        super().__init__(KeepWithinSize(math.ceil(max_total_size_mb * _MIB)), state_name_pattern)
        self.states_dir = states_dir


class TimeBasedStatesKeeper(PolicyStatesKeeper):
    """Keeps the states that are not too old (:class:`KeepWithin`).

    Args:
        states_dir: The store.
        max_age: How old a state may be; a number is one of seconds.
        state_name_pattern: Glob pattern; states with other names are neither counted nor removed.

    Raises:
        TypeError: `max_age` is neither.
        ValueError: `max_age` is not positive, or too large for a :class:`~datetime.timedelta`.
    """

    def __init__(
        self,
        states_dir: str | os.PathLike[str] | UPath,
        max_age: timedelta | float,
        state_name_pattern: str = "*.state",
    ) -> None:
        if _is_number(max_age):
            try:
                max_age = timedelta(seconds=float(max_age))
            except (OverflowError, ValueError) as error:
                raise ValueError(f"max_age can't be {max_age!r}: {error}") from None
        super().__init__(KeepWithin(max_age), state_name_pattern)
        self.states_dir = states_dir


class BestStatesKeeper(PolicyStatesKeeper):
    """Keeps the states with the best results (:class:`KeepBest`).

    Args:
        states_dir: The store.
        max_keep: How many.
        metric: Where the result is in a state's metadata: ``"reward"``, or ``"eval.reward"``.
        mode: Whether high or low values are good.
        state_name_pattern: Glob pattern; states with other names are neither counted nor removed.

    Raises:
        TypeError: `max_keep` is no integer, or `metric` no string.
        ValueError: `max_keep` is not positive, `metric` is no key, or `mode` neither ``"max"`` nor ``"min"``.
    """

    def __init__(
        self,
        states_dir: str | os.PathLike[str] | UPath,
        max_keep: int,
        metric: str,
        mode: Literal["max", "min"] = "max",
        state_name_pattern: str = "*.state",
    ) -> None:
        n = whole_number("max_keep", max_keep, minimum=1)
        super().__init__(KeepBest(n, metric=metric, mode=mode), state_name_pattern)
        self.states_dir = states_dir


class PeriodicStatesKeeper(PolicyStatesKeeper):
    """Thins the states out: keeps the newest of each of the last hours, days, … (:class:`KeepPeriodic`).

    Args:
        states_dir: The store.
        hourly: Of how many hours on which something was saved.
        daily: Of how many days.
        weekly: Of how many weeks.
        monthly: Of how many months.
        yearly: Of how many years.
        state_name_pattern: Glob pattern; states with other names are neither counted nor removed.

    Raises:
        TypeError: A number is no integer.
        ValueError: One is negative, or all are 0.
    """

    def __init__(
        self,
        states_dir: str | os.PathLike[str] | UPath,
        *,
        hourly: int = 0,
        daily: int = 0,
        weekly: int = 0,
        monthly: int = 0,
        yearly: int = 0,
        state_name_pattern: str = "*.state",
    ) -> None:
        policy = KeepPeriodic(hourly=hourly, daily=daily, weekly=weekly, monthly=monthly, yearly=yearly)
        super().__init__(policy, state_name_pattern)
        self.states_dir = states_dir


def _is_number(value: object) -> TypeIs[float]:
    """Whether it is a real number, Python's or NumPy's. A bool is none, nor is what NumPy calls one: a timedelta64."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.timedelta64)
