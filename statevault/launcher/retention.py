"""Retention of the states that a run saves: tells a keeper of them, and removes what it selects."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from upath import UPath

from statevault.state_persistence import StatesKeeper, StateStore

__all__ = ["Retention"]


class Retention:
    """Applies a keeper to a store, one save after the other."""

    def __init__(self, store: StateStore, keeper: StatesKeeper) -> None:
        """Tell the keeper of the states that are there, oldest first.

        Raises:
            StorageError: The store can't be listed.
        """
        self._store = store
        self._keeper = keeper
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
        if self._due:
            self._store.remove(self._due, reason=f"selected by {type(self._keeper).__name__}")
            self._due.clear()

    def _append(self, path: UPath) -> None:
        # A UPath offers what a Path does, and is one where the store is local: see StatesKeeper.
        self._keeper.append(cast("Path", path))
