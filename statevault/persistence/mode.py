"""How a policy is written: as a whole, or its parameters alone."""

from __future__ import annotations

from enum import Enum

__all__ = ["PolicyMode"]


class PolicyMode(Enum):
    """How a policy is written; ``PolicyPersistence.Mode``."""

    POLICY_STATE_DICT = "policy_state_dict"
    """The state dict alone, without pickle: restoring it runs no code. The policy must be built before, as it was."""

    POLICY = "policy"
    """The whole module, as :func:`torch.save` pickles it: usable without building the policy first. It can't be loaded
    when its class was renamed or moved, and loading it runs code of whoever can write to the storage."""

    def get_filename(self) -> str:
        """The name of the file of the best policy."""
        return f"{self.value}.pt"

    def get_checkpoint_filename(self, epoch: int) -> str:
        """The name of the file of the policy after an epoch."""
        return f"{self.value}_epoch_{epoch}.pt"

    @classmethod
    def of(cls, mode: object) -> PolicyMode:
        """The mode that somebody means: one of these, its value, or Tianshou's enum.

        Raises:
            ValueError: There is no such mode.
        """
        return cls(getattr(mode, "value", mode))
