"""How long slow suites run: a short profile by default, a long one for ``make test-long``."""

from __future__ import annotations

import os

__all__ = ["is_long", "rounds"]


def is_long() -> bool:
    """Whether the long profile was asked for."""
    return os.environ.get("STATEVAULT_TEST_PROFILE") == "long"


def rounds(short: int, long: int) -> int:
    """A number of repetitions for the profile."""
    return long if is_long() else short
