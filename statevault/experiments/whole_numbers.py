"""Whole numbers as users give them: Python's, NumPy's, and nothing else."""

from __future__ import annotations

import operator
from typing import SupportsIndex

__all__ = ["whole_number"]

_MOST = 2**63


def whole_number(name: str, value: SupportsIndex, *, minimum: int) -> int:
    """Return a whole number as Python's.

    Args:
        name: What it is, for the message.
        value: The number.
        minimum: The least that makes sense.

    Raises:
        ValueError: It is no whole number, or out of range.
    """
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if isinstance(value, bool) or not minimum <= number < _MOST:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, not {value!r}")
    return number
