"""Errors in the notes of others."""

from __future__ import annotations

__all__ = ["told"]


def told(error: BaseException) -> str:
    """An error as a part of another one's note: as it is shown, with its own notes below."""
    return "\n".join([repr(error), *getattr(error, "__notes__", ())])
