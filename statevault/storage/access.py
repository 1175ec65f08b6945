"""What a storage lets its user do: credentials and permissions, found by trying."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from statevault.errors import StorageAccessError, StorageError, StorageFullError
from statevault.storage.interface import Storage
from statevault.storage.probe import PROBE_PREFIX

__all__ = ["Access", "check_access"]

_BODY = b"statevault access"
_RECORDS = PROBE_PREFIX.removesuffix("probe/")


@dataclass(frozen=True, slots=True)
class Access:
    """What is allowed.

    Attributes:
        allowed: Out of ``list``, ``write``, ``read``, ``replace`` and ``delete``, in this order.
        refused: What is refused, and how. What is in neither could not be tried.
    """

    allowed: tuple[str, ...]
    refused: dict[str, StorageError]


def check_access(storage: Storage) -> Access:
    """Try what is allowed, with one small object that is deleted again.

    Where nothing may be written, reading is tried with a record that lies there.

    Raises:
        StorageError: The storage failed in another way than by a refusal, or a lack of room.
    """
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}/access"
    allowed: list[str] = []
    refused: dict[str, StorageError] = {}

    def attempt(what: str, call: Callable[[], object]) -> bool:
        try:
            call()
        except (StorageAccessError, StorageFullError) as error:
            refused[what] = error
            return False
        allowed.append(what)
        return True

    there: list[str] = []
    attempt("list", lambda: there.extend(info.key for info in storage.list(_RECORDS) if info.size))
    try:
        if attempt("write", lambda: storage.put(key, _BODY)):
            attempt("read", lambda: storage.get(key))
            attempt("replace", lambda: storage.put(key, _BODY))
            attempt("delete", lambda: storage.delete([key]))
        elif there:
            attempt("read", lambda: storage.get(there[0], 0, 1))
    except BaseException:
        with contextlib.suppress(StorageError):
            storage.delete([key])
        raise
    return Access(tuple(allowed), refused)
