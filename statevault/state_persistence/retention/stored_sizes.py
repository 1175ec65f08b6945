"""How many bytes of a store its states need together, and how many go with some of them.

Objects that states share count once, and belong to all that need them. All data objects in a state's own folder are
needed by the state itself, and its marker says how large they are. So a manifest has to be read only where a state
refers to the folder of one that is not counted as well: never for states that share nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

from statevault.errors import StateNotFoundError
from statevault.format.records import CommitRecord
from statevault.state_persistence.pruning.shared_objects import Share, SharedObject, SharedObjects

__all__ = ["StoredSizes"]

_READ_AHEAD = 16
_LONGEST_READ_AHEAD = 256


class StoredSizes:
    """The sizes of the states of one store, in the way in which a policy asks for them.

    Every method may have to read manifests, and raises :class:`~statevault.errors.StorageError` if it can't.

    Args:
        records: The markers of all states.
        shared: What they need of each other.
    """

    def __init__(self, records: Iterable[CommitRecord], shared: SharedObjects) -> None:
        self._records = {record.state: record for record in records}
        self._shared = shared

    def together(self, names: Iterable[str]) -> int:
        """Bytes that exactly these states need together.

        Raises:
            StateNotFoundError: There is no such state.
        """
        chosen = {name: self._record(name) for name in names}
        outside = [record for record in chosen.values() if not chosen.keys() >= set(record.reuses)]
        needs = self._needs(outside)
        return sum(_own_size(record) for record in chosen.values()) + sum(
            need.size for folder, need in needs.items() if folder not in chosen
        )

    def growing(self, names: Iterable[str]) -> Iterator[int]:
        """Bytes that the first of these states needs, the first two need together, and so on.

        Manifests are read a little ahead of what is asked for.

        Raises:
            StateNotFoundError: There is no such state.
        """
        total = 0
        inside: set[str] = set()
        outside: defaultdict[str, _Need] = defaultdict(_Need)
        for record, shares in self._with_shares(names):
            if record.state not in inside:
                inside.add(record.state)
                # Its folder counts as a whole from now on, with what the states before needed of it.
                total += _own_size(record) - outside.pop(record.state, _Need()).size
                total += sum(outside[share.folder].add(share) for share in shares if share.folder not in inside)
            yield total

    def freed(self, names: Iterable[str]) -> int:
        """Bytes that no state needs any more when exactly these are removed; those that are not there free nothing."""
        victims = {name: self._records[name] for name in names if name in self._records}
        kept = [record for name, record in self._records.items() if name not in victims]
        # Folders of which something may go: those of the victims, and of states that are gone already.
        orphaned = {folder for record in victims.values() for folder in record.reuses} - self._records.keys()
        affected = victims.keys() | orphaned
        still_needed = self._needs(record for record in kept if not affected.isdisjoint(record.reuses))
        needed_so_far = self._needs(record for record in victims.values() if not orphaned.isdisjoint(record.reuses))
        size = sum(_own_size(record) - still_needed[name].size for name, record in victims.items())
        return size + sum(needed_so_far[folder].without(still_needed[folder]) for folder in orphaned)

    def _needs(self, records: Iterable[CommitRecord]) -> defaultdict[str, _Need]:
        """What these states need together of the folders of others."""
        needs: defaultdict[str, _Need] = defaultdict(_Need)
        for shares in self._shared.of_readable(records).values():
            for share in shares:
                needs[share.folder].add(share)
        return needs

    def _with_shares(self, names: Iterable[str]) -> Iterator[tuple[CommitRecord, tuple[Share, ...]]]:
        remaining, ahead = iter(names), _READ_AHEAD
        while records := [self._record(name) for name in islice(remaining, ahead)]:
            shares = self._shared.of_readable(records)
            yield from ((record, shares[record.state]) for record in records)
            ahead = min(2 * ahead, _LONGEST_READ_AHEAD)

    def _record(self, name: str) -> CommitRecord:
        try:
            return self._records[name]
        except KeyError:
            raise StateNotFoundError(f"there is no state {name!r} whose size could be told") from None


class _Need:
    """What several states need of one folder together."""

    __slots__ = ("_objects", "_shares", "size")

    def __init__(self) -> None:
        self._shares: set[Share] = set()
        self._objects: set[SharedObject] = set()
        self.size = 0

    def add(self, share: Share) -> int:
        """Add what another state needs; by how many bytes it is more."""
        if share in self._shares:
            return 0
        self._shares.add(share)
        before = self.size
        self.size += sum(shared.size for shared in share.objects if shared not in self._objects)
        self._objects.update(share.objects)
        return self.size - before

    def without(self, other: _Need) -> int:
        """Bytes that the others do not need."""
        return sum(shared.size for shared in self._objects - other._objects)


def _own_size(record: CommitRecord) -> int:
    """Bytes in the state's own folder: its new data, and the manifest."""
    return record.new_size + record.manifest.length
