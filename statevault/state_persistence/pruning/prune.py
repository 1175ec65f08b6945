"""Removing states for good: steps P0 to P8 (``docs/format.md``, section 7). The order of the steps is the protocol.

Idempotent, and safe with any number of writers, readers and other pruners at once. It deletes only what the
records of the store name; what statevault did not write is never touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from statevault.errors import (
    CorruptStateError,
    FormatError,
    StatePrunedError,
    StateVaultError,
    StoreReplacedError,
)
from statevault.format.keys import (
    PINS,
    VAULT,
    StateKey,
    check_object_key,
    commit_key,
    folder_of,
    session_key,
    state_prefix,
)
from statevault.state_persistence.pruning.doubtful import foreign_folders, is_whole
from statevault.state_persistence.pruning.obstacles import check_sessions, enumerated, refusing
from statevault.state_persistence.pruning.protection import OutdatedError, protect
from statevault.state_persistence.pruning.removal import give_up_stale, remove_states
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.records.catalog import Catalog, Listing
from statevault.state_persistence.records.packing import PackingRule, pack_markers
from statevault.state_persistence.records.sessions import STALE_AFTER, Sessions, look_at_sessions
from statevault.storage import ObjectInfo, Storage
from statevault.worker_pool import parallel_map

__all__ = ["PruneResult", "Sweep", "prune", "sweep"]

_logger = logging.getLogger(__name__)
_CONCURRENT_LISTS = 16
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What a prune did.

    Attributes:
        removed: Names of the states that it made invisible, oldest first.
        spared: Names of the states that it was to remove and did not, because they are pinned.
        objects: How many objects it deleted.
        freed: Their bytes.
    """

    removed: tuple[str, ...]
    spared: tuple[str, ...]
    objects: int
    freed: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was there when dead states were cleared away, and what was deleted.

    Attributes:
        listing: The records as they were before.
        data: The objects of dead states that were looked at.
        garbage: Those of them that nobody needs; they are gone.
    """

    listing: Listing
    data: tuple[ObjectInfo, ...]
    garbage: tuple[ObjectInfo, ...]

    @property
    def freed(self) -> int:
        """Bytes that were freed."""
        return sum(info.size for info in self.garbage)


def prune(
    storage: Storage,
    catalog: Catalog,
    victims: Iterable[str],
    *,
    by: str,
    reason: str,
    stale_after: timedelta = STALE_AFTER,
    shared: SharedObjects | None = None,
    packing: PackingRule = PackingRule(),  # noqa: B008 - immutable
    generation: int | None = None,
) -> PruneResult:
    """Remove states, and what crashed saves and earlier prunes left in the folders that they tell of.

    What it costs grows with what it removes, not with what is kept, once the markers of the states and the manifests of
    those that share are known.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        victims: Names of states. Those that are not visible, and pinned ones, are left alone.
        by: Who prunes.
        reason: Why; kept in the tombstones.
        stale_after: How old a session without a marker is when its writer is taken for dead; never one of `by`.
        shared: What is known of the objects that the states need of each other.
        packing: When the markers that were read are packed for those who list them.
        generation: The catalog's generation when the victims were chosen; None for the current one.

    Raises:
        FormatError: A record can't be read: nothing was removed, since it might protect something.
        CorruptStateError: Likewise for a commit marker or a manifest.
        StatePrunedError: Likewise for a marker that has gone without a tombstone.
        StoreReplacedError: It is another store than the one in which they were chosen, or becomes one meanwhile.
        StorageError: The storage failed; the next prune goes on where this one stopped.

    Each of them may also come when the states are removed already (a record was damaged in this very moment): then a
    note of the error names them. The next prune frees their room.
    """
    # The victims are dead before anything is listed, so that a writer that chose one as its base and did not see the
    # tombstone has a session that P4 sees.
    wanted = set(victims)
    generation = catalog.generation if generation is None else generation
    listing = catalog.listing(generation=generation) if wanted else Listing()
    chosen = [key for key in listing.visible if key.state in wanted]
    spared = [key.state for key in chosen if key.state in listing.pins]
    unpinned = [key for key in chosen if key.state not in listing.pins]
    shared = shared or SharedObjects.in_store(storage, catalog)
    sessions = None
    if unpinned:
        with refusing("nothing was removed"):
            sessions = _look_ahead(storage, catalog, shared, listing, unpinned)
        # What made the caller choose them, newer states, must be there to stay.
        storage.settle(VAULT)
    removed = _removed(storage, catalog, listing, unpinned, by=by, reason=reason)
    gone = set(removed)
    spared += [key.state for key in unpinned if key not in gone]
    try:
        with refusing("no data was deleted"):
            give_up_stale(storage, catalog, by=by, stale_after=stale_after, sessions=sessions)
            swept = sweep(storage, catalog, shared, buried=frozenset(removed))
    except StateVaultError as error:
        if removed:
            names = enumerated([key.state for key in removed])
            error.add_note(f"Removed already: {names}. What they take is freed by a later removal, or `statevault gc`.")
        raise
    pack_markers(storage, catalog, swept.listing, packing, fetch=False)
    result = PruneResult(tuple(key.state for key in removed), tuple(spared), len(swept.garbage), swept.freed)
    _logger.info(
        "Pruned %d states of %s: %d objects, %d bytes", len(removed), storage.url, result.objects, result.freed
    )
    return result


def _look_ahead(
    storage: Storage, catalog: Catalog, shared: SharedObjects, listing: Listing, victims: list[StateKey]
) -> Sessions:
    """Read before P0 what P1 to P6 would have to read, so that what can't be read stops the prune before it begins.

    It costs nothing but the order: markers and manifests are remembered, and P1 takes what is returned here. P4 lists
    and reads the sessions again, as it must.

    Raises:
        FormatError: A record can't be read that may protect something.
        StatePrunedError: A marker has gone without a tombstone.
    """
    sessions = look_at_sessions(storage)
    dead = {key.state: key for key in (*listing.tombstones, *victims)}
    check_sessions(sessions.unreadable, ended=dead.keys() | {key.state for key in listing.commits})
    try:
        folders = _unfinished(catalog, listing, dead).folders
        records = (session.record for session in sessions.readable)
        protect(catalog, shared, sessions=records, commits=listing.commits, dead=dead, folders=folders)
    except OutdatedError as outdated:
        _logger.debug("%s; the look ahead is left to the prune itself", outdated)
    return sessions


def _removed(
    storage: Storage, catalog: Catalog, listing: Listing, states: list[StateKey], *, by: str, reason: str
) -> list[StateKey]:
    """P0; says in an error that some of the states may be gone."""
    try:
        return remove_states(storage, states, by=by, reason=reason, check=partial(catalog.check_same, listing))
    except StateVaultError as error:
        names = enumerated([key.state for key in states])
        error.add_note(f"Some of these may be removed already: {names}. Remove them again to go on.")
        raise


def sweep(
    storage: Storage,
    catalog: Catalog,
    shared: SharedObjects | None = None,
    *,
    buried: frozenset[StateKey] = frozenset(),
    whole_store: bool = False,
) -> Sweep:
    """P2 to P8: delete what nobody needs of the states that have a tombstone.

    Args:
        storage: The store's objects.
        catalog: The store's states.
        shared: What is known of the objects that they need of each other.
        buried: States whose tombstones the caller has put, so that they need not be read.
        whole_store: Look through all objects, not just the folders of states whose removal has not ended and those
            that these states refer to. Finds as well what landed after its state was given up.

    Raises:
        Exception: See :func:`prune`.
    """
    shared = shared or SharedObjects.in_store(storage, catalog)
    for _ in range(_ROUNDS):
        try:
            return _sweep_once(storage, catalog, shared, buried, whole_store=whole_store)
        except OutdatedError as outdated:
            _logger.debug("%s; looking again", outdated)
    raise StatePrunedError(f"others prune {storage.url} faster than this prune can look: prune again")


def _sweep_once(
    storage: Storage, catalog: Catalog, shared: SharedObjects, buried: frozenset[StateKey], *, whole_store: bool
) -> Sweep:
    # P2 to P5, in this order: what is listed later can only protect more.
    listing = catalog.listing()
    # The tombstones, and that markers are gone: another prune may have been killed before they were there to stay.
    storage.settle("" if whole_store else VAULT)
    dead = {key.state: key for key in listing.tombstones}
    data = tuple(_data_of_the_dead(storage, catalog, listing, dead, whole_store=whole_store))
    folders = {folder_of(info.key) for info in data}
    doubtful = [key for key in {dead[state] for state in folders} - buried if not is_whole(storage, listing, key)]
    seen = look_at_sessions(storage)
    sessions = [session.record for session in seen.readable]
    commits = catalog.commits()
    try:
        catalog.check_same(listing)
    except StoreReplacedError as replaced:
        raise OutdatedError(str(replaced)) from None
    # P6
    check_sessions(seen.unreadable, ended=dead.keys() | {key.state for key in commits})
    sheltered, needed = protect(catalog, shared, sessions=sessions, commits=commits, dead=dead, folders=folders)
    foreign = foreign_folders(storage, catalog, listing, data, doubtful)
    # P7
    kept = sheltered | foreign
    garbage = tuple(info for info in data if info.key not in needed and folder_of(info.key) not in kept)
    storage.delete([info.key for info in garbage])
    # P8: the markers of what is sheltered stay: the next prune finds by them what it has to look at again. Nor does any
    # record go that P2 had not seen: it came after P3. A session whose state is committed protects nothing any more.
    done = [key for key in listing.commits if key.state in dead.keys() - sheltered]
    ended = listing.sessions & {*dead, *(key.state for key in commits)}
    begun = {*(session.state for session in sessions), *(session.state for session in seen.unreadable)}
    over = [session_key(state) for state in sorted(begun & ended)]
    # Not those that have names which no storage takes: a local folder may hold any.
    known = (key for key in listing.objects if key.startswith(PINS) and key.isascii() and key.isprintable())
    pins = [key for key in known if _pinned_by(key) in dead.keys() - sheltered]
    storage.delete([*(commit_key(*key) for key in done), *over, *pins])
    catalog.forget(done)
    shared.forget_others([key for key in commits if key.state not in dead])
    return Sweep(listing, data, garbage)


def _data_of_the_dead(
    storage: Storage, catalog: Catalog, listing: Listing, dead: dict[str, StateKey], *, whole_store: bool
) -> list[ObjectInfo]:
    """P3: LIST the data objects that may be garbage."""
    if whole_store:
        found = list(storage.list())
    else:
        unfinished = _unfinished(catalog, listing, dead)
        for damaged in unfinished.damaged:
            # It can't say any more to which folders it referred: a collection, which looks at all, finds them.
            _logger.warning("%s; what it referred to is left to a collection (gc)", damaged)

        def listed(folder: str) -> list[ObjectInfo]:
            return list(storage.list(state_prefix(folder)))

        lists = parallel_map(listed, sorted(unfinished.folders), workers=_CONCURRENT_LISTS, name="statevault-prune")
        found = [info for infos in lists for info in infos]
    return [info for info in found if folder_of(info.key) in dead and _is_ours(info)]


class _Unfinished(NamedTuple):
    """Dead states whose removal has not ended: their folders, and what is wrong with those markers that are damaged."""

    folders: set[str]
    damaged: list[CorruptStateError]


def _unfinished(catalog: Catalog, listing: Listing, dead: dict[str, StateKey]) -> _Unfinished:
    """The dead states whose folders may hold garbage that no earlier prune has seen as such.

    Those whose marker or session is still there, and those that they refer to. An object that outlives its state's
    marker does so for the sake of a state that refers to it, or of a session's base: their markers name its folder.
    """
    marked = [key for key in listing.commits if key.state in dead]
    folders = {key.state for key in marked} | (listing.sessions & dead.keys())
    damaged = []
    for record in catalog.records(marked):
        if isinstance(record, CorruptStateError):
            damaged.append(record)
        else:
            folders |= dead.keys() & set(record.reuses)
    return _Unfinished(folders, damaged)


def _is_ours(info: ObjectInfo) -> bool:
    """Whether a key is one that statevault writes: what some other tool put into a folder stays."""
    try:
        check_object_key(info.key)
    except FormatError:
        return False
    return not any(segment.startswith(".") for segment in info.key.split("/"))


def _pinned_by(key: str) -> str:
    return key.removeprefix(PINS).partition("/")[0]
