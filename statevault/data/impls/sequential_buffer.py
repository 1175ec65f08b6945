"""Buffers that keep the newest samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar, cast, overload

from typing_extensions import override

from statevault.data.impls.columnar_buffer import ColumnarBuffer, split_fields

__all__ = ["DictSequentialBuffer", "SequentialBuffer"]

T = TypeVar("T")
_SEGMENT_BYTES = 1 << 20


class SequentialBuffer(ColumnarBuffer[T, Any]):
    """Keeps samples in their order; a full buffer drops the oldest one.

    * ``SequentialBuffer(max_size)`` collects samples of any type; ``get_data()`` returns a list.
    * ``SequentialBuffer(["obs", "action"], max_size)`` collects mappings with these fields; ``get_data()``
      returns a dict of lists.
    """

    @overload
    def __init__(self, max_size: int, /, *, seed: int | None = None) -> None: ...
    @overload
    def __init__(self, *, max_size: int, seed: int | None = None) -> None: ...
    @overload
    def __init__(self, collecting_data_names: Iterable[str], max_size: int, *, seed: int | None = None) -> None: ...
    def __init__(
        self,
        collecting_data_names: Iterable[str] | int | None = None,
        max_size: int | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        """Initialize without samples.

        Args:
            collecting_data_names: The names of the fields; left out for samples of any type.
            max_size: How many samples to keep.
            seed: Seed of the generator that :meth:`sample` uses.

        Raises:
            TypeError: ``max_size`` is missing or given twice, or the names are one string.
            ValueError: ``max_size`` is negative, or a name occurs twice.
        """
        fields, size = split_fields(collecting_data_names)
        if (size is None) == (max_size is None):
            raise TypeError("SequentialBuffer takes (max_size) or (collecting_data_names, max_size)")
        size = cast("int", max_size if size is None else size)
        super().__init__(fields, size, max_queue_size=size, segment_bytes=_SEGMENT_BYTES, seed=seed)

    @override
    def add(self, data: Any, /) -> None:
        self._append(data)
        if len(self) > self.max_size:
            self._drop_oldest(1)

    @override
    def extend(self, samples: Iterable[Any], /) -> None:
        if type(self).add is not SequentialBuffer.add:
            super().extend(samples)  # a subclass has its own way of adding
            return
        remaining = iter(samples)
        more = True
        while more:
            try:
                more = self._append_batch(remaining)
            finally:
                self._trim()


class DictSequentialBuffer(SequentialBuffer[T], Generic[T]):
    """A :class:`SequentialBuffer` of mappings, under the name that PAMIQ-Core 0.6 has for it."""

    def __init__(self, keys: Iterable[str], max_size: int, *, seed: int | None = None) -> None:
        """Initialize without samples.

        Args:
            keys: The names of the fields.
            max_size: How many samples to keep.
            seed: Seed of the generator that :meth:`sample` uses.

        Raises:
            TypeError: ``keys`` is one string.
            ValueError: ``max_size`` is negative, or a name occurs twice.
        """
        super().__init__(keys, max_size, seed=seed)

    @property
    def keys(self) -> set[str]:
        """The names of the fields."""
        return self.collecting_data_names

    @override
    def get_data(self) -> dict[str, list[T]]:
        return cast("dict[str, list[T]]", super().get_data())
