"""Retention policies: which states to remove. They choose; only a prune deletes."""

from __future__ import annotations

import fnmatch
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from typing_extensions import override
from upath import UPath

__all__ = ["LatestStatesKeeper", "StatesKeeper"]


class StatesKeeper(ABC):
    """A retention policy over the states that one run saves.

    Subclasses are told of each committed state, and asked which of them to remove. Paths are :class:`UPath`, so
    that the same code (``p.stat()``, ``p.rglob("*")``) works for local and remote stores.
    """

    @abstractmethod
    def append(self, path: Path) -> None:
        """Take note of a committed state.

        Args:
            path: Its folder, a :class:`pathlib.Path` or a :class:`UPath` with its interface. Called in the order of
                the states: first for those that are in the store at launch, then for each one saved.
        """

    @abstractmethod
    def select_removal_states(self) -> Iterable[Path]:
        """Choose the states to remove, out of those that were appended, and forget them."""


class LatestStatesKeeper(StatesKeeper):
    """Keeps the newest states, by the order in which they were committed.

    Args:
        states_dir: The store; kept for messages, the states come through :meth:`append`.
        max_keep: How many to keep; negative for all.
        state_name_pattern: Glob pattern; states with other names are neither counted nor removed.

    Raises:
        ValueError: `max_keep` is 0: the newest state is never removed.
    """

    def __init__(
        self, states_dir: str | os.PathLike[str] | UPath, max_keep: int, state_name_pattern: str = "*.state"
    ) -> None:
        if max_keep == 0:
            raise ValueError("max_keep must be at least 1, or negative to keep all states: the newest is never removed")
        self.states_dir = states_dir
        self.max_keep = max_keep
        self.state_name_pattern = state_name_pattern
        self._paths: list[Path] = []

    @override
    def append(self, path: Path) -> None:
        if fnmatch.fnmatchcase(path.name, self.state_name_pattern):
            self._paths.append(path)

    @override
    def select_removal_states(self) -> list[Path]:
        if self.max_keep < 0:
            return []
        removed = self._paths[: -self.max_keep]
        self._paths = self._paths[-self.max_keep :]
        return removed
