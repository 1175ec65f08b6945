"""What is done with a state that has got to the remote: it is noted in the spool, and its pins follow it.

* The note comes behind the commit at the remote, and all that counts or tidies up behind the note.
* No pin is lost. Pins are carried over before the note, for the sake of those who prune there; and once more behind it,
  since from the note on pins are put at the remote, and one may have been put in the spool just before. That this
  still is to be done stands in the note itself, so that the next try, or the next process, makes up for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from statevault.errors import PinConflictError, StateNotFoundError, StateVaultError
from statevault.format.records import CommitRecord
from statevault.state_persistence.copies.copying import CopiedState, CopySide
from statevault.state_persistence.pruning.pins import pin_state
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.records.catalog import Catalog
from statevault.state_persistence.spool.folder import SpoolFolder
from statevault.state_persistence.spool.tally import Tally
from statevault.state_persistence.spool.view import SpoolView

__all__ = ["Arrivals"]

_logger = logging.getLogger(__name__)
_REMOVED = "removed by the user"


class Arrivals:
    """Notes what became of states that were copied; for the process that replicates.

    Args:
        folder: The spool.
        target: The remote store.
        tally: Where it is counted.

    Attributes:
        is_noting: Whether what became of a state is just being noted.
    """

    def __init__(self, folder: SpoolFolder, target: CopySide, tally: Tally) -> None:
        self._folder = folder
        self._target = target
        self._tally = tally
        self._unwanted: set[str] = set()
        self.is_noting = False

    def refuse(self, names: Iterable[str]) -> None:
        """Take back what is just being copied of these states, which were removed."""
        self._unwanted.update(names)

    def forget(self) -> None:
        """Nothing is being copied: what was to be refused has not come."""
        self._unwanted.clear()

    def note(self, record: CommitRecord, copied: CopiedState) -> None:
        """Note what became of a state.

        Args:
            record: Its marker in the spool.
            copied: What the copy says.

        Raises:
            StorageError: The remote or the disk failed. What was noted by then stays so.
        """
        self.is_noting = True
        try:
            self._note(record, copied)
        finally:
            self.is_noting = False

    def carry_over_pins(self, view: SpoolView) -> None:
        """Pin at the remote what was pinned in the spool at the last moment, and could not be carried over then.

        Raises:
            StorageError: The remote or the disk failed.
        """
        for record, name in view.with_waiting_pins:
            self._pin(record.state, name)
            self._folder.note_pinned(record)

    def _note(self, record: CommitRecord, copied: CopiedState) -> None:
        if copied.outcome == "pruned":
            return  # dropped, or removed by somebody: it does not lie in the spool any more
        if copied.outcome == "damaged":
            self._folder.note_done(record, None, ids=self._target.catalog.ids)
            self._tally.count_damaged(record.state, copied.error or "")
            return
        name = copied.target or record.state
        if record.state in self._unwanted and not self._folder.has(record.state):
            prune(self._target.storage, Catalog(self._target.storage), [name], by=self._target.writer, reason=_REMOVED)
        self._pin(record.state, name)
        self._folder.note_done(record, name, ids=self._target.catalog.ids)
        self._tally.count_replicated(record.state, copied.uploaded)
        self._pin(record.state, name)
        self._folder.note_pinned(record)
        try:
            self._folder.room.trim()
        except StateVaultError as error:
            _logger.warning("what is replicated could not be removed from the spool: %s", error)

    def _pin(self, state: str, name: str) -> None:
        """Pin at the remote what is pinned in the spool."""
        if not self._pins_of(state):
            return
        there = self._target.catalog.listing().pins.get(name, ())
        # Looked at anew: that took as long as an outage does, and a pin may have been taken back meanwhile.
        for pin in sorted(set(self._pins_of(state)) - set(there)):
            try:
                pin_state(self._target.storage, self._target.catalog.find(name), pin, by=self._target.writer)
            except (StateNotFoundError, PinConflictError) as error:
                _logger.warning("%s is not pinned as %r at the remote: %s", name, pin, error)

    def _pins_of(self, state: str) -> tuple[str, ...]:
        return self._folder.states.pins().get(state, ())
