"""Buffers that, once full, replace random samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, cast, overload

from typing_extensions import override

from statevault.data.impls.columnar_buffer import BATCH, ColumnarBuffer, split_fields

__all__ = ["DictRandomReplacementBuffer", "RandomReplacementBuffer"]

T = TypeVar("T")

# A replaced row makes its whole block new in the next save: smaller blocks than where rows only leave in
# order.
_SEGMENT_BYTES = 1 << 18
_EULER_MASCHERONI = 0.5772156649015329


class RandomReplacementBuffer(ColumnarBuffer[T, Any]):
    """Fills up, then lets a new sample replace a random one with a certain probability.

    * ``RandomReplacementBuffer(max_size, …)`` collects samples of any type; ``get_data()`` returns a list.
    * ``RandomReplacementBuffer(["obs", "action"], max_size, …)`` collects mappings with these fields;
      ``get_data()`` returns a dict of lists.
    """

    @overload
    def __init__(
        self,
        max_size: int,
        replace_probability: float | None = None,
        expected_survival_length: float | None = None,
        *,
        seed: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        collecting_data_names: Iterable[str],
        max_size: int,
        replace_probability: float | None = None,
        expected_survival_length: float | None = None,
        *,
        seed: int | None = None,
    ) -> None: ...
    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        """Initialize without samples.

        Args:
            *args: ``[collecting_data_names,] max_size, replace_probability, expected_survival_length``, in
                this order, as far as they are not given by name:
            **kwargs: ``collecting_data_names``, the names of the fields, left out for samples of any type;
                ``max_size``, how many samples to keep; ``replace_probability``, with which a new sample
                replaces another in a full buffer (1.0 if not given); ``expected_survival_length``, after how
                many new samples a sample is expected to be replaced, from which the probability follows.
            seed: Seed of the buffer's random generator.

        Raises:
            TypeError: An argument is missing, unknown or given twice.
            ValueError: Both the probability and the survival length are given, or one is out of range, or
                ``max_size`` is not positive, or a name occurs twice.
        """
        given = _arguments(args, kwargs)
        fields, _ = split_fields(given.get("collecting_data_names"))
        size: int = given["max_size"]
        probability: float | None = given.get("replace_probability")
        survival_length: float | None = given.get("expected_survival_length")
        if size < 1:
            raise ValueError(f"max_size must be positive, got {size}")
        if probability is None:
            probability = 1.0
            if survival_length is not None:
                probability = self.compute_replace_probability_from_expected_survival_length(size, survival_length)
        elif survival_length is not None:
            raise ValueError("give either replace_probability or expected_survival_length, not both")
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"replace_probability must be between 0 and 1, got {probability}")
        # That many waiting samples would replace as many of the buffer as it holds; more need not wait.
        queue_size = int(size / probability) if probability * size > 1e-9 else size
        super().__init__(fields, size, max_queue_size=queue_size, segment_bytes=_SEGMENT_BYTES, seed=seed)
        self._replace_probability = probability

    @staticmethod
    def compute_replace_probability_from_expected_survival_length(max_size: int, survival_length: float) -> float:
        """Return the probability of replacement with which a full buffer forgets at a certain pace.

        Replacements needed to hit each of N places at least once are N·H(N) ≈ N·(ln N + gamma) on average
        (the coupon collector's problem); each new sample is one with probability p. So after N·(ln N +
        gamma)/p new samples, all old ones are expected to be gone.

        Args:
            max_size: How many samples the buffer holds.
            survival_length: The expected number of new samples until then.

        Returns:
            The probability, clamped to [0, 1].

        Raises:
            ValueError: A number is not positive.
        """
        if max_size < 1 or not survival_length > 0:
            raise ValueError(f"max_size and survival length must be positive, got {max_size} and {survival_length}")
        probability = max_size / survival_length * (math.log(max_size) + _EULER_MASCHERONI)
        return min(max(probability, 0.0), 1.0)

    @property
    def replace_probability(self) -> float:
        """The probability with which a new sample replaces another in a full buffer."""
        return self._replace_probability

    @override
    def add(self, data: Any, /) -> None:
        if not self.is_full:
            self._append(data)
        elif self._rng.random() < self._replace_probability:
            self._replace(int(self._rng.integers(self.max_size)), data)
        else:
            self.validate(data)

    @override
    def extend(self, samples: Iterable[Any], /) -> None:
        remaining = iter(samples)
        # A subclass may have its own way of adding.
        more = type(self).add is RandomReplacementBuffer.add
        while more and not self.is_full:
            more = self._append_batch(remaining, min(BATCH, self.max_size - len(self)))
        super().extend(remaining)


class DictRandomReplacementBuffer(RandomReplacementBuffer[T], Generic[T]):
    """A :class:`RandomReplacementBuffer` of mappings, under the name that PAMIQ-Core 0.6 has for it."""

    def __init__(
        self,
        keys: Iterable[str],
        max_size: int,
        replace_probability: float | None = None,
        expected_survival_length: float | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        """Initialize without samples.

        Args:
            keys: The names of the fields.
            max_size: How many samples to keep.
            replace_probability: With which a new sample replaces another in a full buffer; 1.0 if not given.
            expected_survival_length: After how many new samples a sample is expected to be replaced.
            seed: Seed of the buffer's random generator.

        Raises:
            TypeError: ``keys`` is one string.
            ValueError: As in :class:`RandomReplacementBuffer`.
        """
        super().__init__(keys, max_size, replace_probability, expected_survival_length, seed=seed)

    @property
    def keys(self) -> set[str]:
        """The names of the fields."""
        return self.collecting_data_names

    @override
    def get_data(self) -> dict[str, list[T]]:
        return cast("dict[str, list[T]]", super().get_data())


_PARAMETERS = ("collecting_data_names", "max_size", "replace_probability", "expected_survival_length")


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Bind arguments to names: the first positional one is the names of the fields, or already the size."""
    names_first = bool(args) and not isinstance(args[0], int)
    positional = _PARAMETERS if names_first else _PARAMETERS[1:]
    if len(args) > len(positional):
        raise TypeError(f"RandomReplacementBuffer takes at most {', '.join(positional)}, got {len(args)} arguments")
    given = dict(zip(positional, args, strict=False))
    for name, value in kwargs.items():
        if name not in _PARAMETERS:
            raise TypeError(f"RandomReplacementBuffer has no parameter {name!r}; it takes {', '.join(_PARAMETERS)}")
        if name in given:
            raise TypeError(f"RandomReplacementBuffer got {name!r} twice")
        given[name] = value
    if not isinstance(given.get("max_size"), int):
        raise TypeError("RandomReplacementBuffer needs max_size, an integer")
    return given
