"""NumPy arrays, scalars and dtypes as leaves. NumPy is imported only when a file or an object needs it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal, cast

from statevault.codecs.tree.blocks import BlockTable
from statevault.codecs.tree.unchanging import KnownDigests
from statevault.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "decode_dtype",
    "decode_scalar",
    "empty_array",
    "encode_array",
    "encode_dtype",
    "encode_scalar",
    "flat_bytes",
    "has_metadata",
    "mapped_array",
]

_MAX_DTYPE_DEPTH = 16
_MAX_DIMENSIONS = 64
_RECORD = "record"
_PLAIN = re.compile(r"[<>|][biufcSUVmM][0-9]{1,10}(\[[0-9A-Za-z/]{1,32}\])?")

_Dtype = str | list[Any]


def encode_dtype(dtype: np.dtype[Any]) -> _Dtype | None:
    """Describe a dtype; None when it can't be described without running code (objects, foreign dtypes), or in full."""
    if dtype.hasobject or has_metadata(dtype):
        return None
    try:
        described = _describe(dtype)
        faithful = decode_dtype(described) == dtype
    except FormatError:
        faithful = False
    return described if faithful else None


def has_metadata(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype, or one in it, carries metadata, which NumPy itself ignores where it compares dtypes."""
    if dtype.subdtype is not None:
        return bool(dtype.metadata) or has_metadata(dtype.subdtype[0])
    return bool(dtype.metadata) or any(has_metadata(field[0]) for field in (dtype.fields or {}).values())


def _describe(dtype: np.dtype[Any]) -> _Dtype:
    import numpy as np  # noqa: PLC0415

    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_describe(base), list(shape)]
    is_record = dtype.type is np.record and dtype.names is not None
    # Dtypes that differ in this alone are equal to NumPy.
    if dtype.kind == "V" and dtype.type is not np.void and not is_record:
        raise FormatError(f"items of {dtype.type.__qualname__} are not part of the format")
    if dtype.names is None or dtype.fields is None:
        return dtype.str
    formats = [_describe(dtype.fields[name][0]) for name in dtype.names]
    offsets = [dtype.fields[name][1] for name in dtype.names]
    described = [list(dtype.names), formats, offsets, dtype.itemsize, dtype.isalignedstruct]
    return [*described, _RECORD] if is_record else described


def decode_dtype(described: object) -> np.dtype[Any]:
    """Build the dtype that :func:`encode_dtype` described.

    Raises:
        FormatError: The description is not one.
    """
    import numpy as np  # noqa: PLC0415

    try:
        dtype: np.dtype[Any] = np.dtype(_specification(described, _MAX_DTYPE_DEPTH))
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{described!r:.200} is not a NumPy dtype") from error
    if dtype.hasobject:
        raise FormatError("arrays of Python objects are not part of the format")
    return dtype


def _specification(described: object, depth: int) -> Any:
    if isinstance(described, str) and _PLAIN.fullmatch(described):
        return described
    if depth and isinstance(described, list) and len(described) == 2:
        base, shape = described
        return (_specification(base, depth - 1), tuple(shape))
    if depth and isinstance(described, list) and (len(described) == 5 or described[5:] == [_RECORD]):
        names, formats, offsets, itemsize, aligned = described[:5]
        import numpy as np  # noqa: PLC0415

        formats = [np.dtype(_specification(item, depth - 1)) for item in formats]
        fields = {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}
        dtype = np.dtype(fields, align=bool(aligned))  # type: ignore[call-overload]
        return dtype if len(described) == 5 else (np.record, dtype)
    raise ValueError("unknown dtype")


def flat_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the memory of a contiguous array as a flat byte view."""
    import numpy as np  # noqa: PLC0415

    if array.nbytes == 0:
        return memoryview(b"")
    return array.reshape(-1, order="A").view(np.uint8).data


def encode_array(
    array: np.ndarray[Any, Any], dtype: _Dtype, blocks: BlockTable, known: KnownDigests | None = None
) -> list[Any]:
    """Make the leaf of an array. Its memory is referred to, or copied when it is not contiguous.

    Args:
        array: The array.
        dtype: What :func:`encode_dtype` returned.
        blocks: Where its memory is added.
        known: Where digests of it are remembered, if it never changes.
    """
    import numpy as np  # noqa: PLC0415

    order = "C" if array.flags.c_contiguous else "F" if array.flags.f_contiguous else None
    if order is None:
        block = blocks.add(flat_bytes(np.ascontiguousarray(array)), private=True)
    else:
        block = blocks.add(flat_bytes(np.asarray(array)), private=False, known=known)
    return ["a", block, dtype, list(array.shape), order or "C"]


def empty_array(block_length: int, dtype: object, shape: Any, order: object) -> np.ndarray[Any, Any]:
    """Allocate the array of a leaf, after checking that it has exactly as many bytes as its block."""
    import numpy as np  # noqa: PLC0415

    decoded, sizes, memory_order = _check(block_length, dtype, shape, order)
    return np.ndarray(sizes, decoded, order=memory_order)  # np.empty would make "S0" "S1", and ">m8" "<m8"


def mapped_array(block: memoryview, dtype: object, shape: Any, order: object) -> np.ndarray[Any, Any]:
    """Build the array of a leaf on the memory of its block."""
    import numpy as np  # noqa: PLC0415

    decoded, sizes, memory_order = _check(len(block), dtype, shape, order)
    return np.ndarray(sizes, decoded, buffer=block, order=memory_order)


def _check(
    block_length: int, dtype: object, shape: Any, order: object
) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    decoded = decode_dtype(dtype)
    sizes = tuple(shape)
    if len(sizes) > _MAX_DIMENSIONS:
        raise FormatError(f"an array has {len(sizes)} dimensions, NumPy works with up to {_MAX_DIMENSIONS}")
    if order not in ("C", "F") or not all(type(n) is int and n >= 0 for n in sizes):
        raise FormatError("an array has a malformed shape")
    if math.prod(sizes) * decoded.itemsize != block_length:
        raise FormatError(f"an array of shape {sizes} and dtype {decoded} does not fit its {block_length} bytes")
    return decoded, sizes, "C" if order == "C" else "F"


def encode_scalar(scalar: np.generic, dtype: _Dtype) -> list[Any]:
    """Describe a NumPy scalar other than ``np.str_`` and ``np.bytes_``.

    Args:
        scalar: The scalar.
        dtype: What :func:`encode_dtype` returned.
    """
    described = [dtype, scalar.tobytes()]
    # Only these refer to memory that may be changed; a read-only one can be the key of a dict.
    return [*described, True] if scalar.dtype.kind == "V" and not scalar.flags.writeable else described


def decode_scalar(items: list[Any]) -> np.generic:
    """Build a NumPy scalar from what :func:`encode_scalar` returned (``["U", str]`` and ``["S", bytes]`` for text)."""
    import numpy as np  # noqa: PLC0415

    described, data, *read_only = items
    if described == "U" and not read_only:
        return np.str_(_of_type(data, str))
    if described == "S" and not read_only:
        return np.bytes_(_of_type(data, bytes))
    dtype = decode_dtype(described)
    if dtype.itemsize != len(_of_type(data, bytes)) or dtype.subdtype is not None or read_only not in ([], [True]):
        raise FormatError(f"a scalar of dtype {dtype} does not fit its {len(data)} bytes")
    scalar: Any = np.ndarray((), dtype, buffer=data if read_only else bytearray(data))[()]
    return cast("np.generic", scalar)


def _of_type(data: Any, cls: type[Any]) -> Any:
    if type(data) is not cls:
        raise FormatError(f"a {cls.__name__} is expected, not a {type(data).__name__}")
    return data
