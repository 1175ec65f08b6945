"""What every way to keep tensors can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import Any

from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["TensorMethod"]


class TensorMethod(ABC):
    """Saves a state of tensors and restores it into living ones.

    Args:
        place: Where.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    def prepare(self, state: State) -> None:  # noqa: B027 - most need nothing
        """Do what is not to be measured, before the first save or the restore: make the client of a server, for one."""

    @abstractmethod
    def save(self, state: State, number: int) -> None:
        """Return when the state is committed; `number` tells the saves of one place apart."""

    def begin(self, state: State, number: int) -> Future[Any]:
        """Return when the state may change again; the future ends when it is committed. By default, both at once."""
        self.save(state, number)
        saved: Future[Any] = Future()
        saved.set_result(None)
        return saved

    @abstractmethod
    def restore(self, live: State, number: int) -> None:
        """Copy a saved state, or the groups of it that are given, into tensors of the same shapes."""

    def close(self) -> None:  # noqa: B027 - most have none
        """Let go of connections."""
