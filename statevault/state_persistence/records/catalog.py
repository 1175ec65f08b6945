"""Which states are in a store.

A state is visible if its commit marker is there and its tombstone is not. Markers are immutable and names are never
used twice, so that a marker that was read once is not read again: as long as it is the same store, and LIST shows the
same object (``docs/format.md``, section 13). What is visible is asked anew each time.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from statevault.codecs import digest
from statevault.errors import (
    CorruptStateError,
    FormatError,
    ObjectNotFoundError,
    StateNotFoundError,
    StatePrunedError,
    StorageError,
    StoreReplacedError,
    UnsupportedVersionError,
)
from statevault.format.keys import (
    ABORTS,
    COMMITS,
    FORMAT_KEY,
    IDS,
    MAX_SEQUENCE,
    MAX_UNREAD_SEQUENCE,
    SESSIONS,
    TOMBSTONES,
    VAULT,
    StateKey,
    commit_key,
    id_key,
    manifest_key,
    parse_ids,
    parse_pin_keys,
    parse_state_keys,
    tombstone_key,
)
from statevault.format.records import MAX_RECORD_SIZE, CommitRecord, FormatRecord, IdRecord
from statevault.state_persistence.concurrency.beside import Beside
from statevault.state_persistence.records.packed_markers import PackedMarkers, storage_clock
from statevault.state_persistence.records.tombstones import how_it_ended
from statevault.storage import ObjectInfo, Storage
from statevault.worker_pool import parallel_map

__all__ = ["SETTLED_AFTER", "Catalog", "Listing"]

_logger = logging.getLogger(__name__)
_READERS = 16
_OUR_FORMAT = FormatRecord().to_json()
_PUT_BACK = f". If this is a store, put a file with this line there: {FormatRecord().model_dump_json()}"
SETTLED_AFTER = timedelta(hours=1)
"""How old a marker is when nobody can put another one with the same time any more, whatever the clock's resolution."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What one LIST of all records said.

    Keys sort so that commits come before tombstones: a state that is pruned meanwhile is not visible.

    Attributes:
        commits: All states with a marker, oldest first.
        tombstones: All states with a tombstone, oldest first.
        sessions: Names of all states with a session.
        aborts: Names of all states whose writer was taken for dead.
        pins: The names of the pins of each pinned state.
        ids: What this store is known by; none, if only older versions have saved there.
        objects: All records as they lie there, by key.
    """

    commits: tuple[StateKey, ...] = ()
    tombstones: tuple[StateKey, ...] = ()
    sessions: frozenset[str] = frozenset()
    aborts: frozenset[str] = frozenset()
    pins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    objects: Mapping[str, ObjectInfo] = field(default_factory=dict)

    @property
    def visible(self) -> list[StateKey]:
        """The visible states, oldest first."""
        dead = {key.state for key in self.tombstones}
        return [key for key in self.commits if key.state not in dead]

    @property
    def names(self) -> set[str]:
        """All names that occur in any record."""
        return {key.state for key in (*self.commits, *self.tombstones)} | self.sessions | self.aborts | self.pins.keys()

    @property
    def last_sequence(self) -> int:
        """The largest sequence that occurs, 0 if none does, among those that count whatever their objects hold."""
        sequences = (key.sequence for key in (*self.commits, *self.tombstones))
        return max((sequence for sequence in sequences if sequence <= MAX_UNREAD_SEQUENCE), default=0)


class _Marker(NamedTuple):
    """A marker that was read from its own object.

    Attributes:
        record: What it says.
        info: What the LIST before had told of its object; None if none had.
        digest: Of its bytes, which are too many to be kept.
        clock: To which instant the storage's clock had come before, at least; None where the storage does not tell.
    """

    record: CommitRecord
    info: ObjectInfo | None
    digest: bytes
    clock: datetime | None


class Catalog:
    """The committed states of one store.

    What :meth:`record` and :meth:`records` return was read from the markers' own objects. What the marker pack says of
    others is kept apart from it, and given out by :meth:`records_to_show` only. All that is remembered is of the store
    that the last LIST has shown; where that is another one than before, it is forgotten.

    Attributes:
        generation: Grows whenever another store was found under the URL: the one before was wiped, or replaced.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._ids: frozenset[str] = frozenset()
        self._clock: datetime | None = None
        self._oversized: set[str] = set()
        self._infos: Mapping[str, ObjectInfo] = {}
        self.generation = 0
        self._forget_all()

    def _forget_all(self) -> None:
        # New ones: a thread that is just reading a marker of the store that is no more notes it in the old ones.
        self._markers: dict[StateKey, _Marker] = {}
        self._unsound: dict[StateKey, ObjectInfo | None] = {}
        self._packed = PackedMarkers(self._storage)
        self._format_is_known = False

    @property
    def ids(self) -> frozenset[str]:
        """What the store is known by, as far as LISTs have told."""
        return self._ids

    def check_format(self) -> bool:
        """Whether the root holds a store at all.

        Returns:
            False if it holds nothing of statevault's. True also of a store that has lost ``_vault/format.json``:
            :meth:`listing` says so.

        Raises:
            UnsupportedVersionError: It was written by a newer version.
            FormatError: ``_vault/format.json`` is not statevault's.
            StorageError: The storage failed.
        """
        try:
            info = self._storage.head(FORMAT_KEY)
        except ObjectNotFoundError:
            # "Nothing was ever saved here" beside whole states would send their owner away, or make them start anew.
            return next(iter(self._storage.list(COMMITS)), None) is not None
        self._read_format(info)
        return True

    def listing(self, *, writer: str | None = None, generation: int | None = None) -> Listing:
        """LIST all records.

        Args:
            writer: Who is about to save: put an id and ``_vault/format.json`` where they are missing. Asked at each
                save: somebody may have removed the folder under a running agent.
            generation: The :attr:`generation` of the store that is meant; None for any.

        Raises:
            StoreReplacedError: The store is of another generation.
            StorageError: The storage failed, or does not list the id that was put.
            FormatError: The store can't be read by this version, or is none, or has states but no ``format.json``.
        """
        return self._listed(self._list(), writer, generation)

    def _listed(self, infos: dict[str, ObjectInfo], writer: str | None, generation: int | None) -> Listing:
        ids = parse_ids(infos)
        if self._is_another(ids):
            self._adopt(ids)
        if generation is not None and self.generation != generation:
            raise StoreReplacedError(
                f"the store at {self._storage.url} was wiped, and may hold the states of another run: nothing was "
                "removed; list its states and choose again"
            )
        self._ids |= ids
        self._infos = infos
        self._oversized = {key for key, info in infos.items() if info.size > MAX_RECORD_SIZE}
        self._clock = storage_clock(infos.values())
        if FORMAT_KEY in infos:
            self._read_format(infos[FORMAT_KEY])
        elif writer is None:
            if not any(key.startswith(COMMITS) for key in infos):
                return Listing()
            raise FormatError(
                f"{self._storage.url} has states but has lost {FORMAT_KEY}: put a file with this line there, or save a "
                f"state: {FormatRecord().model_dump_json()}"
            )
        if writer is not None and not ids:
            return self._listed(self._identify(writer), writer, generation)
        if FORMAT_KEY not in infos:
            # Only behind the id: a store that is not listed here has one, perhaps of a newer version.
            self._storage.put(FORMAT_KEY, FormatRecord().to_json())
            self._format_is_known = True
        return Listing(
            commits=tuple(parse_state_keys(infos, COMMITS)),
            tombstones=tuple(parse_state_keys(infos, TOMBSTONES)),
            sessions=frozenset(key.removeprefix(SESSIONS) for key in infos if key.startswith(SESSIONS)),
            aborts=frozenset(key.removeprefix(ABORTS) for key in infos if key.startswith(ABORTS)),
            pins=parse_pin_keys(infos),
            ids=ids,
            objects=infos,
        )

    def next_sequence(self, listing: Listing) -> int:
        """Choose the sequence of a new state (``docs/format.md``, section 1).

        Raises:
            StorageError: A marker with a number that no save has led to could not be looked at just now.
        """
        last = listing.last_sequence
        if listing.commits and listing.commits[-1].sequence > MAX_UNREAD_SEQUENCE:
            beyond = (key for key in reversed(listing.visible) if key.sequence > MAX_UNREAD_SEQUENCE)
            last = next((key.sequence for key in beyond if self._is_sound(key)), last)
        return min(last + 1, MAX_SEQUENCE)

    def _is_sound(self, key: StateKey) -> bool:
        """Whether a marker can be read. One that can't is not read again, as long as it is the same object."""
        info = self._infos.get(commit_key(*key))
        if key in self._unsound and self._unsound[key] == info:
            return False
        try:
            self.record(key)
        except (FormatError, CorruptStateError, StatePrunedError) as error:
            _logger.warning("%s; its number %d does not count", error, key.sequence)
        except StorageError as error:
            if error.transient:
                raise
            _logger.warning("%s; its number %d does not count", error, key.sequence)
        else:
            return True
        self._unsound[key] = info
        return False

    def check_same(self, listing: Listing) -> None:
        """LIST the ids, and check that it is still the store of an earlier LIST.

        Raises:
            StoreReplacedError: It is another one.
            StorageError: The storage failed.
        """
        ids = parse_ids(info.key for info in self._storage.list(IDS))
        if listing.ids and listing.ids.isdisjoint(ids):
            raise StoreReplacedError(
                f"the store at {self._storage.url} was wiped just now, and may hold the states of another run"
            )

    def _identify(self, writer: str) -> dict[str, ObjectInfo]:
        """Give the store an id, and LIST it again: what is listed is known then to be of the store that has it.

        Raises:
            FormatError: It would lie in the folder of a state, and go with it.
            StorageError: The id is not listed: nobody knows what lies there, and nothing else may be put.
        """
        if self._storage.exists(manifest_key("").removeprefix("/")):
            raise FormatError(f"{self._storage.url} is the folder of a state: give the folder or URL above it")
        identity = secrets.token_hex(8)
        self._storage.put(id_key(identity), IdRecord(id=identity, by=writer, at=datetime.now(UTC)).to_json())
        infos = {info.key: info for info in self._storage.list(VAULT)}
        if id_key(identity) not in infos:
            with suppress(StorageError):
                self._storage.delete([id_key(identity)])
            raise StorageError(
                f"put {id_key(identity)} into {self._storage.url}, and its listing does not show it: nothing else was "
                "put, as a store may lie there that can't be seen. The URL may be another spelling of that of a store: "
                "write it as the storage lists it; statevault doctor says what the storage can do",
                url=self._storage.url,
                key=id_key(identity),
            )
        self._ids |= {identity}
        return infos

    def _is_another(self, ids: frozenset[str]) -> bool:
        return bool(self._ids) and self._ids.isdisjoint(ids)

    def _adopt(self, ids: frozenset[str]) -> None:
        _logger.warning(
            "the store at %s was wiped%s: everything cached about it is dropped",
            self._storage.url,
            " and is used again" if ids else "",
        )
        self._forget_all()
        self._ids = ids
        self.generation += 1

    def damaged(self, names: Iterable[str]) -> set[str]:
        """Which of some states have a marker that can't be read; those that the last LIST did not show have none.

        Raises:
            UnsupportedVersionError: A marker was written by a newer version.
            StorageError: The storage failed.
        """
        wanted = set(names)
        keys = [key for key in parse_state_keys(self._infos, COMMITS) if key.state in wanted]
        return {key.state for key, record in self._read_all(keys).items() if isinstance(record, CorruptStateError)}

    def commits(self) -> list[StateKey]:
        """LIST the commit markers alone: all states with one, oldest first."""
        found = {info.key: info for info in self._storage.list(COMMITS)}
        self._infos = {key: info for key, info in self._infos.items() if not key.startswith(COMMITS)} | found
        return parse_state_keys(found, COMMITS)

    def record(self, key: StateKey) -> CommitRecord:
        """Read a commit marker.

        Raises:
            StatePrunedError: It went away since it was listed.
            CorruptStateError: Its bytes are damaged.
            UnsupportedVersionError: It was written by a newer version.
            StorageError: The storage failed.
        """
        known = self._known(key)
        return self._read(key) if known is None else known.record

    def records(self, keys: Iterable[StateKey]) -> list[CommitRecord | CorruptStateError]:
        """Read many markers, several at once; a state that was pruned meanwhile is left out.

        Returns:
            In the order of `keys`; for a damaged marker the error.
        """
        keys = list(keys)
        found = self._read_all(keys)
        return [found[key] for key in keys if key in found]

    def stamp(self, key: StateKey) -> ObjectInfo | None:
        """What the LIST before a marker was read had told of its object; None if that is not known."""
        known = self._known(key)
        return None if known is None else known.info

    def is_unchanged(self, record: CommitRecord) -> bool:
        """Whether a state is still there whose marker was read: neither removed, nor wiped and replaced by another one.

        Raises:
            StorageError: The storage failed.
        """
        key = StateKey(record.sequence, record.state)
        if self.is_tombstoned(key):
            return False
        try:
            return self._fetch(key)[0] == record
        except StatePrunedError:
            return False
        except FormatError:
            return True  # it is there, and damaged as well

    def records_to_show(self, listing: Listing) -> list[CommitRecord | CorruptStateError]:
        """Like :meth:`records` of the visible states, to tell people or a policy of them.

        Never to tell what may be deleted: many that were not read yet are taken from the marker pack.

        Args:
            listing: What a LIST has just said: a packed marker counts for the very object that it shows.
        """
        keys = listing.visible
        packed = self._packed.records(self._unread(keys), listing.objects)
        found = packed | self._read_all(key for key in keys if key not in packed)
        return [found[key] for key in keys if key in found]

    def packed(self, keys: Iterable[StateKey], listing: Listing) -> int:
        """How many of some markers the marker pack holds."""
        return self._packed.covered(keys, listing.objects, wanted=self._unread(listing.visible))

    def was_read_settled(self, key: StateKey, modified: datetime) -> bool:
        """Whether a marker was read from its own object when that was settled.

        Args:
            key: The state.
            modified: When its object was stored, as a LIST tells now.
        """
        known = self._known(key)
        return known is not None and known.clock is not None and modified <= known.clock - SETTLED_AFTER

    def stored(self, key: StateKey) -> bytes | None:
        """The bytes of a marker that was read; None if it was not, or if its writer lays them out differently."""
        known = self._known(key)
        if known is None:
            return None
        content = known.record.to_json()
        return content if digest(content) == known.digest else None

    def fetch(self, key: StateKey) -> bytes:
        """Read the bytes of a marker from its own object, whether it was read before or not.

        Raises:
            CorruptStateError: They are damaged.
            StorageError: And the others of :meth:`record`.
        """
        return self._fetch(key)[1]

    def _known(self, key: StateKey) -> _Marker | None:
        """A marker that was read, if it is of the very object that the last LIST has shown."""
        known = self._markers.get(key)
        return None if known is None or known.info != self._infos.get(commit_key(*key)) else known

    def _unread(self, keys: Iterable[StateKey]) -> list[StateKey]:
        return [key for key in keys if self._known(key) is None]

    def _read_all(self, keys: Iterable[StateKey]) -> dict[StateKey, CommitRecord | CorruptStateError]:
        """Read markers, several at once, those that are not known; states that were pruned meanwhile are left out."""
        found: dict[StateKey, CommitRecord | CorruptStateError] = {}
        missing = []
        for key in keys:
            if (known := self._known(key)) is not None:
                found[key] = known.record
            else:
                missing.append(key)

        def read(key: StateKey) -> None:
            try:
                found[key] = self._read(key)
            except StatePrunedError:
                pass
            except CorruptStateError as error:
                found[key] = error

        if len(missing) == 1:
            read(missing[0])
        elif missing:
            parallel_map(read, missing, workers=_READERS, name="statevault-catalog")
        return found

    def find(self, name: str) -> StateKey:
        """Find a visible state.

        Raises:
            StatePrunedError: It was removed.
            StateNotFoundError: It never was.
        """
        listing = self.listing()
        for key in listing.visible:
            if key.state == name:
                return key
        for key in listing.tombstones:
            if key.state == name:
                how = how_it_ended(self._storage, listing.objects[tombstone_key(*key)])
                raise StatePrunedError(f"the state {name!r} was removed from {self._storage.url}{how}")
        known = [key.state for key in listing.visible]
        if known:
            newest = f"the newest of {len(known)} is {known[-1]!r}"
        elif FORMAT_KEY in listing.objects:
            newest = "the store is empty"
        else:
            newest = "there is no store; nothing was saved there, or the path is wrong"
        raise StateNotFoundError(f"no state {name!r} in {self._storage.url}: {newest}")

    def is_tombstoned(self, key: StateKey) -> bool:
        """Whether a state is gone for good."""
        return self._storage.exists(tombstone_key(*key))

    def forget(self, keys: Iterable[StateKey]) -> None:
        """Drop cached markers, of states that were pruned."""
        keys = list(keys)
        for key in keys:
            self._markers.pop(key, None)
        self._packed.forget(keys)

    def _list(self) -> dict[str, ObjectInfo]:
        """LIST all records; at the first time, look at the format of the store meanwhile."""
        if self._format_is_known:
            return {info.key: info for info in self._storage.list(VAULT)}
        with Beside(self._begins_as_ours, "statevault-format") as look:
            infos = {info.key: info for info in self._storage.list(VAULT)}
            begins_as_ours = look.result()
        # All writers of this version write the same bytes. Whatever else it is, is read with care.
        ours = FORMAT_KEY in infos and infos[FORMAT_KEY].size == len(_OUR_FORMAT)
        self._format_is_known = ours and begins_as_ours
        return infos

    def _begins_as_ours(self) -> bool:
        try:
            return self._storage.get(FORMAT_KEY, 0, len(_OUR_FORMAT)) == _OUR_FORMAT
        except StorageError:
            return False

    def _read_format(self, info: ObjectInfo) -> None:
        if not self._format_is_known:
            if info.size > MAX_RECORD_SIZE:
                raise FormatError(f"{self._where(FORMAT_KEY)} has {info.size} bytes: it is not statevault's{_PUT_BACK}")
            try:
                FormatRecord.from_json(self._storage.get(FORMAT_KEY), where=self._where(FORMAT_KEY))
            except UnsupportedVersionError:
                raise
            except FormatError as error:
                raise FormatError(f"{error}{_PUT_BACK}") from None
            self._format_is_known = True

    def _read(self, key: StateKey) -> CommitRecord:
        # As they were before: what is read may be newer than what they tell, and is read again then.
        markers, info, clock = self._markers, self._infos.get(commit_key(*key)), self._clock
        record, content = self._fetch(key)
        markers[key] = _Marker(record, info, digest(content), clock)
        return record

    def _fetch(self, key: StateKey) -> tuple[CommitRecord, bytes]:
        where = self._where(commit_key(*key))
        if commit_key(*key) in self._oversized:
            raise CorruptStateError(f"the commit marker {where} has over {MAX_RECORD_SIZE} bytes: not statevault's")
        try:
            data = self._storage.get(commit_key(*key))
        except ObjectNotFoundError:
            raise StatePrunedError(f"the state {key.state!r} was removed from {self._storage.url}") from None
        try:
            record = CommitRecord.from_json(data, where=where)
        except UnsupportedVersionError:
            raise
        except FormatError as error:
            raise CorruptStateError(f"the state {key.state!r} is damaged: {error}") from None
        if (record.sequence, record.state) != key:
            raise CorruptStateError(f"the commit marker {where} is of another state ({record.state!r})")
        return record, data

    def _where(self, key: str) -> str:
        return f"{key} of {self._storage.url}"
