"""What callers want to find beside a state: a JSON object that is read back as it was given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from statevault.errors import FormatError, UnsupportedTypeError

__all__ = ["check_metadata"]

_MAX_METADATA = 4 * 1024**2
_MAX_METADATA_DEPTH = 32


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, JsonValue]:
    """Return metadata as it will be read back, if it is a JSON object of acceptable size.

    NumPy's scalars are taken for the numbers that they are.

    Raises:
        UnsupportedTypeError: It holds a value that JSON has not.
        FormatError: It is too large or too deep.
    """
    try:
        encoded = json.dumps(dict(metadata or {}), allow_nan=False, default=_scalar)
        decoded: dict[str, JsonValue] = json.loads(encoded)
        json.dumps(decoded, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedTypeError(
            f"metadata must be a JSON object (str, bool, None, finite numbers, lists and dicts of them): {error}"
        ) from None
    if len(encoded) > _MAX_METADATA:
        raise FormatError(f"metadata has {len(encoded)} bytes of JSON; at most {_MAX_METADATA} are allowed")
    if _depth(decoded) > _MAX_METADATA_DEPTH:
        raise FormatError(f"metadata is nested more than {_MAX_METADATA_DEPTH} levels deep")
    return decoded


def _scalar(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not one of them")


def _depth(value: JsonValue) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(item, dict | list):
            waiting += [(below, depth + 1) for below in (item.values() if isinstance(item, dict) else item)]
    return deepest
