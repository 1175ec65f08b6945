"""Names as they can be shown: on one line, without characters that do something to a terminal or a document."""

from __future__ import annotations

__all__ = ["printable"]


def printable(name: str) -> str:
    """A name with single spaces, and with a replacement character for each one that can't be printed."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(name.split()))
