"""The environment: what the agent observes and acts on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from statevault.interaction.event_mixin import InteractionPart

__all__ = ["Environment"]

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")


class Environment(InteractionPart, ABC, Generic[ObsT, ActT]):
    """The world as the agent meets it."""

    @abstractmethod
    def observe(self) -> ObsT:
        """What is to be observed now."""

    @abstractmethod
    def affect(self, action: ActT) -> None:
        """Apply an action to the world."""
