"""Bit-exact comparison of trees: types, order, payloads of NaNs, dtypes, strides."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import struct
from typing import Any

import numpy as np
import torch


def assert_same(left: Any, right: Any, at: str = "value") -> None:
    assert type(left) is type(right), f"{at}: {type(left)} != {type(right)}"
    if isinstance(left, float) and not isinstance(left, np.generic):
        assert struct.pack("<d", left) == struct.pack("<d", right), at
    elif isinstance(left, complex) and not isinstance(left, np.generic):
        assert struct.pack("<dd", left.real, left.imag) == struct.pack("<dd", right.real, right.imag), at
    elif isinstance(left, torch.Tensor):
        _assert_same_tensor(left, right, at)
    elif isinstance(left, np.ndarray | np.generic):
        # Equal dtypes may differ in their strings, their alignment, the type of their items.
        assert (left.dtype, repr(left.dtype), left.dtype.str) == (right.dtype, repr(right.dtype), right.dtype.str), at
        assert left.shape == right.shape, at
        assert item_bytes(left) == item_bytes(right), at
        if isinstance(left, np.ndarray):
            assert left.flags.f_contiguous == right.flags.f_contiguous or not (right.nbytes and right.flags.forc), at
    elif isinstance(left, dict):
        assert len(left) == len(right), at
        if isinstance(left, collections.defaultdict):
            assert left.default_factory is right.default_factory, at
        for (lkey, lvalue), (rkey, rvalue) in zip(left.items(), right.items(), strict=True):
            assert_same(lkey, rkey, f"{at} key")
            assert_same(lvalue, rvalue, f"{at}[{lkey!r}]")
    elif isinstance(left, list | tuple | collections.deque):
        assert len(left) == len(right), at
        if isinstance(left, collections.deque):
            assert left.maxlen == right.maxlen, at
        for index, (litem, ritem) in enumerate(zip(left, right, strict=True)):
            assert_same(litem, ritem, f"{at}[{index}]")
    elif isinstance(left, decimal.Decimal):
        assert str(left) == str(right), at
    elif dataclasses.is_dataclass(left):
        for field in dataclasses.fields(left):
            assert_same(getattr(left, field.name), getattr(right, field.name), f"{at}.{field.name}")
    else:
        assert left == right, f"{at}: {left!r} != {right!r}"


def item_bytes(array: np.ndarray[Any, Any] | np.generic) -> bytes:
    """The bytes of an array's items in order, without those between fields, which a copy need not keep."""
    if array.dtype.names is None:
        return array.tobytes()
    return b"".join(item_bytes(array[name]) for name in array.dtype.names)  # type: ignore[index]


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's items in order, whatever its dtype and strides."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.numel() == 0:
        return b""
    storage = plain.untyped_storage()
    memory = (
        torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage, 0, (storage.nbytes(),), (1,)).numpy().tobytes()
    )
    axes = [(size, stride) for size, stride in zip(plain.shape, plain.stride(), strict=True) if size > 1]
    items = np.lib.stride_tricks.as_strided(
        np.frombuffer(memory, f"V{plain.itemsize}")[plain.storage_offset() :],
        [size for size, _ in axes],
        [stride * plain.itemsize for _, stride in axes],
    )
    return items.tobytes()


def _assert_same_tensor(left: torch.Tensor, right: torch.Tensor, at: str) -> None:
    assert left.dtype == right.dtype, at
    assert left.shape == right.shape, at
    assert left.requires_grad == right.requires_grad, at
    assert left.device == right.device, at
    assert tensor_bytes(left) == tensor_bytes(right), at
