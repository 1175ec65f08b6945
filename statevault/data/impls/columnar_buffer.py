"""What the built-in buffers share: samples in columns, drawing, saving and loading."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from typing_extensions import override

from statevault.data.buffer import DataBuffer, draw_indices, field_names
from statevault.data.columns import Column
from statevault.data.errors import SampleFieldsError
from statevault.errors import FormatError
from statevault.state_persistence import load_pickle, read_tree, write_tree

__all__ = ["ColumnarBuffer"]

BATCH = 256
"""How many samples are added at a time: so many may be in memory twice, and go beyond the size of the buffer."""

T = TypeVar("T")
R = TypeVar("R")


class ColumnarBuffer(DataBuffer[T, R]):
    """A buffer that keeps each field of its samples in a :class:`~statevault.data.columns.Column`.

    Without field names, the samples themselves are the values of the one column.

    Numbers, arrays and tensors are copied when they are added and lie in contiguous segments; arrays that
    :meth:`get_data` returns are read-only views of these, and so are tensors, although torch can't enforce
    it: clone one before changing it in place. All other values are kept as the objects that they are.
    """

    def __init__(
        self,
        fields: Iterable[str] | None,
        max_size: int,
        *,
        max_queue_size: int,
        segment_bytes: int,
        seed: int | None,
    ) -> None:
        """Initialize without samples.

        Args:
            fields: The names of the fields, or None for samples of any type.
            max_size: How many samples the buffer holds at most.
            max_queue_size: How many collected samples may wait.
            segment_bytes: The size of a column's segments.
            seed: Seed of the buffer's random generator, whose state is saved with the buffer.

        Raises:
            TypeError: ``fields`` is one string.
            ValueError: ``max_size`` is negative, or a field's name occurs twice.
        """
        super().__init__(max_queue_size)
        self._fields = None if fields is None else field_names(fields)
        self._collecting_data_names = set(self._fields or ())
        self._field_set = frozenset(self._collecting_data_names)
        self._max_size = max_size
        self._segment_bytes = segment_bytes
        self._columns = self._empty_columns()
        self._rng = np.random.default_rng(seed)

    @property
    def is_full(self) -> bool:
        """Whether the buffer holds as many samples as it can."""
        return len(self) >= self.max_size

    @override
    def validate(self, sample: Any) -> None:
        """Refuse a sample whose fields are not exactly the buffer's.

        Raises:
            SampleFieldsError: Fields are missing or unexpected, or the sample is no mapping.
        """
        if self._fields is None:
            return
        # The check of the type first: asking an abstract class takes several times as long.
        is_mapping = type(sample) is dict or isinstance(sample, Mapping)
        if not is_mapping or sample.keys() != self._field_set:
            raise SampleFieldsError.for_sample(sample, self._fields, owner=type(self).__name__)

    @abstractmethod
    @override
    def add(self, data: Any, /) -> None:
        """Add a sample.

        Args:
            data: The sample: a mapping with exactly the buffer's fields, if it has any.

        Raises:
            SampleFieldsError: Fields are missing or unexpected, or the sample is no mapping.
        """

    @override
    def get_data(self) -> Any:
        """Return all samples.

        Returns:
            A dict of lists by field, in the order of the fields; one list, if the buffer has no fields. The
            lists are new, the arrays and tensors in them are views.
        """
        if self._fields is None:
            return self._columns[0].items()
        return {name: column.items() for name, column in zip(self._fields, self._columns, strict=True)}

    @override
    def sample(self, n: int, rng: np.random.Generator | int | None = None) -> Any:
        """Draw samples uniformly, with replacement, without building lists of all.

        Args:
            n: How many samples to draw.
            rng: A random generator, a seed, or None for the buffer's own generator.

        Returns:
            A dict by field, or, without fields, one value: an array or a tensor of shape ``(n, *shape of a
            value)`` and the dtype of the values (bool, int64 and float64 for Python's numbers), in memory of
            its own; a list where the values can't be stacked.

        Raises:
            ValueError: The buffer is empty, or ``n`` is negative.
        """
        generator = self._rng if rng is None else np.random.default_rng(rng)
        picks = draw_indices(generator, n, len(self))
        if self._fields is None:
            return self._columns[0].gather(picks)
        return {name: column.gather(picks) for name, column in zip(self._fields, self._columns, strict=True)}

    @override
    def __len__(self) -> int:
        return len(self._columns[0]) if self._columns else 0

    @override
    def save_state(self, path: Path) -> None:
        """Save samples and random generator to ``<path>.tree``.

        Raises:
            UnsupportedTypeError: A value can't be stored without pickle; the message names its place and
                type.
        """
        write_tree(
            {
                "fields": None if self._fields is None else list(self._fields),
                "columns": [column.record() for column in self._columns],
                "rng": self._rng.bit_generator.state,
            },
            path.with_name(path.name + ".tree"),
            held=True,
        )

    @override
    def load_state(self, path: Path) -> None:
        """Load what :meth:`save_state` saved; of too many samples, the newest.

        A pickle that PAMIQ-Core wrote (``<path>.pkl``) is read where pickles are allowed.

        Raises:
            FileNotFoundError: Nothing was saved under this path.
            FormatError: The file holds other fields, or is not a buffer's.
        """
        file = path.with_name(path.name + ".tree")
        pickle_file = path.with_name(path.name + ".pkl")
        if not file.exists() and pickle_file.exists():
            self._fill(self._rows_of_pickle(load_pickle(pickle_file), pickle_file))
            return
        record = read_tree(file)
        own: list[Any] = [None] if self._fields is None else list(self._fields)
        try:
            fields, rng_state = record["fields"], record["rng"]
            saved = dict(zip([None] if fields is None else fields, record["columns"], strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file} is not the state of a data buffer") from error
        if saved.keys() != set(own):
            raise FormatError(
                f"{file} holds samples with the fields {fields}, but this {type(self).__name__} collects "
                f"{self._fields}: load the state into a buffer with the same fields"
            )
        columns = self._empty_columns()
        for name, column in zip(own, columns, strict=True):
            column.restore(saved[name])
        if len({len(column) for column in columns}) > 1:
            raise FormatError(f"{file} holds columns of different lengths")
        rng = np.random.default_rng()
        try:
            rng.bit_generator.state = rng_state
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{file} holds no usable state of a random generator") from error
        self._columns, self._rng = columns, rng
        self._trim()

    def _trim(self) -> None:
        """Drop the oldest samples beyond the buffer's size."""
        excess = len(self) - self.max_size
        if excess > 0:
            self._drop_oldest(excess)

    def _append_batch(self, samples: Iterator[Any], limit: int = BATCH) -> bool:
        """Append some samples, whatever the size of the buffer.

        Args:
            samples: Where to take them from.
            limit: How many to take at most.

        Returns:
            Whether there were that many.

        Raises:
            SampleFieldsError: A sample was refused; those before it are appended.
        """
        batch: list[Any] = []
        try:
            for sample in islice(samples, limit):
                self.validate(sample)
                batch.append(sample)
        finally:
            if self._fields is None:
                self._columns[0].extend(batch)
            else:
                for name, column in zip(self._fields, self._columns, strict=True):
                    column.extend([sample[name] for sample in batch])
        return len(batch) == limit

    def _append(self, data: Any) -> None:
        self.validate(data)
        if self._fields is None:
            self._columns[0].append(data)
        else:
            for name, column in zip(self._fields, self._columns, strict=True):
                column.append(data[name])

    def _replace(self, index: int, data: Any) -> None:
        self.validate(data)
        if self._fields is None:
            self._columns[0].replace(index, data)
        else:
            for name, column in zip(self._fields, self._columns, strict=True):
                column.replace(index, data[name])

    def _drop_oldest(self, n: int) -> None:
        for column in self._columns:
            column.drop_oldest(n)

    def _empty_columns(self) -> list[Column]:
        count = 1 if self._fields is None else len(self._fields)
        return [Column(max_rows=self._max_size, segment_bytes=self._segment_bytes) for _ in range(count)]

    def _fill(self, rows: Iterable[Any]) -> None:
        self._columns = self._empty_columns()
        for row in rows:
            self._append(row)
        self._trim()

    def _rows_of_pickle(self, data: Any, file: Path) -> Iterable[Any]:
        """The samples in a pickle of PAMIQ-Core: a dict of sequences, or (newer) a sequence of samples."""
        if isinstance(data, Mapping) and self._fields is not None:
            return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
        if isinstance(data, Iterable) and not isinstance(data, Mapping | str | bytes):
            return data
        raise FormatError(f"{file} holds a {type(data).__name__}, not the samples of a buffer")


def split_fields(first: Iterable[str] | int | None) -> tuple[Sequence[str] | None, int | None]:
    """Tell the two spellings of a buffer's first argument apart: names of fields, or the size."""
    if first is None:
        return None, None
    if isinstance(first, int):
        return None, first
    return field_names(first), None
