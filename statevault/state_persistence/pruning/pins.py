"""Pins: states that no prune removes (``docs/format.md``, section 7). The order of the steps is the protocol.

Whoever prunes and whoever pins at the same time may both give way. They never both go on.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from statevault.errors import (
    FormatError,
    ObjectNotFoundError,
    PinConflictError,
    StatePrunedError,
    StorageError,
    UnsupportedVersionError,
)
from statevault.format.keys import (
    INTENTS,
    PINS,
    StateKey,
    abort_key,
    commit_key,
    intent_key,
    is_intent_key,
    parse_pin_keys,
    pin_key,
    tombstone_key,
)
from statevault.format.names import check_pin_name
from statevault.format.records import IntentRecord, PinRecord, in_utc
from statevault.state_persistence.records.fetch import fetch_record
from statevault.storage import Storage

__all__ = ["pin_state", "unpin_state"]


def pin_state(storage: Storage, key: StateKey, pin: str, *, by: str) -> None:
    """Pin a visible state.

    Args:
        storage: The store's objects.
        key: The state.
        pin: The pin's name; any number of pins may have it.
        by: Who pins.

    Raises:
        InvalidNameError: `pin` can't be the name of a pin.
        PinConflictError: A prune may be removing the state: nothing was pinned.
        StatePrunedError: It was removed meanwhile.
        FormatError: The intent of a prune can't be read: nothing was pinned.
        StorageError: The storage failed. The notes of the error say it if the pin may be there all the same.
    """
    # A key of its own, so that a pin that is taken back is not that of somebody else.
    own = pin_key(key.state, check_pin_name(pin), secrets.token_hex(4))
    record = PinRecord(state=key.state, pin=pin, by=by, at=datetime.now(UTC))
    try:
        # First the pin, then the look at what speaks against it: a prune whose intent is not seen here lists the pins
        # after, and sees this one.
        storage.put(own, record.to_json())
        _check_that_it_holds(storage, key)
    except Exception as error:
        _take_back(storage, own, error)
        raise


def _check_that_it_holds(storage: Storage, key: StateKey) -> None:
    """Look for what speaks against a pin that was just put.

    The tombstone is looked for after the intents: an intent goes away only when its tombstones are there. And the
    marker after the tombstone, which goes away as well, long after the marker.

    Raises:
        PinConflictError: A prune may be removing the state.
        StatePrunedError: One has removed it.
    """
    intent = _intent(storage, key.state)
    aborted = storage.exists(abort_key(key.state))
    if storage.exists(tombstone_key(*key)) or not storage.exists(commit_key(*key)):
        raise StatePrunedError(f"the state {key.state!r} was removed from {storage.url} meanwhile: it is not pinned")
    if intent is not None:
        raise PinConflictError(
            f"{key.state!r} is not pinned: a prune of {storage.url} by {intent.by} was about to remove it at "
            f"{in_utc(intent.at):%Y-%m-%d %H:%M} UTC. Try again; if that prune has died, remove "
            f"{intent_key(intent.prune)}"
        )
    if aborted:
        raise PinConflictError(
            f"{key.state!r} is not pinned: a prune of {storage.url} took its writer for dead, and its save was never "
            "acknowledged. Copy it, or load and save it, and pin that"
        )


def _take_back(storage: Storage, own: str, error: Exception) -> None:
    try:
        storage.delete([own])
        left = isinstance(error, StorageError)  # its put may have no answer, and land yet
    except StorageError:
        left = True
    if left:
        error.add_note(f"the pin may be there all the same, as {own}")


def _intent(storage: Storage, state: str) -> IntentRecord | None:
    """The intent to remove a state, if there is one.

    Raises:
        FormatError: An intent can't be read: it may be to remove the state.
    """
    for info in list(storage.list(INTENTS)):
        if not is_intent_key(info.key):
            continue  # nobody's: no prune puts one under such a key
        try:
            intent = fetch_record(storage, info, IntentRecord)
        except ObjectNotFoundError:
            continue  # its tombstones are there
        except UnsupportedVersionError:
            raise
        except FormatError as error:
            raise FormatError(
                f"{error}; {state!r} is not pinned, since a prune may be about to remove it. `statevault gc` deletes "
                "the intent when it is a week old. Delete it by hand if all prunes have ended that ran when it was put"
            ) from None
        if state in intent.states:
            return intent
    return None


def unpin_state(storage: Storage, state: str, pin: str | None) -> int:
    """Take pins off a state.

    Args:
        storage: The store's objects.
        state: The state; it need not be there any more.
        pin: The name of the pins; None for all.

    Returns:
        How many pins there were.

    Raises:
        StorageError: The storage failed; call again to go on.
    """
    keys = [info.key for info in storage.list(f"{PINS}{state}/")]
    chosen = [key for key in keys if pin is None or parse_pin_keys([key])[state] == (pin,)]
    storage.delete(chosen)
    return len(chosen)
