"""Looking for records that can't be read, for people who ask whether a store is well. Nothing is decided by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from statevault.errors import FormatError, ObjectNotFoundError
from statevault.format.keys import (
    ABORTS,
    COMMITS,
    INTENTS,
    PINS,
    SESSIONS,
    TOMBSTONES,
    StateKey,
    commit_key,
    is_intent_key,
    tombstone_key,
)
from statevault.format.names import is_state_name
from statevault.format.records import IntentRecord, Record, TombstoneRecord
from statevault.state_persistence.records.catalog import Listing
from statevault.state_persistence.records.fetch import fetch_record
from statevault.storage import ObjectInfo, Storage
from statevault.worker_pool import WorkerPool

__all__ = ["Damage", "look_for_damage"]

_R = TypeVar("_R", bound=Record)
_CONCURRENT_READS = 16


@dataclass(frozen=True, slots=True)
class Damage:
    """Records that are not what they should be, beside markers and sessions.

    Attributes:
        tombstones: What is wrong with tombstones. Their states are dead all the same.
        intents: What is wrong with intents: as long as one is there, no state can be pinned.
        strays: Keys among the records that are none of a record. Nothing minds them.
    """

    tombstones: tuple[str, ...]
    intents: tuple[str, ...]
    strays: tuple[str, ...]


def look_for_damage(storage: Storage, listing: Listing) -> Damage:
    """Read the tombstones and intents that were listed.

    Raises:
        StorageError: The storage failed.
    """
    tombstones = {tombstone_key(*key): key for key in listing.tombstones}
    intents = [key for key in listing.objects if key.startswith(INTENTS) and is_intent_key(key)]

    def of_tombstone(info: ObjectInfo) -> str | None:
        found = _read(storage, info, TombstoneRecord)
        if isinstance(found, TombstoneRecord) and StateKey(found.sequence, found.state) != tombstones[info.key]:
            return f"the tombstone {info.key} of {storage.url} is of another state ({found.state!r})"
        return found if isinstance(found, str) else None

    def of_intent(info: ObjectInfo) -> str | None:
        found = _read(storage, info, IntentRecord)
        return found if isinstance(found, str) else None

    with WorkerPool(_CONCURRENT_READS, "statevault-damage") as pool:
        dead = pool.map_all(of_tombstone, [listing.objects[key] for key in tombstones])
        announced = pool.map_all(of_intent, [listing.objects[key] for key in intents])
    return Damage(_found(dead), _found(announced), tuple(_strays(listing)))


def _read(storage: Storage, info: ObjectInfo, kind: type[_R]) -> _R | str | None:
    """A record, or what is wrong with it; None if it has gone."""
    try:
        return fetch_record(storage, info, kind)
    except ObjectNotFoundError:
        return None
    except FormatError as error:
        return str(error)


def _found(errors: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(error for error in errors if error is not None)


def _strays(listing: Listing) -> Iterable[str]:
    known = {commit_key(*key) for key in listing.commits} | {tombstone_key(*key) for key in listing.tombstones}
    for key in listing.objects:
        if key.startswith((COMMITS, TOMBSTONES)):
            stray = key not in known
        elif key.startswith((SESSIONS, ABORTS)):
            stray = not is_state_name(key.removeprefix(SESSIONS).removeprefix(ABORTS))
        elif key.startswith(INTENTS):
            stray = not is_intent_key(key)
        else:
            stray = key.startswith(PINS) and not is_state_name(key.removeprefix(PINS).partition("/")[0])
        if stray:
            yield key
