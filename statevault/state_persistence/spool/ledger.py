"""What of a spool has been replicated: one small record in the spool itself.

It is written after the state was committed at the remote. Whoever dies in between finds the state there: the copy that
is tried once more knows it again. The record names states by what is in them as well, so that a folder that was emptied
and filled anew under the same names is not taken for what was there before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from statevault.errors import FormatError, ObjectNotFoundError
from statevault.format.records import CommitRecord, Record, StateName
from statevault.storage import Storage

__all__ = ["FOLDER", "LEDGER_KEY", "DoneState", "Ledger", "LedgerRecord"]

_logger = logging.getLogger(__name__)

FOLDER = "_spool/"
"""What of a spool's folder is not of the store in it."""
LEDGER_KEY = f"{FOLDER}replication.json"
_REMEMBERED_NAMES = 1000


class DoneState(BaseModel):
    """A state of which nothing is to be replicated any more.

    Attributes:
        manifest: The digest of its manifest in the spool.
        state: Its name at the remote; None if it could not be replicated.
        pins_wait: Whether it may have been pinned in the spool at the last moment, and not at the remote yet.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    manifest: str
    state: StateName | None = None
    pins_wait: bool = False


class LedgerRecord(Record):
    """The record.

    Attributes:
        remote: The URL of the remote store, without credentials.
        ids: What the remote store was known by when this was noted; none where that was not known.
        done: By the names of states that lie in the spool.
        copying: The name of the state that is being copied, or was when the process died.
        writer: Who copies it, as the remote knows it.
        renamed: The names at the remote of states that have another one there; also when they are not in the spool any
            more, since whoever saved them knows them by the first.
    """

    kind: ClassVar[str] = "replication ledger"

    remote: str
    ids: tuple[str, ...] = ()
    done: dict[StateName, DoneState] = Field(default_factory=dict)
    copying: StateName | None = None
    writer: str | None = None
    renamed: dict[StateName, StateName] = Field(default_factory=dict)

    def at(self, ids: Collection[str], *, is_empty: bool = False) -> Self:
        """What counts of the record where the remote is known by these ids: nothing, if it is another store.

        Args:
            ids: What it is known by.
            is_empty: Whether nothing at all is there: it was wiped, also where it had no id.
        """
        if is_empty or (self.ids and set(self.ids).isdisjoint(ids)):
            return type(self)(remote=self.remote, ids=tuple(sorted(ids)))
        return self.model_copy(update={"ids": tuple(sorted({*self.ids, *ids}))})

    def with_done(self, state: str, done: DoneState, *, among: Collection[str]) -> Self:
        """The record with one more state, and without those that are not in the spool any more (`among`)."""
        kept = {name: place for name, place in self.done.items() if name in among}
        renamed = {name: there for name, there in self.renamed.items() if name != state}
        if done.state not in {None, state}:
            renamed[state] = done.state
        newest = dict(list(renamed.items())[-_REMEMBERED_NAMES:])
        return self.model_copy(update={"done": {**kept, state: done}, "renamed": newest})

    def with_pins(self, state: str) -> Self:
        """The record once the pins of a state, which is done, are at the remote."""
        pinned = self.done[state].model_copy(update={"pins_wait": False})
        return self.model_copy(update={"done": {**self.done, state: pinned}})

    def is_done(self, record: CommitRecord) -> bool:
        """Whether nothing is to be replicated of a state of the spool."""
        done = self.done.get(record.state)
        return done is not None and done.manifest == record.manifest.digest


class Ledger:
    """The record as it lies in a spool. Read anew each time, since another process may have written it.

    Args:
        storage: The spool's.
        remote: The URL of the remote store.

    Attributes:
        remote: As given.
    """

    def __init__(self, storage: Storage, remote: str) -> None:
        self._storage = storage
        self.remote = remote
        self._reported = ""
        self._lock = threading.Lock()

    def read(self) -> LedgerRecord:
        """The record. What it says of another remote, or what can't be read, counts for nothing.

        Raises:
            StorageError: The spool's disk failed.
        """
        try:
            record = LedgerRecord.from_json(
                self._storage.get(LEDGER_KEY), where=f"{LEDGER_KEY} of the spool {self._storage.url}"
            )
        except ObjectNotFoundError:
            return LedgerRecord(remote=self.remote)
        except FormatError as error:
            self._report(f"{error}; what is in the spool is compared with the remote, and replicated where it lacks")
            return LedgerRecord(remote=self.remote)
        if record.remote != self.remote:
            self._report(
                f"the spool {self._storage.url} was replicated to {record.remote} before; what is in it is replicated "
                f"to {self.remote} now"
            )
            return LedgerRecord(remote=self.remote)
        return record

    def write(self, record: LedgerRecord) -> None:
        """Replace the record; for the process that replicates.

        Raises:
            StorageError: The spool's disk failed.
        """
        self._storage.put(LEDGER_KEY, record.to_json())

    def _report(self, message: str) -> None:
        with self._lock:
            if message == self._reported:
                return
            self._reported = message
        _logger.warning("%s", message)
