"""What a backend can do, found by trying: versions and names of servers tell too little."""

from __future__ import annotations

import contextlib
import logging
import secrets
from dataclasses import dataclass

from statevault.errors import ObjectExistsError, StorageError
from statevault.storage.interface import Storage

__all__ = ["PROBE_PREFIX", "Capabilities", "probe"]

logger = logging.getLogger(__name__)

PROBE_PREFIX = "_vault/probe/"
"""Below it lie the objects that a probe makes; it deletes them again."""

_BODY = b"statevault probe"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was seen of a storage. statevault is safe without any of it but `reads_own_writes`.

    Attributes:
        create_only: A create-only put does not replace an object.
        replaces: Another put does, and the new bytes are read at once.
        ranges: A part of an object can be read.
        reads_own_writes: Get, head and list see a put at once, and no longer see what was deleted.
        exact_keys: Keys with characters such as ``+``, ``%``, ``?``, ``#`` and ``*`` come back as they were.
    """

    create_only: bool
    replaces: bool
    ranges: bool
    reads_own_writes: bool
    exact_keys: bool


def probe(storage: Storage) -> Capabilities:
    """Try what a storage can do, with a few small objects that are deleted again.

    Raises:
        StorageError: The storage can't be written, read, listed or deleted at all.
    """
    prefix = f"{PROBE_PREFIX}{secrets.token_hex(8)}/"
    plain, odd = f"{prefix}plain", f"{prefix}odd +%2B?versionId=1#[*]é"
    try:
        storage.put(plain, _BODY)
        seen = _sees(storage, prefix, [plain])
        create_only = _refuses_second(storage, plain)
        replaces = _replaces(storage, plain)
        ranges = _reads_part(storage, plain)
        exact_keys = _keeps_key(storage, prefix, odd)
        storage.delete([plain, odd])
        return Capabilities(
            create_only=create_only,
            replaces=replaces,
            ranges=ranges,
            reads_own_writes=seen and _sees(storage, prefix, []),
            exact_keys=exact_keys,
        )
    except BaseException:
        with contextlib.suppress(StorageError):
            storage.delete([plain, odd])
        raise


def _sees(storage: Storage, prefix: str, keys: list[str]) -> bool:
    listed = [info.key for info in storage.list(prefix)]
    return listed == keys and all(storage.get(key) == _BODY and storage.exists(key) for key in keys)


def _refuses_second(storage: Storage, key: str) -> bool:
    try:
        storage.put(key, _BODY + b", second", create_only=True)
    except ObjectExistsError:
        return storage.get(key) == _BODY
    return False


def _replaces(storage: Storage, key: str) -> bool:
    seen = []
    for body in (_BODY + b", another", _BODY):
        storage.put(key, body)
        seen.append(storage.get(key) == body)
    return all(seen)


def _reads_part(storage: Storage, key: str) -> bool:
    try:
        return storage.get(key, 6, 11) == _BODY[6:11]
    except StorageError as error:
        if error.transient:
            raise
        return False


def _keeps_key(storage: Storage, prefix: str, key: str) -> bool:
    try:
        storage.put(key, _BODY)
        return storage.get(key) == _BODY and key in [info.key for info in storage.list(prefix)]
    except StorageError as error:
        if error.transient:
            raise
        logger.debug("%s does not take the key %r: %s", storage.url, key, error)
        return False
