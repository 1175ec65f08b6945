"""What may be a key, and what may be a prefix of keys.

The rules are those that every backend can keep: a key that is refused here would escape the root, be changed
on its way (``//``, ``.``), break an XML listing (control characters) or be hidden (temporary files).
"""

from __future__ import annotations

from statevault.errors import InvalidNameError

__all__ = ["TEMPORARY_PREFIX", "check_key", "check_prefix", "is_temporary"]

TEMPORARY_PREFIX = ".tmp-"
"""How the names of unfinished files on a local disk begin; no key may have such a segment."""


def check_key(key: str) -> str:
    """Return `key` if it can be a key.

    Raises:
        InvalidNameError: It is empty, absolute, has an empty, ``.``, ``..`` or ``.tmp-…`` segment, holds a
            control character, or can't be written in UTF-8.
    """
    if not key:
        raise InvalidNameError("An object's key must not be empty.")
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            msg = f"The key {key!r} is not a plain relative path: it has the segment {segment!r}."
            raise InvalidNameError(msg)
        if is_temporary(segment):
            msg = f"The key {key!r} has the segment {segment!r}: names that begin so are those of unfinished files."
            raise InvalidNameError(msg)
    _check_characters(key)
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if keys can start with it: any string that a key can be cut to, also the empty one.

    Raises:
        InvalidNameError: No key can start so.
    """
    folder = prefix.rpartition("/")[0]
    if folder or prefix.startswith("/"):
        check_key(folder)
    _check_characters(prefix)
    return prefix


def is_temporary(name: str) -> bool:
    """Whether a file's name is that of an unfinished one."""
    return name.startswith(TEMPORARY_PREFIX)


def _check_characters(text: str) -> None:
    for character in text:
        if character < " " or character == "\x7f":
            raise InvalidNameError(f"The key {text!r} holds the control character {character!r}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidNameError(f"The key {text!r} can't be written in UTF-8: {error.reason}.") from None
