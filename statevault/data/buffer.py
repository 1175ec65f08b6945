"""What a data buffer is: the training side's store of collected samples.

A buffer is filled and read by one :class:`~statevault.data.DataUser`, which serializes the calls; a buffer
itself needs no lock. Only :meth:`DataBuffer.validate` runs in another thread (the collecting one), so it may
use nothing that :meth:`DataBuffer.add` changes.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, overload

import numpy as np
from typing_extensions import TypeVar

from statevault.data.errors import SampleFieldsError
from statevault.data.stacking import stack_values
from statevault.state_persistence import PersistentStateMixin

__all__ = ["DataBuffer"]

T = TypeVar("T", default=Any)
R = TypeVar("R", default=Any)


class DataBuffer(ABC, PersistentStateMixin, Generic[T, R]):
    """A store of samples.

    ``T`` is the type of a sample, or of its fields' values; ``R`` is what :meth:`get_data` returns.

    A subclass calls ``super().__init__`` in one of two ways:

    * ``(collecting_data_names, max_size)``: samples are mappings with (at least) these fields, and the
      collector's queue holds as many samples as the buffer;
    * ``(max_queue_size)``: samples are anything; the queue is bounded by that number, or by nothing if it is
      None.

    Attributes:
        max_size: How many samples the buffer holds at most; subclasses may override it with a property.
        max_queue_size: How many samples may wait to be moved into the buffer; the oldest ones are dropped.
            None means any number.
    """

    max_queue_size: int | None

    @overload
    def __init__(self, collecting_data_names: Iterable[str], max_size: int) -> None: ...
    @overload
    def __init__(self, max_queue_size: int | None = None, /) -> None: ...
    @overload
    def __init__(self, *, max_queue_size: int | None) -> None: ...
    def __init__(
        self,
        collecting_data_names: Iterable[str] | int | None = None,
        max_size: int | None = None,
        *,
        max_queue_size: int | None = None,
    ) -> None:
        """Initialize in one of the two spellings.

        Args:
            collecting_data_names: Names of the fields that every sample has; or the size of the queue.
            max_size: How many samples the buffer holds at most; only with names.
            max_queue_size: How many samples may wait; only without names.

        Raises:
            TypeError: The arguments are a mixture of the two spellings.
            ValueError: A size is negative, or a name occurs twice.
        """
        super().__init__()
        if collecting_data_names is None or isinstance(collecting_data_names, int):
            if max_size is not None or (collecting_data_names is not None and max_queue_size is not None):
                raise TypeError("DataBuffer takes (collecting_data_names, max_size) or (max_queue_size)")
            names: tuple[str, ...] = ()
            size = collecting_data_names if collecting_data_names is not None else max_queue_size
        else:
            if max_size is None or max_queue_size is not None:
                raise TypeError("DataBuffer needs max_size, and only max_size, with collecting_data_names")
            names = field_names(collecting_data_names)
            size = max_size
        if size is not None and size < 0:
            raise ValueError(f"the size of a data buffer must not be negative, got {size}")
        self._collecting_data_names = set(names)
        self._max_size = sys.maxsize if size is None else size
        self.max_queue_size = size

    @property
    def max_size(self) -> int:
        """How many samples the buffer holds at most."""
        return self._max_size

    @max_size.setter
    def max_size(self, value: int) -> None:
        self._max_size = value

    @property
    def collecting_data_names(self) -> set[str]:
        """The names of the fields that every sample has; empty where samples need not be mappings."""
        return set(self._collecting_data_names)

    def validate(self, sample: Any) -> None:
        """Refuse a sample that can never be added, at the moment at which it is collected.

        Runs in the collecting thread for every sample: it has to be cheap.

        Args:
            sample: The sample about to be queued.

        Raises:
            SampleFieldsError: A field is missing.
        """
        names = self._collecting_data_names
        if names and not (isinstance(sample, Mapping) and names <= sample.keys()):
            raise SampleFieldsError.for_sample(sample, names, owner=type(self).__name__)

    @abstractmethod
    def add(self, data: Any, /) -> None:
        """Add a sample.

        Args:
            data: The sample; the buffer may keep the object, so it must not be changed afterwards.
        """

    def extend(self, samples: Iterable[Any], /) -> None:
        """Add samples in their order.

        This default adds one after the other; a buffer that is faster in bulk overrides it.

        Args:
            samples: The samples. If one of them is refused, those before it are added, and those behind it are
                not even taken from the iterable, so that an iterator tells the caller how far it came.

        Raises:
            Exception: As :meth:`add`.
        """
        for sample in samples:
            self.add(sample)

    @abstractmethod
    def get_data(self) -> R:
        """Return all samples that the buffer holds."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many samples the buffer holds."""

    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> Any:
        """Draw samples uniformly, with replacement.

        This default goes through :meth:`get_data`, which must return a sequence, or a mapping of names to
        sequences of equal length; the buffers of :mod:`statevault.data.impls` draw without building lists.

        Args:
            n: How many samples to draw.
            rng: A random generator, a seed, or None for fresh randomness.

        Returns:
            The drawn values with a new first axis of length ``n``: an array or tensor (a list where the
            values can't be stacked), or a dict of those by field.

        Raises:
            ValueError: The buffer is empty, or ``n`` is negative.
            TypeError: ``get_data`` returns something that can't be indexed.
        """
        data = self.get_data()
        generator = np.random.default_rng(rng)
        if isinstance(data, Mapping):
            lengths = {len(values) for values in data.values()}
            if len(lengths) > 1:
                raise ValueError(f"{type(self).__name__}: its fields have the lengths {sorted(lengths)}")
            picks = draw_indices(generator, n, lengths.pop() if lengths else 0).tolist()
            return {name: stack_values([values[i] for i in picks]) for name, values in data.items()}
        if isinstance(data, Sequence):
            return stack_values([data[i] for i in draw_indices(generator, n, len(data)).tolist()])
        raise TypeError(
            f"{type(self).__name__}.get_data() returns {type(data).__name__}, from which no sample can be "
            "drawn: override sample()"
        )


def draw_indices(rng: np.random.Generator, n: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw ``n`` positions below ``size``, uniformly and with replacement.

    Raises:
        ValueError: There is nothing to draw from, or ``n`` is negative.
    """
    if n < 0:
        raise ValueError(f"can't draw {n} samples")
    if size == 0 and n > 0:
        raise ValueError("can't draw samples from an empty buffer: wait until data has been collected")
    return rng.integers(0, size, size=n) if n else np.empty(0, dtype=np.int64)


def field_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of fields in their order.

    Raises:
        TypeError: ``names`` is one string, which would be taken for a list of letters.
        ValueError: A name occurs twice.
    """
    if isinstance(names, str):
        raise TypeError(f"the names of fields must be a list of strings, not the string {names!r}")
    result = tuple(names)
    if len(set(result)) != len(result):
        raise ValueError(f"a field's name occurs twice: {list(result)}")
    return result
