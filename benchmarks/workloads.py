"""What is saved: tensors in groups, made from a seed, so that another process knows what to expect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

__all__ = ["Group", "State", "TensorWorkload", "frozen_backbone", "model", "ten_models"]

State = dict[str, dict[str, torch.Tensor]]
"""Tensors by name, in groups that one may want to restore alone."""

_BLOCK = 1 << 20
_PARTS = 16


@dataclass(frozen=True, slots=True)
class Group:
    """A model with its optimizer.

    Attributes:
        name: Of the group.
        size_bytes: Of all its tensors.
        dtype: The name of their dtype in torch.
        trained: Whether all of them change between two saves.
        moments: Whether a third is weights and the rest Adam's two moments; else all are weights.
    """

    name: str
    size_bytes: int
    dtype: str = "float32"
    trained: bool = True
    moments: bool = True

    def make(self, step: int) -> dict[str, torch.Tensor]:
        """Return the tensors as they are after `step` changes."""
        return {name: self.tensor(index, step) for index, name in enumerate(self.names)}

    @property
    def names(self) -> list[str]:
        """The names of the tensors."""
        kinds = ("weight", "exp_avg", "exp_avg_sq") if self.moments else ("weight",)
        return [f"{self.name}.layer{number}.{kind}" for number in range(_PARTS) for kind in kinds]

    def tensor(self, index: int, step: int) -> torch.Tensor:
        """Return one of the tensors after `step` changes: noise that repeats nowhere."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        count = max(1, self.size_bytes // len(self.names) // dtype.itemsize)
        made = torch.empty(count, dtype=dtype)
        noise = _noise()
        seed = index + 1009 * (step if self.trained else 0) + sum(self.name.encode())
        for number, piece in enumerate(torch.split(made, _BLOCK)):
            piece.copy_(noise[: len(piece)] * (1.0 + 1e-3 * (seed % 7919) + 0.37 * number))
        return made


@dataclass(frozen=True, slots=True)
class TensorWorkload:
    """A state of tensors.

    Attributes:
        name: For tables and plots.
        groups: What it is made of.
    """

    name: str
    groups: tuple[Group, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of all tensors."""
        return sum(group.size_bytes for group in self.groups)

    def make(self, step: int = 0) -> State:
        """Return the state after `step` changes."""
        return {group.name: group.make(step) for group in self.groups}

    def change(self, state: State, step: int) -> None:
        """Bring a living state to `step` changes."""
        for group in self.groups:
            if group.trained:
                for index, tensor in enumerate(state[group.name].values()):
                    tensor.copy_(group.tensor(index, step))

    def zeros(self, groups: tuple[str, ...] | None = None) -> State:
        """Return living tensors of the right shapes, in memory that is faulted in."""
        return {
            group.name: {
                name: torch.zeros_like(group.tensor(index, 0)).add_(1) for index, name in enumerate(group.names)
            }
            for group in self.groups
            if groups is None or group.name in groups
        }

    def check(self, state: State, step: int) -> None:
        """Compare a restored state, or some groups of it, with what it should be.

        Raises:
            ValueError: It differs: then no figure of the method means anything.
        """
        for group in self.groups:
            for index, (name, tensor) in enumerate(state.get(group.name, {}).items()):
                if not torch.equal(tensor, group.tensor(index, step)):
                    msg = f"{name} is not what was saved"
                    raise ValueError(msg)


def model(megabytes: float, dtype: str = "float32") -> TensorWorkload:
    """Return a model with Adam's state, all of whose tensors change between saves."""
    return TensorWorkload(f"{megabytes:g} MB {dtype}", (Group("model", int(megabytes * 1e6), dtype),))


def frozen_backbone(megabytes: float, head_megabytes: float) -> TensorWorkload:
    """Return a frozen backbone and a small head that is trained with Adam."""
    return TensorWorkload(
        f"{megabytes:g} MB frozen, {head_megabytes:g} MB trained",
        (
            Group("backbone", int(megabytes * 1e6), trained=False, moments=False),
            Group("head", int(head_megabytes * 1e6)),
        ),
    )


def ten_models(megabytes: float) -> TensorWorkload:
    """Return ten models of that size each."""
    return TensorWorkload(
        f"ten models of {megabytes:g} MB", tuple(Group(f"model{i}", int(megabytes * 1e6)) for i in range(10))
    )


@lru_cache(maxsize=1)
def _noise() -> torch.Tensor:
    return torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0))
