"""The states of the remote as far as replication needs to know them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from typing_extensions import override

from statevault.errors import CorruptStateError, StoreReplacedError
from statevault.format.keys import StateKey
from statevault.format.records import CommitRecord
from statevault.state_persistence.records.catalog import Catalog, Listing

__all__ = ["RemoteCatalog"]

_SUFFIX = re.compile(r"-\d+(?=\.state$|$)")


class RemoteCatalog(Catalog):
    """A catalog that reads few markers: a remote may have those of thousands of states of others.

    A copy bears the name of its state, or that with a suffix. So only such states can be the copy that was made before
    a crash.
    """

    _expected: tuple[str, ...] = ()
    _wanted: frozenset[str] = frozenset()
    _anchor: tuple[CommitRecord, str] | None = None

    def expect(self, ids: tuple[str, ...], wanted: Iterable[str], anchor: tuple[CommitRecord, str] | None) -> None:
        """Say what is to be copied next.

        Args:
            ids: What the spool knows the remote by; none if it does not.
            wanted: The names of the states in the spool.
            anchor: The state that was replicated before them, as the spool has it, and its name at the remote. It
                counts as present there also when it was removed, since it must not come again.
        """
        # Each state has another base: what was read of the last ones is not asked for again.
        self.forget(list(self._markers))
        self._expected = ids
        self._wanted = frozenset(wanted)
        self._anchor = anchor

    @override
    def listing(self, *, writer: str | None = None, generation: int | None = None) -> Listing:
        listing = super().listing(writer=writer, generation=generation)
        if self._expected and self.ids.isdisjoint(self._expected):
            raise StoreReplacedError(
                f"the store at {self._storage.url} is not the one that was replicated to: it was wiped"
            )
        return listing

    @override
    def records(self, keys: Iterable[StateKey]) -> list[CommitRecord | CorruptStateError]:
        keys = list(keys)
        records = super().records(
            key for key in keys if key.state in self._wanted or _SUFFIX.sub("", key.state) in self._wanted
        )
        if self._anchor is not None:
            record, name = self._anchor
            sequence = next((key.sequence for key in keys if key.state == name), record.sequence)
            # Equal in all by which a copy is known again; where it is at the remote is known from the listing.
            records.append(record.model_copy(update={"sequence": sequence, "state": name}))
        return records
