"""What callers want to find beside a state: a JSON object that is read back as it was given."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from statevault.errors import FormatError, UnsupportedTypeError

__all__ = ["check_metadata"]

_MAX_METADATA = 4 * 1024**2
_MAX_METADATA_DEPTH = 32


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, JsonValue]:
    """Return metadata as it will be read back, if it is a JSON object of acceptable size.

    Scalars of NumPy and torch are taken for the numbers and the text that they are, tuples for lists. Keys are text:
    others could become the text of another one, which would be lost.

    Raises:
        UnsupportedTypeError: It holds a key or a value that JSON has not; the message names its place.
        FormatError: It is too large or too deep.
    """
    try:
        plain = _plain({} if metadata is None else metadata, "metadata", 1)
        if not isinstance(plain, dict):
            raise TypeError(f"metadata is {_type_name(metadata)}")
        encoded = json.dumps(plain)
        json.dumps(plain, ensure_ascii=False).encode()
    except FormatError:
        raise
    except (TypeError, ValueError) as error:
        raise UnsupportedTypeError(
            "metadata must be a JSON object (str, bool, None, finite numbers, lists and dicts of them, keys of text): "
            f"{error}"
        ) from None
    if len(encoded) > _MAX_METADATA:
        raise FormatError(f"metadata has {len(encoded)} bytes of JSON; at most {_MAX_METADATA} are allowed")
    return plain


def _plain(value: Any, where: str, depth: int) -> JsonValue:
    """Turn a value into what the JSON of it is read back as."""
    if depth > _MAX_METADATA_DEPTH:
        raise FormatError(f"metadata is nested more than {_MAX_METADATA_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return _object(value, where, depth)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    scalar = _scalar(value)
    if scalar is None or isinstance(scalar, bool):
        return scalar
    # Of a subclass, such as an enum's member, what JSON writes of it.
    if isinstance(scalar, str):
        return str.__str__(scalar)
    if isinstance(scalar, int):
        return int.__int__(scalar)
    if isinstance(scalar, float) and math.isfinite(scalar):
        return float.__float__(scalar)
    raise TypeError(f"{where} is {float(scalar) if isinstance(scalar, float) else _type_name(value)}")


def _object(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{where} has the key {key!r:.80} ({_type_name(key)}); use text, such as {str(key)!r:.80}")
        text = str.__str__(key)
        if text in made:
            raise TypeError(f"{where} has two keys that read {text!r:.80}")
        made[text] = _plain(item, f"{where}[{text!r:.80}]", depth + 1)
    return made


def _scalar(value: Any) -> Any:
    """The number or the text that a scalar of NumPy or torch is; other values as they are."""
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item") or hasattr(value, "mask"):
        return value
    # The number of a time is none without its unit.
    return value if getattr(value.dtype, "kind", "") in ("m", "M") else value.item()


def _type_name(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
