"""Errors of the operating system, as errors of statevault."""

from __future__ import annotations

import errno
from collections.abc import Callable

from statevault.errors import (
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageTimeoutError,
    StorageUnreachableError,
)
from statevault.process_limits import scarce
from statevault.storage.redaction import redacted

__all__ = ["storage_error"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ACCESS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNREACHABLE = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENOTCONN,
    }
)
_READING = ("Can't read", "Can't look", "Can't list")
_TRANSIENT = frozenset({errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.EMFILE, errno.ENFILE})


def storage_error(
    error: OSError, *, url: str, key: str, what: str, hidden: Callable[[str], str] = redacted
) -> StorageError:
    """The error of statevault for one of the operating system, by its number and type.

    Args:
        error: What was raised.
        url: The storage's root, without credentials.
        key: The object that the call was about, or "".
        what: What was tried, as the beginning of a sentence: ``"Can't write a.bin in /data"``.
        hidden: Takes credentials out of what the error says.
    """
    number = error.errno
    reason = hidden(error.strerror or str(error)) or type(error).__name__
    place = f" (at {hidden(str(error.filename))})" if error.filename else ""
    text = f"{what}: {reason}{place}."
    if number in _FULL:
        text += " Free some space, raise the quota, or move the store to another disk."
        return StorageFullError(text, url=url, key=key)
    if number in _ACCESS or isinstance(error, PermissionError):
        how = "readable" if what.startswith(_READING) else "writable"
        text += f" Make the folder {how} for the user that runs this, or use another one."
        return StorageAccessError(text, url=url, key=key)
    if number == errno.ETIMEDOUT or isinstance(error, TimeoutError):
        return StorageTimeoutError(text, transient=True, url=url, key=key)
    if number in _UNREACHABLE or isinstance(error, ConnectionError):
        return StorageUnreachableError(text, transient=True, url=url, key=key)
    if why := scarce(error):
        text = f"{what}: {why}."
    if number in {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}:
        text += " A file lies where a folder is needed, or the other way round: move it away."
    return StorageError(text, transient=number in _TRANSIENT, url=url, key=key)
