"""The keeper that needs no more than the names of states."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from typing_extensions import override
from upath import UPath

from statevault.state_persistence.keepers.interface import StoreStatesKeeper
from statevault.state_persistence.store import StateStore
from statevault.state_persistence.whole_numbers import whole_number

__all__ = ["LatestStatesKeeper"]

T = TypeVar("T")


class LatestStatesKeeper(StoreStatesKeeper):
    """Keeps the newest states, by the order in which they were committed.

    Out of a store (:meth:`select_from`), a state whose marker is damaged is not counted, and is removed with those that
    are older than all that stay. Who is told of states one by one does not know.

    Args:
        states_dir: The store; kept for messages, the states come through :meth:`append` or :meth:`select_from`.
        max_keep: How many to keep; negative for all.
        state_name_pattern: Glob pattern; states with other names are neither counted nor removed.

    Raises:
        TypeError: `max_keep` is no integer.
        ValueError: It is 0: the newest state is never removed.
    """

    def __init__(
        self, states_dir: str | os.PathLike[str] | UPath, max_keep: int, state_name_pattern: str = "*.state"
    ) -> None:
        self.max_keep = whole_number("max_keep", max_keep)
        if self.max_keep == 0:
            raise ValueError("max_keep must be at least 1, or negative to keep all states: the newest is never removed")
        self.states_dir = states_dir
        self.state_name_pattern = state_name_pattern
        self._paths: list[Path] = []

    @override
    def append(self, path: Path) -> None:
        if fnmatchcase(path.name, self.state_name_pattern):
            self._paths.append(path)

    @override
    def select_removal_states(self) -> list[Path]:
        removed = self._all_but_latest(self._paths)
        self._paths = self._paths[len(removed) :]
        return removed

    @override
    def select_from(self, store: StateStore, *, resumed_from: str | None = None) -> list[str]:
        # By names first: a store of ten thousand states is listed with ten requests, and each marker is one more.
        names = [name for name in store.names() if fnmatchcase(name, self.state_name_pattern)]
        selected = self._all_but_latest(names)
        if set(selected) <= {resumed_from}:
            return selected
        # What a removal would read anyway. From a damaged state nobody can go on: it takes the place of no other.
        damaged = store.damaged(names)
        stay = [name for name in names if name not in damaged][-self.max_keep :]
        # It goes with those that are older than all that stay: as long as it is there, nothing that it may need can go.
        return names[: names.index(stay[0])] if stay else []

    def _all_but_latest(self, states: Sequence[T]) -> list[T]:
        return [] if self.max_keep < 0 else list(states[: -self.max_keep])
