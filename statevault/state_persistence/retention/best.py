"""Retention by results: by a number that is somewhere in the metadata of states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from difflib import SequenceMatcher
from itertools import islice, product
from typing import Literal

from pydantic import JsonValue
from typing_extensions import TypeIs

from statevault.state_persistence.retention.holdings import Holdings
from statevault.state_persistence.retention.policies import Verdict
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["KeepBest"]

_LOOKED_AT = 3000
"""Numbers in the metadata of the newest states among which is searched for what may have been meant."""
_LISTED = 30
_LONGEST_KEY = 100
_ALIKE = 0.6


@dataclass(frozen=True, slots=True)
class KeepBest:
    """Keeps the states with the best results, and as many of the newest without one.

    Of two states with the same number, the newer is the better one; infinity and NaN rank last. The newest `n` of the
    states without a number stay as well: final states often have none. Where no state has a finite number, the policy
    can't judge (:class:`Verdict`), and all stay.

    Attributes:
        n: How many.
        metric: Where the number is in a state's metadata: ``"reward"``, or ``"eval.reward"`` for the ``reward`` in
            the dictionary ``eval`` (or for the key ``"eval.reward"``). Text and bools are no numbers.
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
        """Keep the best `n`, and the newest `n` of those without a number."""
        numbers = {state.name: _number_at(self.metric, state.metadata) for state in reversed(holdings.states)}
        # Newest first, and the sort is stable in both directions: the newer of two equals comes first.
        finite = [(number, name) for name, number in numbers.items() if number is not None and _is_finite(number)]
        if not finite:
            why = f"no state has a finite number in its metadata at {self.metric!r}"
            return Verdict.cannot_judge(self, holdings, why, self._hint(holdings))
        finite.sort(key=lambda candidate: candidate[0], reverse=self.mode == "max")
        other = [(number, name) for name, number in numbers.items() if number is not None and not _is_finite(number)]
        best = (finite + other)[: self.n]
        without = [name for name, number in numbers.items() if number is None][: self.n]
        extreme = "highest" if self.mode == "max" else "lowest"
        rank = f"the {extreme}" if self.n == 1 else f"one of the {self.n} {extreme}"
        newest = "the newest" if self.n == 1 else f"one of the {self.n} newest"
        reasons = {name: f"{self.metric} {number} is {rank}" for number, name in best}
        return reasons | dict.fromkeys(without, f"{newest} without a number at {self.metric}")

    def _hint(self, holdings: Holdings) -> str:
        """What the metric is instead, and which may have been meant."""
        newest_first = holdings.states[::-1]
        found = ((state, value) for state in newest_first for value in _values_at(self.metric, state.metadata))
        hints = [f"In {state.name} it is {value!r:.40}, no finite number." for state, value in islice(found, 1)]
        numbers = (key for state in newest_first for key in _keys_of_numbers(state.metadata))
        keys = list(dict.fromkeys(islice(numbers, _LOOKED_AT)))
        alike = _most_alike(self.metric, keys)
        hints += [f"Did you mean {alike!r}?"] if alike is not None else []
        listed = ", ".join(map(repr, keys[:_LISTED]))
        more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
        hints += [f"Numbers are at {listed}{more}" if keys else "There are no numbers at all"]
        return " ".join(hints)


def _values_at(metric: str, metadata: JsonValue) -> Iterator[JsonValue]:
    """What is at a metric: at ``"a.b"``, the ``b`` in the dictionary ``a``, and then what has ``"a.b"`` as its key."""
    if isinstance(metadata, dict):
        key, dot, rest = metric.partition(".")
        while dot:
            if key in metadata:
                yield from _values_at(rest, metadata[key])
            more, dot, rest = rest.partition(".")
            key = f"{key}.{more}"
        if key in metadata:
            yield metadata[key]


def _number_at(metric: str, metadata: dict[str, JsonValue]) -> float | None:
    return next((value for value in _values_at(metric, metadata) if _is_number(value)), None)


def _is_number(value: JsonValue) -> TypeIs[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(number: float) -> bool:
    # An integer may be too large for isfinite(), which makes a float of it.
    return isinstance(number, int) or math.isfinite(number)


def _keys_of_numbers(metadata: dict[str, JsonValue], above: str = "") -> Iterator[str]:
    """Where finite numbers are, in the form that a metric has; nobody types keys that are too long."""
    for key, value in metadata.items():
        path = f"{above}.{key}" if above else key
        if not key or len(path) > _LONGEST_KEY or not all(path.split(".")):
            continue
        if isinstance(value, dict):
            yield from _keys_of_numbers(value, path)
        elif _is_number(value) and _is_finite(value):
            yield path


def _most_alike(metric: str, keys: Sequence[str]) -> str | None:
    def likeness(key: str) -> float:
        # With one name of each as well: a dictionary is left out easily, or put in the place of what is in it.
        pairs = product([metric, metric.rpartition(".")[2]], [key, *key.split(".")])
        return max(SequenceMatcher(None, one.lower(), other.lower()).ratio() for one, other in pairs)

    best = max(keys, key=likeness, default=None)
    return best if best is not None and likeness(best) >= _ALIKE else None
