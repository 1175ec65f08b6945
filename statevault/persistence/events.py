"""Events of a policy's life, and what reacts to them: the additional state that belongs to a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any

from typing_extensions import override

__all__ = ["PersistEvent", "Persistence", "PersistenceGroup", "RestoreEvent", "check_persistence"]


class PersistEvent(Enum):
    """What is being saved."""

    PERSIST_POLICY = "persist_policy"
    """A policy is saved: a new best one, or that of an epoch."""


class RestoreEvent(Enum):
    """What is being restored."""

    RESTORE_POLICY = "restore_policy"
    """The parameters of a policy are restored."""


class Persistence(ABC):
    """Saves and restores what belongs to a policy: statistics of observations, a tokenizer, a curriculum.

    Files go below ``world.persist_path(…)`` and come from ``world.restore_path(…)``, with ``open`` and whatever else
    works on local files: a :class:`~statevault.persistence.PolicyPersistence` gives a world whose paths are local,
    and brings the files to the policy's storage and back.
    """

    @abstractmethod
    def persist(self, event: PersistEvent, world: Any) -> None:
        """Save.

        Args:
            event: Why.
            world: The world of the experiment; its ``persist_path(name)`` is empty.
        """

    @abstractmethod
    def restore(self, event: RestoreEvent, world: Any) -> None:
        """Restore what :meth:`persist` saved with the policy that is being restored.

        Args:
            event: Why.
            world: The world of the experiment; below its ``restore_path(name)`` lies what was saved.
        """


class PersistenceGroup(Persistence):
    """Several persistences as one, in the order in which they are given.

    Args:
        *p: The persistences.
        enabled: Whether they save. They restore in any case.

    Raises:
        TypeError: One is no :class:`Persistence`.
    """

    def __init__(self, *p: Persistence, enabled: bool = True) -> None:
        self.items = tuple(check_persistence(item) for item in p)
        self.enabled = enabled

    @override
    def persist(self, event: PersistEvent, world: Any) -> None:
        if not self.enabled:
            return
        for item in self.items:
            item.persist(event, world)

    @override
    def restore(self, event: RestoreEvent, world: Any) -> None:
        for item in self.items:
            item.restore(event, world)


def check_persistence(item: object) -> Persistence:
    """Return what was given if it is a persistence.

    Raises:
        TypeError: It is none, or one of Tianshou's: that compares events with an enum of its own, and would do nothing.
    """
    if isinstance(item, Persistence):
        return item
    if isinstance(item, type) or not (hasattr(item, "persist") and hasattr(item, "restore")):
        raise TypeError(
            f"{item!r} is no Persistence: give an object of a subclass of statevault.persistence.Persistence"
        )
    raise TypeError(
        f"{type(item).__name__} does not inherit from statevault.persistence.Persistence. Inherit from it; or, if it "
        "is one of Tianshou's, wrap it: statevault.persistence.tianshou.FromTianshou(…) gives it its own events"
    )
