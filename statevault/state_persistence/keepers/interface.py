"""What a keeper is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from statevault.state_persistence.store import StateStore

__all__ = ["StatesKeeper", "StoreStatesKeeper"]


class StatesKeeper(ABC):
    """A retention policy over the states that one run saves.

    Subclasses are told of each committed state, and asked which of them to remove. Paths are :class:`~upath.UPath`, so
    that the same code (``p.stat()``, ``p.rglob("*")``) works for local and remote stores.
    """

    @abstractmethod
    def append(self, path: Path) -> None:
        """Take note of a committed state.

        Args:
            path: Its folder, a :class:`pathlib.Path` or a :class:`~upath.UPath` with its interface. Called in the order
                of the states: first for those that are in the store already, then for each one saved.
        """

    @abstractmethod
    def select_removal_states(self) -> Iterable[Path]:
        """Choose the states to remove, out of those that were appended, and forget them."""


class StoreStatesKeeper(StatesKeeper):
    """A keeper that can also choose out of all states of a store, without having been told of them.

    That is what a run asks it for: it reads no more than it needs, and also sees what other runs and people have saved
    and removed meanwhile.

    Attributes:
        must_be_told: Whether that would bypass a subclass: one that changes :meth:`append` or
            :meth:`select_removal_states`, and not :meth:`select_from`, is told and asked as any other keeper.
    """

    must_be_told: ClassVar[bool] = False

    @override
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "select_from" in vars(cls):
            cls.must_be_told = False
        elif not vars(cls).keys().isdisjoint({"append", "select_removal_states"}):
            cls.must_be_told = True

    @abstractmethod
    def select_from(self, store: StateStore, *, resumed_from: str | None = None) -> list[str]:
        """Choose the states to remove, out of all states of a store.

        Args:
            store: The store.
            resumed_from: The name of the state that the run has begun with.

        Returns:
            Their names, oldest first.

        Raises:
            StorageError: The storage failed.
        """
