"""The interface of everything whose state is saved: as a protocol, and as a base class that does nothing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol, runtime_checkable

__all__ = ["PersistentMembers", "PersistentState", "PersistentStateMixin", "PhasedState"]


class PersistentState(Protocol):
    """Anything that can be registered in a store; see :class:`PersistentStateMixin` for what the methods do."""

    def save_state(self, path: Path) -> None:
        """Save the state under a path."""

    def load_state(self, path: Path) -> None:
        """Load the state from a path."""


@runtime_checkable
class PersistentMembers(Protocol):
    """A component made of named members, each saved under its name below the component's folder.

    A store can load such members one by one: ``load_state(path, components=["models/policy"])``.
    """

    @property
    def member_names(self) -> Collection[str]:
        """The names of the members."""

    def load_members(self, path: Path, names: Collection[str]) -> None:
        """Load some of the members.

        Args:
            path: The path of the component, as for ``load_state``; only what the named members saved is there.
            names: The names of the members.
        """


@runtime_checkable
class PhasedState(Protocol):
    """A component that can be saved in two phases, so that the acting loop stands still for the second one only.

    Between the phases, what the first one has saved does not change: the training thread stands still from the first
    one on. Together they save what ``save_state`` does, at the instant of the second one.
    """

    def save_early(self, path: Path) -> None:
        """Save what only the training thread changes, while the agent acts on.

        Args:
            path: As for ``save_state``.
        """

    def save_late(self, path: Path) -> None:
        """Save the rest, when all threads stand still. It should be little.

        Args:
            path: The same path, with what :meth:`save_early` has saved.
        """


class PersistentStateMixin:
    """An object whose state can be saved under a path and loaded from it.

    Both methods do nothing here, so that a class without state needs neither.
    """

    def save_state(self, path: Path) -> None:
        """Save the state under a path.

        Args:
            path: A path, in a folder that exists, at which nothing lies yet. The object makes of it what it
                likes: a folder with files, or one file, with a suffix of its choice.
        """

    def load_state(self, path: Path) -> None:
        """Load the state that :meth:`save_state` saved under a path.

        Args:
            path: The same path, as it was given to :meth:`save_state`; only its parents may differ. There lies what
                :meth:`save_state` has left: nothing, if it left nothing; an empty folder, if it made one.
        """
