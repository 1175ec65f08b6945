"""Which objects in the folders of other states each state needs, as the manifests say.

A manifest is read once. Of what it says only that little is kept, and equal parts of it only once: most of the
states of a run refer to the same objects of the same few others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from weakref import WeakValueDictionary

from statevault.errors import CorruptStateError, StatePrunedError
from statevault.format.manifest import ObjectEntry
from statevault.format.records import CommitRecord
from statevault.state_persistence.parallel import run_all
from statevault.state_persistence.reuse import folder_of

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
            :class:`~statevault.state_persistence.download.StateReader` raises.
    """

    def __init__(self, read: Callable[[CommitRecord], Iterable[ObjectEntry]]) -> None:
        self._read = read
        self._shares: dict[str, tuple[Share, ...]] = {}
        self._objects: WeakValueDictionary[str, SharedObject] = WeakValueDictionary()
        self._interned: WeakValueDictionary[tuple[SharedObject, ...], Share] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of(self, records: Iterable[CommitRecord]) -> dict[str, tuple[Share, ...]]:
        """Say what states need of others, by their names; the manifests that are not known yet are read at once.

        A state whose manifest is damaged needs nothing of others that could be told: it is reported in the log, and
        its age will remove it. Likewise one that was pruned meanwhile.

        Raises:
            UnsupportedVersionError: A manifest was written by a newer version.
            StorageError: The storage failed.
        """
        records = list(records)
        missing = [record for record in records if record.reuses and record.state not in self._shares]
        if len(missing) == 1:
            self._fetch(missing[0])
        elif missing:
            with ThreadPoolExecutor(min(_READERS, len(missing)), "statevault-retention") as pool:
                run_all(pool, self._fetch, missing)
        return {record.state: self._shares.get(record.state, ()) for record in records}

    def forget_others(self, names: Collection[str]) -> None:
        """Drop what is known of states that are not among `names`."""
        with self._lock:
            for name in self._shares.keys() - set(names):
                del self._shares[name]

    def _fetch(self, record: CommitRecord) -> None:
        try:
            entries = list(self._read(record))
        except StatePrunedError:
            entries = []
        except CorruptStateError as error:
            _logger.warning("%s; what it shares with other states is not known", error)
            entries = []
        others = sorted(entry for entry in entries if folder_of(entry.key) != record.state)
        with self._lock:
            self._shares[record.state] = tuple(
                self._share(folder, group) for folder, group in groupby(others, lambda entry: folder_of(entry.key))
            )

    def _share(self, folder: str, entries: Iterable[ObjectEntry]) -> Share:
        objects = tuple(self._objects.setdefault(entry.key, SharedObject(*entry)) for entry in entries)
        return self._interned.setdefault(objects, Share(folder, objects))
