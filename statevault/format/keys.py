"""The key of everything that lies in a store (``docs/format.md``, section 1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from blake3 import blake3

from statevault.errors import FormatError, InvalidNameError
from statevault.format.names import check_state_name

__all__ = [
    "ABORTS",
    "COMMITS",
    "FORMAT_KEY",
    "IDS",
    "INTENTS",
    "MARKER_PACK",
    "MAX_SEQUENCE",
    "MAX_UNREAD_SEQUENCE",
    "PINS",
    "SESSIONS",
    "TOMBSTONES",
    "VAULT",
    "StateKey",
    "abort_key",
    "check_object_key",
    "commit_key",
    "folder_of",
    "id_key",
    "intent_key",
    "is_intent_key",
    "manifest_key",
    "object_key",
    "parse_ids",
    "parse_pin_keys",
    "parse_state_keys",
    "pin_key",
    "session_key",
    "state_prefix",
    "tombstone_key",
]

VAULT = "_vault/"
FORMAT_KEY = VAULT + "format.json"
SESSIONS = VAULT + "sessions/"
COMMITS = VAULT + "commits/"
TOMBSTONES = VAULT + "tombstones/"
ABORTS = VAULT + "aborts/"
INTENTS = VAULT + "intents/"
PINS = VAULT + "pins/"
IDS = VAULT + "ids/"
MARKER_PACK = VAULT + "markers.pack"
MAX_SEQUENCE = 10**12 - 1
MAX_UNREAD_SEQUENCE = 9 * 10**11
"""Up to here a number in a key counts, whatever its object holds; beyond, only that of a visible, readable marker."""

_MANIFEST = "manifest.msgpack.zst"
_SEQUENCED = re.compile(r"(\d{12})\.(.+)", re.ASCII)
_INTENT = re.compile(re.escape(INTENTS) + r"[0-9a-f]{16}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_ATTEMPT = re.compile(r"\.[0-9a-f]{8}$")
_TO_ESCAPE = re.compile(rb"[^A-Za-z0-9._,+=@~-]|^\.")
_MAX_SEGMENT = 180
_MAX_KEY = 900
_MAX_SEGMENT_READ = 255


class StateKey(NamedTuple):
    """What the key of a commit marker or a tombstone says. Sorts in the order of states."""

    sequence: int
    state: str


def session_key(state: str) -> str:
    """The key of the record that a save of `state` has begun."""
    return SESSIONS + state


def commit_key(sequence: int, state: str) -> str:
    """The key of the commit marker of `state`."""
    return f"{COMMITS}{sequence:012d}.{state}"


def tombstone_key(sequence: int, state: str) -> str:
    """The key of the record that `state` is gone for good."""
    return f"{TOMBSTONES}{sequence:012d}.{state}"


def abort_key(state: str) -> str:
    """The key of the record that the writer of `state` was taken for dead."""
    return ABORTS + state


def intent_key(prune: str) -> str:
    """The key of the record that a prune is about to remove states."""
    return INTENTS + prune


def is_intent_key(key: str) -> bool:
    """Whether a key is one under which a prune puts its intent."""
    return _INTENT.fullmatch(key) is not None


def id_key(identity: str) -> str:
    """The key that makes a store known by an id."""
    return IDS + identity


def pin_key(state: str, pin: str, attempt: str) -> str:
    """The key of the pin named `pin` on `state`.

    Args:
        state: The state.
        pin: The pin's name.
        attempt: 8 hex digits that no other attempt to pin has.
    """
    return f"{PINS}{state}/{pin}.{attempt}"


def state_prefix(state: str) -> str:
    """What the keys of all objects in the folder of `state` start with."""
    return state + "/"


def folder_of(key: str) -> str:
    """The name of the state in whose folder a data object lies."""
    return key.partition("/")[0]


def manifest_key(state: str) -> str:
    """The key of the manifest of `state`."""
    return state_prefix(state) + _MANIFEST


def parse_state_keys(keys: Iterable[str], prefix: str) -> list[StateKey]:
    """Read sequences and names from the keys of commit markers or tombstones.

    Args:
        keys: Any keys; those that do not start with `prefix` are left out, and so are foreign objects, whose
            keys no version of statevault writes.
        prefix: :data:`COMMITS` or :data:`TOMBSTONES`.

    Returns:
        In the order of states.
    """
    parsed = (_parse_state_key(key.removeprefix(prefix)) for key in keys if key.startswith(prefix))
    return sorted(key for key in parsed if key is not None)


def parse_ids(keys: Iterable[str]) -> frozenset[str]:
    """Read from keys by which ids a store is known; those of other records are left out."""
    return frozenset(
        key.removeprefix(IDS) for key in keys if key.startswith(IDS) and _ID.fullmatch(key.removeprefix(IDS))
    )


def parse_pin_keys(keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read from keys which states are pinned.

    Args:
        keys: Any keys; those of other records are left out. Whatever lies below :data:`PINS` counts: a state that
            somebody has pinned by hand is pinned.

    Returns:
        The names of the pins of each pinned state, sorted.
    """
    pins: dict[str, set[str]] = {}
    for key in keys:
        if key.startswith(PINS):
            state, _, pin = key.removeprefix(PINS).partition("/")
            pins.setdefault(state, set()).add(_ATTEMPT.sub("", pin))
    return {state: tuple(sorted(names)) for state, names in pins.items()}


def _parse_state_key(name: str) -> StateKey | None:
    match = _SEQUENCED.fullmatch(name)
    if match is None or int(match[1]) == 0:
        return None
    try:
        return StateKey(int(match[1]), check_state_name(match[2]))
    except InvalidNameError:
        return None


def object_key(state: str, logical_path: str, *, compressed: bool) -> str:
    """The key of the object that holds the new chunks of a file.

    The state's manifest has a key of its own: a file of a component can't take it.
    """
    suffix = ".zst" if compressed else ""
    segments = [_escape(segment) for segment in logical_path.split("/")]
    key = f"{state}/{'/'.join(segments)}{suffix}"
    if len(key) > _MAX_KEY:
        key = f"{state}/{segments[0]}/~{_hash(logical_path)}{suffix}"
    if key == manifest_key(state):
        key = f"{state}/~{_hash(logical_path)}{suffix}"
    return key


def check_object_key(key: str) -> str:
    """Return the key of a data object, as a manifest names it, if it lies in the folder of some state.

    Raises:
        FormatError: The key leaves the store, or names something that is no state's data.
    """
    state, _, rest = key.partition("/")
    try:
        check_state_name(state)
    except InvalidNameError:
        raise FormatError(f"the manifest names the object {key!r}, which is in no state's folder") from None
    if len(key) > _MAX_KEY:
        raise FormatError(f"the manifest names the object {key[:80]!r}…, whose key has {len(key)} characters")
    if not key.isascii() or not key.isprintable() or not all(map(_is_segment, rest.split("/"))):
        raise FormatError(f"the manifest names the object {key!r}, which is no key of a state's data")
    return key


def _is_segment(segment: str) -> bool:
    return 0 < len(segment) <= _MAX_SEGMENT_READ and not segment.startswith(".")


def _escape(segment: str) -> str:
    escaped = _TO_ESCAPE.sub(lambda match: b"%%%02X" % match[0][0], segment.encode()).decode("ascii")
    if len(escaped) > _MAX_SEGMENT:
        escaped = f"{escaped[:140]}~{_hash(segment)}"
    return escaped


def _hash(text: str) -> str:
    return blake3(text.encode()).hexdigest()[:32]
