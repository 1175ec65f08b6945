"""Retention of policies that are states: asks a keeper after each save which to remove, and removes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from upath import UPath

from statevault.state_persistence import (
    PolicyStatesKeeper,
    RetentionPolicy,
    StatesKeeper,
    StateStore,
    StoreStatesKeeper,
)

__all__ = ["Keeping"]


class Keeping:
    """Applies a keeper, or a retention policy, to a store.

    What no retention removes stays whatever the keeper says (:meth:`StateStore.protected`).

    Args:
        keeper: ``KeepAny((KeepLatest(3), KeepBest(1, metric="score")))``, or a keeper.

    Raises:
        TypeError: It is neither.
    """

    def __init__(self, keeper: StatesKeeper | RetentionPolicy) -> None:
        self._keeper = keeper if isinstance(keeper, StatesKeeper) else PolicyStatesKeeper(keeper)
        self._was_told = False

    def __call__(self, store: StateStore, path: UPath) -> None:
        """Remove what is not kept.

        Args:
            store: The store.
            path: The state that was saved just now.

        Raises:
            StorageError: The storage failed.
            StateNotFoundError: The keeper selected what is not in the store.
            Exception: Whatever the keeper raises.
        """
        selected = self._selected(store, path)
        if selected:
            protected = store.protected()
            store.remove(
                [state for state in selected if Path(str(state)).name not in protected],
                reason=f"selected by {type(self._keeper).__name__}",
            )

    def _selected(self, store: StateStore, path: UPath) -> Sequence[str | os.PathLike[str]]:
        if isinstance(self._keeper, StoreStatesKeeper) and not self._keeper.must_be_told:
            return self._keeper.select_from(store)
        for state in [path] if self._was_told else map(store.path, store.names()):
            # A UPath offers what a Path does, and is one where the store is local: see StatesKeeper.
            self._keeper.append(cast("Path", state))
        self._was_told = True
        return list(self._keeper.select_removal_states())
