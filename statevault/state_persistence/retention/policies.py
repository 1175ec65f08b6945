"""What a retention policy is, and those that go by the order, the results and the sizes of states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import takewhile
from typing import Literal, Protocol, runtime_checkable

from pydantic import JsonValue

from statevault.state_persistence.info import StateInfo
from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["KeepBest", "KeepLatest", "KeepWithinSize", "RetentionPolicy"]


@runtime_checkable
class RetentionPolicy(Protocol):
    """Chooses the states to keep. A pure function: it looks at nothing but the holdings, and changes nothing."""

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Choose the states to keep.

        Args:
            holdings: The states to choose from.

        Returns:
            The reason to keep each, by name. States that are not in it have no reason to stay.
        """


@dataclass(frozen=True, slots=True)
class KeepLatest:
    """Keeps the newest states, by their sequence.

    Attributes:
        n: How many.

    Raises:
        TypeError: `n` is not an integer.
        ValueError: `n` is not positive.
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole_number("n", self.n, minimum=1))

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep the last `n`."""
        reason = "the newest" if self.n == 1 else f"one of the {self.n} newest"
        return {state.name: reason for state in holdings.states[-self.n :]}


@dataclass(frozen=True, slots=True)
class KeepBest:
    """Keeps the states with the best results.

    States without the metric are no candidates, nor those where it is not a finite number. Of two with the same
    value, the newer is the better one.

    Attributes:
        n: How many.
        metric: Where the number is in a state's metadata: ``"reward"``, or ``"eval.reward"`` for the ``reward`` in
            the dictionary ``eval``.
        mode: Whether high or low values are good.

    Raises:
        TypeError: `n` is not an integer, or `metric` no string.
        ValueError: `n` is not positive, a part of `metric` is empty, or `mode` is neither ``"max"`` nor ``"min"``.
    """

    n: int
    _: KW_ONLY
    metric: str
    mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole_number("n", self.n, minimum=1))
        if not isinstance(self.metric, str):
            raise TypeError(f"metric must be a string, not {self.metric!r}")
        if not all(self.metric.split(".")):
            raise ValueError(f"metric must be a key of the metadata, or keys with dots between, not {self.metric!r}")
        if self.mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', not {self.mode!r}")

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep the best `n`."""
        extreme = "highest" if self.mode == "max" else "lowest"
        rank = f"the {extreme}" if self.n == 1 else f"one of the {self.n} {extreme}"
        values = {state.name: self._value(state) for state in reversed(holdings.states)}
        # Newest first, and the sort is stable in both directions: the newer of two equals comes first.
        candidates = [(value, name) for name, value in values.items() if value is not None]
        candidates.sort(key=lambda candidate: candidate[0], reverse=self.mode == "max")
        return {name: f"{self.metric} {value} is {rank}" for value, name in candidates[: self.n]}

    def _value(self, state: StateInfo) -> float | None:
        value: JsonValue = state.metadata
        for key in self.metric.split("."):
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        # An integer may be too large for isfinite(), which makes a float of it.
        return value if isinstance(value, int) or math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class KeepWithinSize:
    """Keeps the newest states that fit into a number of bytes together; what they share counts once.

    It stops at the first that does not fit, so that what is kept has no gaps.

    Attributes:
        max_bytes: How many bytes of the store they may need.

    Raises:
        TypeError: `max_bytes` is not an integer.
        ValueError: `max_bytes` is not positive.
    """

    max_bytes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_bytes", whole_number("max_bytes", self.max_bytes, minimum=1))

    def keep(self, holdings: Holdings) -> Mapping[str, str]:
        """Keep as many of the newest as fit."""
        newest_first = [state.name for state in reversed(holdings.states)]
        fitting = len(newest_first)
        # Where all of them fit, that is told with less reading than one after the other is.
        if holdings.sizes.together(newest_first) > self.max_bytes:
            sizes = holdings.sizes.growing(newest_first)
            fitting = sum(1 for _ in takewhile(lambda size: size <= self.max_bytes, sizes))
        reason = f"fits into {self.max_bytes:,} bytes with all newer ones"
        return dict.fromkeys(newest_first[:fitting], reason)
