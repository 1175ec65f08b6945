"""The msgpack extension codes of the values in a tree file.

Codes below 16 carry their content. The others are *tags*: empty, and only ever the first element of an array,
whose remaining elements they explain. A plain list never begins with a tag, so nothing has to be escaped.
"""

from __future__ import annotations

import collections
from enum import IntEnum, unique
from typing import Any

import msgpack

__all__ = ["FACTORIES", "FIRST_TAG", "MAX_DEPTH", "Code", "tag"]

MAX_DEPTH = 256
"""Containers may be nested this deep; each level takes two frames of Python's stack, 1000 by default."""

FIRST_TAG = 16


FACTORIES: dict[str, Any] = {
    cls.__name__: cls for cls in (bool, bytes, collections.deque, dict, float, int, list, set, str, tuple)
}
"""The default factories that a defaultdict may have, by name."""


@unique
class Code(IntEnum):
    """Extension codes; their numbers are part of the format."""

    LEAF = 0
    BIG_INT = 1
    COMPLEX = 2
    BYTEARRAY = 3

    TUPLE = 16
    DEQUE = 17
    SET = 18
    FROZENSET = 19
    DICT = 20
    ORDERED_DICT = 21
    DEFAULT_DICT = 22
    COUNTER = 23
    NAMED_TUPLE = 24
    ENUM = 25
    DATACLASS = 26
    DATETIME = 27
    DATE = 28
    TIME = 29
    TIMEDELTA = 30
    DECIMAL = 31
    PATH = 32
    NUMPY_SCALAR = 33
    TORCH_DEVICE = 34
    TORCH_DTYPE = 35
    TORCH_SIZE = 36


def tag(code: Code) -> msgpack.ExtType:
    """Return the tag that goes first in the array of a tagged value."""
    return msgpack.ExtType(int(code), b"")
