"""What lies in a spool at one moment, and what of it waits."""

from __future__ import annotations

from dataclasses import dataclass

from statevault.format.keys import StateKey
from statevault.format.records import CommitRecord
from statevault.state_persistence.records.catalog import Listing
from statevault.state_persistence.spool.ledger import LedgerRecord

__all__ = ["SpoolView"]


@dataclass(frozen=True, slots=True)
class SpoolView:
    """What lies in a spool at one moment.

    Attributes:
        records: All states whose marker can be read, oldest first.
        ledger: What was replicated.
    """

    records: tuple[CommitRecord, ...]
    ledger: LedgerRecord

    def at(self, listing: Listing) -> SpoolView:
        """The same, by what a LIST tells of the remote: it may be another store than was replicated to."""
        return SpoolView(self.records, self.ledger.at(listing.ids, is_empty=not listing.objects))

    @property
    def pending(self) -> list[CommitRecord]:
        """The states that are to be replicated, oldest first."""
        return [record for record in self.records if not self.ledger.is_done(record)]

    @property
    def done(self) -> list[CommitRecord]:
        """The others, oldest first."""
        return [record for record in self.records if self.ledger.is_done(record)]

    @property
    def kept(self) -> dict[str, StateKey]:
        """Those of them that are at the remote, by their names there, oldest first."""
        names = ((self.remote_name(record), StateKey(record.sequence, record.state)) for record in self.done)
        return {name: key for name, key in names if name is not None}

    @property
    def with_waiting_pins(self) -> list[tuple[CommitRecord, str]]:
        """Those of them whose pins may not be at the remote yet, with their names there."""
        return [
            (record, name)
            for record in self.done
            if self.ledger.done[record.state].pins_wait and (name := self.remote_name(record)) is not None
        ]

    def remote_name(self, record: CommitRecord) -> str | None:
        """The name of a state at the remote; None if it is not known to be there."""
        return self.ledger.done[record.state].state if self.ledger.is_done(record) else None

    def name_at_remote(self, name: str) -> str:
        """The name at the remote of a state that was saved under a name; any other name as it is."""
        found = (self.remote_name(record) for record in self.records if record.state == name)
        return next(found, None) or self.ledger.renamed.get(name, name)
