"""How values of one kind lie as rows of one numpy array, and come back exactly as they were.

A kind is fixed by a type, a dtype and a shape. A value has a kind if it is exactly a ``bool``, ``int`` (of 64
bits) or ``float``, a numpy scalar or array of numbers or times, or a dense CPU tensor without a graph. All else
(strings, lists, tensors on a GPU, subclasses) has none, and is kept as the object that it is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from statevault.data.stacking import is_tensor
from statevault.errors import FormatError, MissingExtraError

__all__ = ["RowKind", "Rows", "kind_from_name", "kind_of"]

Rows: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_PYTHON_TYPES: dict[str, tuple[type, np.dtype[Any]]] = {
    "bool": (bool, np.dtype(np.bool_)),
    "int": (int, np.dtype(np.int64)),
    "float": (float, np.dtype(np.float64)),
}
_TIMES = "mM"
_STORED = "biufc" + _TIMES
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class RowKind(Protocol):
    """One kind of values."""

    @property
    def name(self) -> str:
        """What a saved segment calls it."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the rows."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        ...

    @property
    def gives_views(self) -> bool:
        """Whether what :meth:`items` returns shares memory with the rows."""
        ...

    def accepts(self, value: Any) -> bool:
        """Tell whether a value is of this kind."""

    def accepts_all(self, values: Sequence[Any]) -> bool:
        """Tell whether all of some values, at least one, are of this kind."""

    def put(self, rows: Rows, index: int, value: Any) -> None:
        """Write a value of this kind into a row."""

    def put_all(self, rows: Rows, values: Sequence[Any]) -> None:
        """Write values of this kind into as many rows."""

    def items(self, rows: Rows) -> list[Any]:
        """Return the rows as values, by one bulk conversion."""

    def batch(self, rows: Rows) -> Any:
        """Return the rows as one array or tensor, which shares their memory."""


@dataclass(frozen=True, slots=True)
class PythonNumbers:
    """Python's own numbers; ``items`` gives back exactly the same type."""

    name: str
    python_type: type
    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    gives_views: bool = False

    def accepts(self, value: Any) -> bool:
        if self.python_type is int:
            return type(value) is int and _INT64_MIN <= value <= _INT64_MAX
        return type(value) is self.python_type

    def accepts_all(self, values: Sequence[Any]) -> bool:
        if set(map(type, values)) != {self.python_type}:
            return False
        return self.python_type is not int or (min(values) >= _INT64_MIN and max(values) <= _INT64_MAX)

    def put(self, rows: Rows, index: int, value: Any) -> None:
        rows[index] = value

    def put_all(self, rows: Rows, values: Sequence[Any]) -> None:
        rows[:] = values

    def items(self, rows: Rows) -> list[Any]:
        values: list[Any] = rows.tolist()
        return values

    def batch(self, rows: Rows) -> Any:
        return rows


@dataclass(frozen=True, slots=True)
class NumpyScalars:
    """Numpy scalars of one dtype, such as ``np.float32(0.5)`` or ``np.bool_(True)``."""

    dtype: np.dtype[Any]
    name: str = "scalar"
    shape: tuple[int, ...] = ()
    gives_views: bool = False

    def accepts(self, value: Any) -> bool:
        return type(value) is self.dtype.type and (self.dtype.kind not in _TIMES or value.dtype == self.dtype)

    def accepts_all(self, values: Sequence[Any]) -> bool:
        if self.dtype.kind in _TIMES:  # of which one type has many dtypes
            return all(map(self.accepts, values))
        return set(map(type, values)) == {self.dtype.type}

    def put(self, rows: Rows, index: int, value: Any) -> None:
        rows[index] = value

    def put_all(self, rows: Rows, values: Sequence[Any]) -> None:
        rows[:] = values

    def items(self, rows: Rows) -> list[Any]:
        return list(rows)

    def batch(self, rows: Rows) -> Any:
        return rows


@dataclass(frozen=True, slots=True)
class NumpyArrays:
    """Arrays of one dtype and shape; ``items`` gives read-only views."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    name: str = "array"
    gives_views: bool = True

    def accepts(self, value: Any) -> bool:
        return type(value) is np.ndarray and _is_same(value.dtype, self.dtype) and value.shape == self.shape

    def accepts_all(self, values: Sequence[Any]) -> bool:
        if set(map(type, values)) != {np.ndarray}:
            return False
        # Few dtypes are more than one object. Counting compares in C: a third of the time of asking for each value.
        dtypes = {id(value.dtype): value.dtype for value in values}
        if not all(_is_same(dtype, self.dtype) for dtype in dtypes.values()):
            return False
        return [value.shape for value in values].count(self.shape) == len(values)

    def put(self, rows: Rows, index: int, value: Any) -> None:
        rows[index] = value

    def put_all(self, rows: Rows, values: Sequence[Any]) -> None:
        if self.shape:
            # One after the other along the first axis lie as many rows: one call for all of them.
            np.concatenate(values, out=rows.reshape(-1, *self.shape[1:]))
        else:
            rows[:] = values

    def items(self, rows: Rows) -> list[Any]:
        view = rows.view()
        view.flags.writeable = False
        if not self.shape:
            # Iterating would give scalars, where arrays of no dimension were collected.
            return [view[i, ...] for i in range(len(view))]
        return list(view)

    def batch(self, rows: Rows) -> Any:
        return rows


@dataclass(frozen=True, slots=True)
class Tensors:
    """Dense CPU tensors of one dtype and shape; ``items`` gives views, which must not be written to.

    The rows have the dtype of the same name, or, where numpy has none (bfloat16, float8), the signed integer
    of the same size.
    """

    torch_dtype: Any
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    carrier: Any
    gives_views: bool = True

    @property
    def name(self) -> str:
        return f"tensor:{str(self.torch_dtype).removeprefix('torch.')}"

    def accepts(self, value: Any) -> bool:
        return is_tensor(value) and value.dtype is self.torch_dtype and value.shape == self.shape and _is_plain(value)

    def accepts_all(self, values: Sequence[Any]) -> bool:
        return all(map(self.accepts, values))

    def put(self, rows: Rows, index: int, value: Any) -> None:
        rows[index] = value.view(self.carrier).numpy()

    def put_all(self, rows: Rows, values: Sequence[Any]) -> None:
        _torch().stack(values, out=self.batch(rows))

    def items(self, rows: Rows) -> list[Any]:
        return list(self.batch(rows).unbind(0)) if len(rows) else []

    def batch(self, rows: Rows) -> Any:
        return _torch().from_numpy(rows).view(self.torch_dtype)


def kind_of(value: Any) -> RowKind | None:
    """Return the kind of a value, or None if it has to be kept as an object."""
    cls = type(value)
    if cls in (bool, int, float):
        kind = PythonNumbers(cls.__name__, *_PYTHON_TYPES[cls.__name__])
        return kind if kind.accepts(value) else None
    if cls is np.ndarray:
        return NumpyArrays(value.dtype, value.shape) if _is_stored(value.dtype) else None
    if isinstance(value, np.generic) and cls is value.dtype.type:
        return NumpyScalars(value.dtype) if _is_stored(value.dtype) else None
    if is_tensor(value) and _is_plain(value):
        return _tensor_kind(value.dtype, tuple(value.shape))
    return None


def kind_from_name(name: str, rows: Rows) -> RowKind:
    """Return the kind of saved rows.

    Raises:
        FormatError: The name is unknown or does not fit the rows.
        MissingExtraError: The rows are tensors, and torch is not installed.
    """
    if name in _PYTHON_TYPES and rows.dtype == _PYTHON_TYPES[name][1] and rows.ndim == 1:
        return PythonNumbers(name, *_PYTHON_TYPES[name])
    if name == "scalar" and rows.ndim == 1 and _is_stored(rows.dtype):
        return NumpyScalars(rows.dtype)
    if name == "array" and rows.ndim >= 1 and _is_stored(rows.dtype):
        return NumpyArrays(rows.dtype, rows.shape[1:])
    if name.startswith("tensor:") and rows.ndim >= 1:
        torch = _torch()
        dtype = getattr(torch, name.removeprefix("tensor:"), None)
        if isinstance(dtype, torch.dtype):
            kind = _tensor_kind(dtype, rows.shape[1:])
            if kind is not None and kind.dtype == rows.dtype:
                return kind
    raise FormatError(f"a saved column has rows of the kind {name!r} with dtype {rows.dtype} and shape {rows.shape}")


def _tensor_kind(dtype: Any, shape: tuple[int, ...]) -> Tensors | None:
    torch = _torch()
    carrier = dtype
    try:
        rows_dtype = torch.empty(0, dtype=dtype, device="cpu").numpy().dtype
    except TypeError:
        # No such dtype in numpy: carry the bits in an integer of the same size.
        carrier = {1: torch.int8, 2: torch.int16}.get(dtype.itemsize)
        if carrier is None:
            return None
        rows_dtype = torch.empty(0, dtype=carrier, device="cpu").numpy().dtype
    return Tensors(dtype, rows_dtype, shape, carrier)


def _is_plain(tensor: Any) -> bool:
    torch = _torch()
    return (
        type(tensor) is torch.Tensor
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _is_stored(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in _STORED and dtype.isnative and not dtype.metadata


def _is_same(dtype: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether two dtypes do not even differ in what numpy takes for equal: ``int64`` and ``longlong``, metadata."""
    return dtype is other or (dtype == other and dtype.num == other.num and not dtype.metadata)


def _torch() -> Any:
    # Reached only with a tensor in hand, or with rows that were tensors: torch stays optional.
    if (torch := sys.modules.get("torch")) is not None:
        return torch  # by far the cheaper look-up, and one for each tensor
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingExtraError(
            "the saved data are torch tensors: install torch with `pip install 'statevault[torch]'`"
        ) from error
