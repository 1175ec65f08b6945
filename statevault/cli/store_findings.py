"""What ``statevault doctor`` finds out about the records of a store: its states, what is damaged, saves and debris."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime

from statevault.cli.finding import Finding
from statevault.cli.output import counted, duration, when
from statevault.errors import CorruptStateError, FormatError
from statevault.format.keys import MAX_UNREAD_SEQUENCE, commit_key, session_key, tombstone_key
from statevault.format.records import FORMAT_VERSION
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.records.damage import Damage, look_for_damage
from statevault.state_persistence.records.sessions import STALE_AFTER, look_at_sessions
from statevault.storage import Storage

__all__ = ["store_findings"]


def store_findings(storage: Storage) -> Iterator[Finding]:
    """Look at the records of a place, which need not be a store.

    Raises:
        StorageError: The storage failed.
    """
    catalog = Catalog(storage)
    try:
        if not catalog.check_format():
            yield Finding("store", "ok", "none yet", "the first save makes one")
            return
        listing = catalog.listing()
        records = catalog.records(listing.visible)
    except FormatError as error:
        yield Finding("store", "fails", str(error), "statevault neither reads nor writes anything here")
        return
    damaged = [str(record) for record in records if isinstance(record, CorruptStateError)]
    broken = sorted(catalog.damaged(key.state for key in listing.visible))
    sound = [record for record in records if not isinstance(record, CorruptStateError)]
    found = f"format {FORMAT_VERSION}, {counted(len(records), 'state')}"
    if sound:
        found += f", the newest {sound[-1].state} ({when(sound[-1].created_at)})"
    numbers = {"states": len(records), "damaged": len(damaged)}
    yield Finding("store", "ok", found, "`statevault ls` lists them, `statevault verify` checks their bytes", numbers)
    if damaged:
        found = f"{counted(len(damaged), 'damaged commit marker')}: {damaged[0]}"
        means = (
            "they can't be loaded, and may need what others have, so that nothing else can be removed before them: "
            f"`statevault rm {shlex.quote(storage.url)} {' '.join(broken)}`"
        )
        twice = sorted({record.state for record in sound}.intersection(broken))
        if twice:
            means += f"; that removes {', '.join(twice)} altogether: to keep it, delete the damaged marker by hand"
        yield Finding("store", "fails", found, means)
    yield from _numbers(storage, listing)
    yield from _damage(look_for_damage(storage, listing))
    yield from _saves(storage, listing, in_the_way=bool(damaged))


def _numbers(storage: Storage, listing: Listing) -> Iterator[Finding]:
    """Records with numbers to which saves do not lead."""
    states = [key for key in listing.visible if key.sequence > MAX_UNREAD_SEQUENCE]
    if states:
        found = f"{counted(len(states), 'state')} with a number to which no saves lead: {commit_key(*states[0])}"
        means = (
            "it counts as newer than all with smaller numbers. If no save of yours has made it, remove it: "
            f"`statevault rm {shlex.quote(storage.url)} {states[0].state}`"
        )
        yield Finding("numbers", "note", found, means)
    dead = [key for key in listing.tombstones if key.sequence > MAX_UNREAD_SEQUENCE]
    if dead:
        found = f"{counted(len(dead), 'tombstone')} with a number to which no saves lead: {tombstone_key(*dead[0])}"
        yield Finding("numbers", "note", found, "it does not count; `statevault gc` deletes it when it is a week old")


def _damage(damage: Damage) -> Iterator[Finding]:
    """Tombstones and intents that can't be read, and what is no record at all."""
    if damage.intents:
        found = f"{counted(len(damage.intents), 'damaged intent')}: {damage.intents[0]}"
        means = (
            "no state can be pinned; `statevault gc` deletes it when it is a week old. Delete it by hand if all prunes "
            "have ended that ran when it was put"
        )
        yield Finding("intents", "fails", found, means)
    if damage.tombstones:
        found = f"{counted(len(damage.tombstones), 'damaged tombstone')}: {damage.tombstones[0]}"
        means = "the states stay removed; `statevault gc` deletes the tombstone when it is a week old"
        yield Finding("tombstones", "note", found, means)
    if damage.strays:
        found = f"{counted(len(damage.strays), 'object')} that no statevault wrote: {damage.strays[0]}"
        yield Finding("strays", "note", found, "nothing minds them; delete them if nobody needs them")


def _saves(storage: Storage, listing: Listing, *, in_the_way: bool) -> Iterator[Finding]:
    """Saves that are under way, and what others have left.

    Args:
        storage: The place.
        listing: Its records.
        in_the_way: Whether something keeps a collection from its work.
    """
    try:
        seen = look_at_sessions(storage)
    except FormatError as error:
        yield Finding("saves", "fails", str(error), "nothing can be removed as long as this record can't be read")
        return
    ended = {key.state for key in (*listing.commits, *listing.tombstones)}
    unreadable = [session for session in seen.unreadable if session.state not in ended]
    if unreadable:
        found = f"{counted(len(unreadable), 'damaged session')}: {unreadable[0].error}"
        means = (
            "nothing can be removed as long as it is there, since it may protect what a save of "
            f"{unreadable[0].state} builds on. That save deletes it when it ends well. If its process has surely gone, "
            f"or a day after it began, delete {unreadable[0].key} by hand"
        )
        yield Finding("saves", "fails", found, means)
    sessions = [session for session in seen.readable if session.key not in listing.commits]
    now = datetime.now(UTC)
    stale = [session for session in sessions if now - session.begun_at >= STALE_AFTER]
    numbers = {"under_way": len(sessions) - len(stale), "stale": len(stale)}
    if len(stale) < len(sessions):
        youngest = max(sessions, key=lambda session: session.begun_at)
        age = duration(max(0.0, (now - youngest.begun_at).total_seconds()))
        found = f"{len(sessions) - len(stale)} under way, the last begun {age} ago by {youngest.record.writer}"
        yield Finding("saves", "ok", found, "or their process has died; after a day they count as given up", numbers)
    ahead = [session for session in sessions if session.begun_at - now >= STALE_AFTER]
    if ahead:
        key = session_key(ahead[0].record.state)
        found = f"{counted(len(ahead), 'save')} begun in the future, by the clock of the backend: {key}"
        yield Finding(
            "saves", "note", found, "it is given up a day after that; if its process has gone, delete it by hand"
        )
    tombstoned = set(listing.tombstones) & set(listing.commits)
    if stale or tombstoned:
        found = f"{counted(len(stale), 'save')} that never ended"
        if tombstoned:
            found += f", {counted(len(tombstoned), 'removed state')} not cleared away yet"
        after = ", once what fails above is mended" if in_the_way or unreadable else ""
        yield Finding("debris", "note", found, f"`statevault gc` clears it{after}", numbers)
