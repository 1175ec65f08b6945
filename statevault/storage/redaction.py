"""Keeping credentials out of messages."""

from __future__ import annotations

import re

__all__ = ["redacted"]

# Up to the last @: what is before it may hold some as well.
_USER_INFO = re.compile(r"(?<=://)[^/\s]*@")
_SECRET_QUERY = re.compile(
    r"(?i)([?&](?:[^=&\s]*(?:signature|credential|token|secret|password|key)[^=&\s]*)=)[^&\s'\"]*"
)


def redacted(text: str) -> str:
    """Return a URL, or a text with URLs in it, without user names, passwords and signatures."""
    return _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub("***@", text))
