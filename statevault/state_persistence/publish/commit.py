"""Steps 1 to 5 of saving a state, and then its end (``docs/format.md``, section 5). Their order is the protocol."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import JsonValue

from statevault.codecs import digest
from statevault.codecs.compression import compress_bounded
from statevault.errors import (
    FormatError,
    ObjectExistsError,
    SaveFencedError,
    StateExistsError,
    StorageError,
    StoreReplacedError,
)
from statevault.format.keys import (
    StateKey,
    commit_key,
    manifest_key,
    session_key,
    state_prefix,
)
from statevault.format.manifest import Manifest
from statevault.format.records import (
    MAX_RECORD_SIZE,
    CommitRecord,
    ManifestRef,
    SessionRecord,
)
from statevault.state_persistence.concurrency.beside import Beside
from statevault.state_persistence.content.chunk_encoding import Compression
from statevault.state_persistence.publish.ending import end_save
from statevault.state_persistence.publish.giving_up import drop_session, give_up, own_keys
from statevault.state_persistence.publish.names import StateNames
from statevault.state_persistence.publish.reuse import Base
from statevault.state_persistence.publish.upload import LostUploadError, StateContent, check_objects, upload_files
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.records.deadline import Deadline
from statevault.state_persistence.snapshot.snapshot import Snapshot
from statevault.storage import ObjectInfo, Storage

__all__ = ["SaveRequest", "commit_snapshot", "writer_name"]

_logger = logging.getLogger(__name__)
_TRIES_OF_NAMES = 3
_TRIES_OF_MARKER = 3


def writer_name() -> str:
    """A name for a writer of this process: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """What is to be saved.

    Attributes:
        snapshot: The components at the instant of the cut.
        name: The state's name, if the caller wants a certain one.
        writer: Who saves, or copies.
        metadata: What the caller wants to find in ``StateInfo.metadata``.
        find_base: Given what is there: the state whose chunks need not be uploaded again.
        author: Who saved the state at first, if it is a copy.
        compression: What is done to chunks where it pays.
    """

    snapshot: Snapshot
    name: str | None
    writer: str
    metadata: Mapping[str, JsonValue]
    find_base: Callable[[Listing], Base | None] = lambda listing: None
    author: str | None = None
    compression: Compression = Compression.ZSTD


def commit_snapshot(
    storage: Storage, catalog: Catalog, names: StateNames, request: SaveRequest
) -> tuple[CommitRecord, Base]:
    """Publish a snapshot as a committed state.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        names: Makes the state's name, unless the request has one.
        request: What is saved.

    Returns:
        The commit marker, and what the state offers to the next save: it is visible and stays so until retention takes
        it.

    Raises:
        StateExistsError: The name is or was that of a state.
        SaveFencedError: Again and again a prune took this writer for dead.
        StoreReplacedError: Again and again the store was wiped meanwhile.
        StorageError: The storage failed. If the error came from the commit marker's own put, its notes say so: then
            the state, which is complete, may still become visible.
    """
    left_over: list[str] = []
    for attempt in range(1, _TRIES_OF_NAMES + 1):
        try:
            return _commit_once(storage, catalog, names, request, left_over)
        except (SaveFencedError, StateExistsError) as error:
            if request.name is not None or attempt == _TRIES_OF_NAMES:
                raise
            _logger.warning("%s; saving again under a new name", error)
        except StoreReplacedError as error:
            if attempt == _TRIES_OF_NAMES:
                raise
            _logger.warning("%s; saving again", error)
            # What it had put may lie in the other store now, and be in its own way.
            left_over = [] if request.name is None else own_keys(request.name, request.snapshot)
    raise AssertionError("the last try returns or raises")


def _commit_once(
    storage: Storage, catalog: Catalog, names: StateNames, request: SaveRequest, left_over: list[str]
) -> tuple[CommitRecord, Base]:
    deadline = Deadline()
    # Step 1: the place in the order of states, and the base.
    listing = catalog.listing(writer=request.writer)
    key = StateKey(catalog.next_sequence(listing), _choose_name(listing.names, names, request))
    base = request.find_base(listing)
    # Step 2: the session, before any data: a prune that lists data after it also lists the session, and keeps what the
    # base needs.
    session = SessionRecord(
        state=key.state,
        sequence=key.sequence,
        writer=request.writer,
        base=None if base is None else base.key.state,
        started_at=datetime.now(UTC),
    )
    _put_session(storage, session)
    may_clash = request.name is not None or not names.are_fine
    if may_clash:
        try:
            _check_still_free(storage, catalog, key, left_over, ids=listing.ids)
        except Exception:
            # Nothing else was put yet, and what lies there may be somebody's.
            drop_session(storage, session)
            raise
    # Step 3: only after the session. A prune that did not see it has put the tombstone of the base before. (A marker
    # goes only where there is a tombstone, which stays for longer than any writer lives.)
    # Step 4: everything that the marker will name, durable and of the right size.
    try:
        content = upload_files(
            storage,
            key.state,
            request.snapshot,
            base,
            base_is_gone=lambda: base is not None and catalog.is_tombstoned(base.key),
            compression=request.compression,
        )
        put_manifest = partial(_put_manifest, storage, key, content, request, base)
        # As late as that takes no time of its own: is it still the store in which all this was put?
        with Beside(partial(catalog.check_same, listing), "statevault-ids") as same:
            if may_clash:
                # Another writer of the name is noticed by what it has put, its manifest too: that must be its own.
                seen = check_objects(storage, key.state, content)
                record, manifest = put_manifest()
            else:
                seen, (record, manifest) = _put_beside_check(storage, key, content, put_manifest)
            same.result()
        marker = _checked_marker(record)
        deadline.check(f"the save of {key.state!r} to {storage.url}")
    except Exception as error:
        replaced = _replaced(catalog, listing, error)
        give_up(storage, session, request.snapshot, replaced or error, may_clash=may_clash)
        if replaced is not None:
            raise replaced from error
        raise
    # Step 5: with this put the state exists. Nothing it needs may come after.
    _put_marker(storage, key, marker)
    end_save(storage, key, deadline, writer=request.writer)
    _logger.info(
        "Saved %s to %s: %d files, %d bytes (%d uploaded) in %.2f s",
        key.state,
        storage.url,
        record.files,
        record.size,
        record.new_size,
        deadline.elapsed_s,
    )
    return record, Base.of(manifest, ids=listing.ids, seen=content.reused | seen)


def _replaced(catalog: Catalog, listing: Listing, error: Exception) -> StoreReplacedError | None:
    """That the store was wiped meanwhile, if that is why what was put is not there, or something else is."""
    if isinstance(error, LostUploadError | StateExistsError):
        with suppress(StorageError):
            try:
                catalog.check_same(listing)
            except StoreReplacedError as replaced:
                return replaced
    return None


def _put_beside_check(
    storage: Storage, key: StateKey, content: StateContent, put_manifest: Callable[[], tuple[CommitRecord, Manifest]]
) -> tuple[dict[str, ObjectInfo], tuple[CommitRecord, Manifest]]:
    """Check what was put, and put the manifest meanwhile, which is nobody else's."""
    check = partial(check_objects, storage, key.state, content, ignored=manifest_key(key.state))
    with Beside(check, "statevault-check") as checked:
        try:
            made = put_manifest()
        except Exception:
            # If both fail: whose folder it is decides what may be taken back.
            checked.result()
            raise
        return checked.result(), made


def _choose_name(taken: set[str], names: StateNames, request: SaveRequest) -> str:
    if request.name is None:
        return names.next(request.snapshot.created_at, taken)
    if request.name in taken:
        raise StateExistsError(f"the name {request.name!r} is or was that of a state: names are never used twice")
    return names.reserve(request.name)


def _put_session(storage: Storage, session: SessionRecord) -> None:
    try:
        # Create-only where the backend can: the last line of defence against two writers with one name.
        storage.put(session_key(session.state), session.to_json(), create_only=True)
    except ObjectExistsError:
        raise StateExistsError(f"another writer is saving {session.state!r} to {storage.url}") from None


def _check_still_free(
    storage: Storage, catalog: Catalog, key: StateKey, left_over: list[str], *, ids: frozenset[str]
) -> None:
    """Look once more, behind the session, whether nobody else has the name.

    Another writer may have chosen it as well and have ended, well or not, before this one put its session.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        key: The state.
        left_over: What an earlier try of this save has put under the name. It goes, now that the name is its own.
        ids: What the store was known by before the session was put.

    Raises:
        SaveFencedError: A prune has given up a save of that name.
        StateExistsError: The name is or was that of a state, or files lie in its folder.
        LostUploadError: The session is not listed, so that an empty folder would say nothing.
    """
    listing = catalog.listing()
    if key.state in listing.aborts:
        raise SaveFencedError(f"a save of {key.state!r} to {storage.url} was given up by a prune: choose another name")
    if any(other.state == key.state for other in (*listing.commits, *listing.tombstones)):
        raise StateExistsError(f"another writer has saved {key.state!r} to {storage.url}: names are never used twice")
    # (In a store that was wiped meanwhile it is not there either: that is found out later, and the save begins again.)
    if key.state not in listing.sessions and not ids.isdisjoint(listing.ids):
        raise LostUploadError(
            f"put {session_key(key.state)} into {storage.url}, and its listing does not show it: nothing else of the "
            "state was put. The storage may take the name for another one, such as the same in small letters: choose "
            "one of small letters, digits, '-' and '.'",
            url=storage.url,
            key=session_key(key.state),
        )
    if left_over:
        storage.delete(left_over)
    if next(iter(storage.list(state_prefix(key.state))), None) is not None:
        raise StateExistsError(f"files lie in {storage.path(key.state)} already: choose another name")


def _put_manifest(
    storage: Storage, key: StateKey, content: StateContent, request: SaveRequest, base: Base | None
) -> tuple[CommitRecord, Manifest]:
    snapshot = request.snapshot
    # A base of which nothing could be used is none: the state stands on its own.
    base_name = base.key.state if base is not None and content.reuses else None
    manifest = Manifest(
        state=key.state,
        sequence=key.sequence,
        created_at=snapshot.created_at,
        writer=request.author or request.writer,
        base=base_name,
        components=list(snapshot.components),
        directories=content.directories,
        objects=content.objects,
        files=content.files,
    )
    packed = manifest.pack()
    stored = compress_bounded(packed)
    storage.put(manifest_key(key.state), stored)
    record = CommitRecord(
        state=key.state,
        sequence=key.sequence,
        created_at=snapshot.created_at,
        writer=request.author or request.writer,
        base=base_name,
        reuses=content.reuses,
        files=len(content.files),
        size=manifest.size,
        stored_size=sum(file.stored_size for file in content.files),
        new_size=content.new_size,
        components=list(snapshot.components),
        metadata=dict(request.metadata),
        manifest=ManifestRef(length=len(stored), size=len(packed), digest=digest(stored).hex()),
    )
    return record, manifest


def _checked_marker(record: CommitRecord) -> bytes:
    """Encode a marker, and make sure before it is put that it will be read.

    Raises:
        FormatError: It would not be: nobody may be told that the state is safe.
    """
    marker = record.to_json()
    if len(marker) > MAX_RECORD_SIZE or CommitRecord.from_json(marker, where=record.state) != record:
        raise FormatError(f"the metadata of {record.state!r} does not survive being written and read: make it smaller")
    return marker


def _put_marker(storage: Storage, key: StateKey, marker: bytes) -> None:
    """Put the marker, and find out whether it is there when the answer is lost."""
    for attempt in range(1, _TRIES_OF_MARKER + 1):
        try:
            storage.put(commit_key(*key), marker)
        except (StorageError, MemoryError) as error:
            # Only a lost answer can hide a success. After another failure (a failed fsync) the bytes may be there to
            # be read and yet not be safe: only a put that ends well counts.
            if isinstance(error, StorageError) and error.transient and _is_there(storage, commit_key(*key), marker):
                return
            if attempt == _TRIES_OF_MARKER:
                error.add_note(
                    f"the commit marker of {key.state!r} has no known outcome: "
                    "the state, which is complete, may still become visible"
                )
                raise
        else:
            return


def _is_there(storage: Storage, key: str, content: bytes) -> bool:
    try:
        return storage.get(key) == content
    except StorageError:
        return False
