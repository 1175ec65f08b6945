"""Columns of values in contiguous segments: what buffers keep their samples in."""

from statevault.data.columns.column import Column

__all__ = ["Column"]
