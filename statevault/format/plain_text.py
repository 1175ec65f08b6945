"""What anybody may have written into a store, without what could drive a terminal, hide in a line, or be no JSON."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

__all__ = ["finite", "plain", "plain_json"]

# Control characters, formats (marks of direction, characters of no width), halves of characters, separators of lines.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: str) -> str:
    r"""Make escapes of the characters that can't be seen, such as ``\x1b`` and ``\u202e``."""
    if text.isprintable():
        return text
    return "".join(ascii(char)[1:-1] if _is_unprintable(char) else char for char in text)


def plain_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Write JSON (RFC 8259), in which the characters that can't be seen are escapes as well.

    Args:
        value: What `json.dumps` takes. NaN and infinities, which JSON has not, become null.
        indent: Of each level; None for one line.
        ascii_only: Make escapes of all letters outside ASCII.
    """
    text = json.dumps(finite(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    # A newline that is no escape stands between values.
    return "\n".join(line if line.isprintable() else _escaped_line(line) for line in text.split("\n"))


def finite(value: Any) -> Any:
    """A value in which NaN and infinities, which JSON has not, are None; the value itself if there are none."""
    return value if _is_finite(value) else _without_infinities(value)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_infinities(inner) for name, inner in value.items()}
    return list(map(_without_infinities, value)) if isinstance(value, (list, tuple)) else value


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return all(map(_is_finite, inner))


def _escaped_line(line: str) -> str:
    return "".join(_json_escape(char) if _is_unprintable(char) else char for char in line)


def _is_unprintable(char: str) -> bool:
    return not char.isprintable() and unicodedata.category(char) in _UNPRINTABLE


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
