"""Where policies are kept: as files that a world names, or as states of a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from statevault.persistence.mode import PolicyMode
from statevault.persistence.record import PolicyRecord
from statevault.persistence.staged import StagedPolicy
from statevault.persistence.world import WorldLike

__all__ = ["PolicyHome", "Use", "Write"]

Write: TypeAlias = Callable[[StagedPolicy], None]
"""Writes a policy, and its additional state, into a local folder."""

Use: TypeAlias = Callable[[StagedPolicy, PolicyMode, str], None]
"""Takes a policy in a local folder, how it is written, and where it is from, for messages."""


class PolicyHome(Protocol):
    """Keeps policies. For one thread at a time."""

    def save(self, world: WorldLike, record: PolicyRecord, write: Write, *, size: int) -> Any:
        """Save a policy.

        Args:
            world: The world that it is of.
            record: What it says of itself; its name follows from that.
            write: Writes it.
            size: About how many bytes that will be; 0 if that is not known.

        Returns:
            Where it is: a string, or a path.

        Raises:
            StateVaultError: It could not be saved.
            Exception: Whatever `write` raises.
        """

    def best_score(self, world: WorldLike, *, above: float) -> float | None:
        """The score of the best policy that was saved, if that is higher than another one, and the policy whole.

        Args:
            world: The world that it is of.
            above: The other score.

        Raises:
            StorageError: The storage failed.
        """

    def has_best(self, world: WorldLike) -> bool:
        """Whether a policy was saved as the best, of whatever score, that is whole.

        Args:
            world: The world that it is of.

        Raises:
            StorageError: The storage failed.
        """

    def load(self, world: WorldLike, use: Use, *, name: str | None, epoch: int | None) -> object:
        """Fetch a policy, verify it, and give it to a function.

        Args:
            world: The world that it is of.
            use: The function.
            name: The name of the policy; None for the best.
            epoch: The policy of this epoch instead.

        Returns:
            Where it is.

        Raises:
            StateVaultError: There is no such policy, it is damaged, or it can't be read.
            Exception: Whatever `use` raises.
        """

    def close(self) -> None:
        """Give back connections."""
