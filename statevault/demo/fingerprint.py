"""Digests of objects in memory, made without any of the code that saves and loads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

__all__ = ["Fingerprint", "of_arrays", "of_state_dict", "of_values"]

Fingerprint: TypeAlias = dict[str, str]
"""Name of a part of the agent → SHA-256 of its bits, in hex."""


def of_state_dict(state: Mapping[str, Any]) -> str:
    """The digest of a torch state dict: names, dtypes, shapes and bits of all tensors, and the values beside."""
    return of_values(dict(state))


def of_arrays(arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The digest of arrays by name."""
    return of_values(dict(arrays))


def of_values(value: Any) -> str:
    """The digest of nested dicts, lists and tuples of numbers, strings, arrays and tensors."""
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for name, item in value.items():
            digest.update(f"{name!r}:".encode())
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__}{len(value)}".encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(f"{value!r};".encode())
