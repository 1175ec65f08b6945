"""The built-in data buffers."""

from statevault.data.impls.random_replacement_buffer import (
    DictRandomReplacementBuffer,
    RandomReplacementBuffer,
)
from statevault.data.impls.sequential_buffer import DictSequentialBuffer, SequentialBuffer

__all__ = [
    "DictRandomReplacementBuffer",
    "DictSequentialBuffer",
    "RandomReplacementBuffer",
    "SequentialBuffer",
]
