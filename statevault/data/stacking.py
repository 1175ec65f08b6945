"""Stacking values of samples along a new first axis."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["is_tensor", "stack_values"]


def is_tensor(value: Any) -> bool:
    """Tell whether a value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    # A value can only be a tensor if somebody has imported torch; a half-imported torch has no Tensor yet.
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def stack_values(values: list[Any]) -> Any:
    """Stack values along a new first axis where that is possible.

    Args:
        values: Values of one field.

    Returns:
        An array for numbers and for arrays of one shape, a tensor for tensors of one shape; else the list
        itself.
    """
    if not values:
        return values
    first = values[0]
    if is_tensor(first):
        if all(is_tensor(v) and v.shape == first.shape and v.device == first.device for v in values):
            return sys.modules["torch"].stack(values)
        return values
    if isinstance(first, np.ndarray):
        if all(isinstance(v, np.ndarray) and v.shape == first.shape and v.dtype == first.dtype for v in values):
            return np.stack(values)
        return values
    if isinstance(first, bool | int | float | np.generic) and all(type(v) is type(first) for v in values):
        stacked = np.array(values)
        return values if stacked.dtype == object else stacked
    return values
