"""How a spool keeps to its room: what it removes when there is too much of it, or when the disk is full.

A removal writes before it frees. On a full disk its storage has a reserve for that, and it is made in small steps, each
of which frees more than the next one needs.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from statevault.errors import StorageFullError
from statevault.format.keys import StateKey
from statevault.state_persistence.kept_states import KeptStates
from statevault.state_persistence.pruning.shared_objects import SharedObjects
from statevault.state_persistence.retention import StoredSizes
from statevault.state_persistence.spool.config import Spool
from statevault.state_persistence.spool.reserve import LEAST_RESERVED_FILES, Reserve
from statevault.state_persistence.spool.thinning import SpooledState, states_to_drop
from statevault.state_persistence.spool.view import SpoolView

__all__ = ["SpoolRoom"]

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_WARNINGS = 600.0


class SpoolRoom:
    """The room of one spool. May be used by several threads, and beside other processes.

    Args:
        config: Where it is, and how much it may hold.
        states: The store in it.
        view: Looks into it.
        reserve: What the storage of `states` gives up when the disk is full.

    Attributes:
        dropped: How many states were removed that were not replicated yet.
    """

    def __init__(self, config: Spool, states: KeptStates, view: Callable[[], SpoolView], reserve: Reserve) -> None:
        self._config = config
        self._states = states
        self._view = view
        self._reserve = reserve
        self._told_at = -math.inf
        self.dropped = 0
        side = states._copy_side()  # noqa: SLF001 - a store as well
        self._shared = SharedObjects.in_store(side.storage, side.catalog)
        self.start_anew()

    def start_anew(self) -> None:
        """In a forked child: a thread of its parent may have held the lock."""
        self._lock = threading.Lock()

    def bound(self) -> None:
        """Drop states until the spool holds no more than it may.

        Raises:
            StorageError: The disk failed.
        """
        max_bytes = self._config.max_bytes
        if max_bytes is not None:
            with self._lock:
                self._drop(max_bytes)

    def trim(self) -> None:
        """Remove the states that are at the remote, but for the newest.

        Raises:
            StorageError: The disk failed.
        """
        view = self._view()
        there = [record.state for record in view.done if view.remote_name(record) is not None]
        surplus = there[: max(0, len(there) - self._config.keep_replicated)]
        if surplus:
            self._remove(surplus, "replicated")
        self._reserve.fill()

    def make(self) -> bool:
        """Drop states because the disk is full: what is at the remote, or else half of what may go.

        Returns:
            Whether any was dropped.

        Raises:
            StorageFullError: There is no room for the records of that.
            StorageError: The disk failed.
        """
        with self._lock:
            is_less = self._drop_some()
            # What is dropped leaves a tombstone, and so each time a little less comes back. Not so little that at the
            # end nothing can be dropped, or noted, any more: the state that is saved has to fit beside this.
            self._reserve.fill(LEAST_RESERVED_FILES)
            return is_less

    def _drop_some(self) -> bool:
        view = self._view()
        sizes = self._sizes(view)
        pending = [record.state for record in view.pending]
        if view.done and self._drop(sizes.together(pending)):
            return True
        return self._drop(sizes.together(pending) // 2)

    def _drop(self, max_bytes: int) -> bool:
        view = self._view()
        protected = self._states.protected()
        done = {record.state for record in view.done}
        states = [
            SpooledState(
                name=record.state,
                sequence=record.sequence,
                is_done=record.state in done,
                is_protected=record.state in protected or record.state == view.ledger.copying,
            )
            for record in view.records
        ]
        sizes = self._sizes(view)

        def size_of(names: Collection[str]) -> int:
            return sizes.together(names)

        removed = self._remove(states_to_drop(states, size_of, max_bytes), "dropped to bound the spool")
        self._tell([name for name in removed if name not in done])
        return bool(removed)

    def _remove(self, states: Sequence[str], reason: str) -> list[str]:
        """Remove states; returns those that are gone."""
        removed: list[str] = []
        for step in _steps(states):
            try:
                removed += self._states.remove(step, reason=reason).removed
            except StorageFullError:
                if not removed:
                    raise
                break  # what is gone may be enough
        return removed

    def _tell(self, lost: Sequence[str]) -> None:
        if not lost:
            return
        self.dropped += len(lost)
        now = time.monotonic()
        is_told = now - self._told_at < _SECONDS_BETWEEN_WARNINGS
        self._told_at = self._told_at if is_told else now
        _logger.log(
            logging.INFO if is_told else logging.WARNING,
            "The spool %s is full: dropped %d states that were not replicated yet, such as %s",
            self._states.url,
            len(lost),
            lost[0],
        )

    def _sizes(self, view: SpoolView) -> StoredSizes:
        self._shared.forget_others([StateKey(record.sequence, record.state) for record in view.records])
        return StoredSizes(view.records, self._shared)


def _steps(states: Sequence[str]) -> Iterator[Sequence[str]]:
    """One at first, whose tombstone has room in what is least of the reserve, and twice as many each time."""
    start, count = 0, 1
    while start < len(states):
        yield states[start : start + count]
        start, count = start + count, 2 * count
