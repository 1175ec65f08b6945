"""Retention of the states that a run saves: tells a keeper of them, and removes what it selects.

Whatever the keeper says, two states stay: the one that this run resumed from, and the newest that was not saved after
an error. An agent that crashes at each start must not push out the state from before it did.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from upath import UPath

from statevault.state_persistence import StatesKeeper, StateStore

__all__ = ["Retention"]


class Retention:
    """Applies a keeper to a store, one save after the other."""

    def __init__(self, store: StateStore, keeper: StatesKeeper, *, resumed_from: str | None = None) -> None:
        """Tell the keeper of the states that are there, oldest first.

        Args:
            store: The store.
            keeper: The policy.
            resumed_from: The name of the state that the run has begun with; never removed.

        Raises:
            StorageError: The store can't be listed.
        """
        self._store = store
        self._keeper = keeper
        self._resumed_from = resumed_from
        for info in store.states():
            self._append(info.path)
        self._due: list[Path] = []

    def __call__(self, path: UPath) -> None:
        """Tell the keeper of a committed state, and remove what it no longer keeps.

        Raises:
            StorageError: The storage failed; what was not removed is tried again at the next call.
            Exception: Whatever the keeper raises.
        """
        self._append(path)
        # A keeper forgets what it has selected, so that a removal that fails must be remembered here.
        self._due += self._keeper.select_removal_states()
        if not self._due:
            return
        kept = {self._resumed_from, self._newest_clean()}
        removed = [due for due in self._due if due.name not in kept]
        if removed:
            self._store.remove([due.name for due in removed], reason=f"selected by {type(self._keeper).__name__}")
        self._due = [due for due in self._due if due.name in kept]

    def _newest_clean(self) -> str | None:
        clean = (info.name for info in reversed(self._store.states()) if not info.is_after_error)
        return next(clean, None)

    def _append(self, path: UPath) -> None:
        # A UPath offers what a Path does, and is one where the store is local: see StatesKeeper.
        self._keeper.append(cast("Path", path))
