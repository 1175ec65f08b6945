"""Whole numbers as users give them: Python's, NumPy's, and whatever else is an integer."""

from __future__ import annotations

import operator
from typing import SupportsIndex

__all__ = ["whole_number"]

_LIMIT = 2**63


def whole_number(name: str, value: SupportsIndex, *, minimum: int = -_LIMIT) -> int:
    """Return a whole number as Python's.

    Args:
        name: What it is, for the message.
        value: The number.
        minimum: The least that makes sense.

    Raises:
        TypeError: It is no integer; a bool is none, and neither is ``3.0``.
        ValueError: It is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if number >= _LIMIT:
        raise ValueError(f"{name} must be less than 2**63")
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {number}")
    return number
