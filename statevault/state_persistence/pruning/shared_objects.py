"""Which objects in the folders of other states each state needs, as the manifests say.

A manifest is read once, for retention and for prunes. Of what it says only that little is kept, and equal parts of it
only once: most of the states of a run refer to the same objects of the same few others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Self
from weakref import WeakValueDictionary

from statevault.errors import CorruptStateError, StatePrunedError
from statevault.format.keys import StateKey, folder_of
from statevault.format.manifest import ObjectEntry
from statevault.format.records import CommitRecord
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.restore.download import StateReader
from statevault.storage import Storage
from statevault.worker_pool import parallel_map

__all__ = ["Share", "SharedObject", "SharedObjects"]

_logger = logging.getLogger(__name__)
_READERS = 8


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SharedObject:
    """A stored object that another state than its own needs. There is one of it for each key, compared by identity.

    Attributes:
        key: Its key.
        size: Bytes.
    """

    key: str
    size: int


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Share:
    """What a state needs of the folder of another one; the same object for all states that need the same.

    Attributes:
        folder: The name of the other state, which may be gone.
        objects: What is needed of its folder.
    """

    folder: str
    objects: tuple[SharedObject, ...]


class SharedObjects:
    """The shares of the states of one store. May be used by several threads.

    Args:
        read: Reads from a state's manifest all objects that it needs. May raise what a
            :class:`~statevault.state_persistence.restore.download.StateReader` raises.
    """

    def __init__(self, read: Callable[[CommitRecord], Iterable[ObjectEntry]]) -> None:
        self._read = read
        # By the whole key: a name may come again, long after its state has gone. With the marker by which the manifest
        # was found: one out of the marker pack may lie, and must not answer for the one that a prune has read.
        self._shares: dict[StateKey, tuple[CommitRecord, tuple[Share, ...]]] = {}
        self._reported: set[str] = set()
        self._objects: WeakValueDictionary[str, SharedObject] = WeakValueDictionary()
        self._interned: WeakValueDictionary[tuple[SharedObject, ...], Share] = WeakValueDictionary()
        self._lock = threading.Lock()

    @classmethod
    def in_store(cls, storage: Storage, catalog: Catalog) -> Self:
        """Those of a store, whose manifests are read when they are asked for."""
        return cls(lambda record: StateReader(storage, catalog, record).manifest.objects)

    def of(self, records: Iterable[CommitRecord]) -> dict[str, tuple[Share, ...]]:
        """Say what states need of others, by their names; the manifests that are not known yet are read at once.

        Raises:
            StatePrunedError: One of the states was removed meanwhile.
            CorruptStateError: A manifest is damaged.
            UnsupportedVersionError: A manifest was written by a newer version.
            StorageError: The storage failed.
        """
        return self._of(records, self._fetch)

    def of_readable(self, records: Iterable[CommitRecord]) -> dict[str, tuple[Share, ...]]:
        """Like :meth:`of`, to tell sizes: never to tell what may be deleted.

        A state whose manifest is damaged needs nothing of others that could be told: it is reported in the log, once,
        and its age will remove it. Likewise one that was removed meanwhile.

        Raises:
            UnsupportedVersionError: A manifest was written by a newer version.
            StorageError: The storage failed.
        """
        return self._of(records, self._fetch_readable)

    def forget_others(self, keys: Collection[StateKey]) -> None:
        """Drop what is known of states that are not among `keys`."""
        with self._lock:
            for key in self._shares.keys() - set(keys):
                del self._shares[key]

    def _of(
        self, records: Iterable[CommitRecord], fetch: Callable[[CommitRecord], tuple[Share, ...]]
    ) -> dict[str, tuple[Share, ...]]:
        # Looked up once: another thread may forget it in between, and a state that needs something must not seem to
        # need nothing.
        found: dict[str, tuple[Share, ...]] = {}
        missing: list[CommitRecord] = []
        for record in records:
            known = self._shares.get(StateKey(record.sequence, record.state)) if record.reuses else (record, ())
            if known is None or not _lead_to_the_same(known[0], record):
                missing.append(record)
            else:
                found[record.state] = known[1]
        if len(missing) == 1:
            found[missing[0].state] = fetch(missing[0])
        elif missing:
            fetched = parallel_map(fetch, missing, workers=_READERS, name="statevault-shares")
            found |= {record.state: shares for record, shares in zip(missing, fetched, strict=True)}
        return found

    def _fetch_readable(self, record: CommitRecord) -> tuple[Share, ...]:
        # What can't be read is not remembered: a prune must not take it for a state that needs nothing.
        try:
            return self._fetch(record)
        except StatePrunedError:
            return ()
        except CorruptStateError as error:
            if str(error) not in self._reported:
                self._reported.add(str(error))
                _logger.warning("%s; what it shares with other states is not known", error)
            return ()

    def _fetch(self, record: CommitRecord) -> tuple[Share, ...]:
        others = sorted(entry for entry in self._read(record) if folder_of(entry.key) != record.state)
        with self._lock:
            shares = tuple(
                self._share(folder, group) for folder, group in groupby(others, lambda entry: folder_of(entry.key))
            )
            self._shares[StateKey(record.sequence, record.state)] = record, shares
        return shares

    def _share(self, folder: str, entries: Iterable[ObjectEntry]) -> Share:
        objects = tuple(self._objects.setdefault(entry.key, SharedObject(*entry)) for entry in entries)
        return self._interned.setdefault(objects, Share(folder, objects))


def _lead_to_the_same(one: CommitRecord, other: CommitRecord) -> bool:
    """Whether two markers of a state name one manifest, and accept the same as right."""
    if one is other:
        return True
    return (one.manifest, one.reuses, one.base, one.size, one.components) == (
        other.manifest,
        other.reuses,
        other.base,
        other.size,
        other.components,
    )
