"""safetensors in a file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.workloads import State

__all__ = ["Safetensors", "flat"]


class Safetensors(TensorMethod):
    """A file of all tensors."""

    @override
    def save(self, state: State, number: int) -> None:
        save_file(flat(state), self._path(number))

    @override
    def restore(self, live: State, number: int) -> None:
        with safe_open(self._path(number), framework="pt") as file:
            for name, tensor in flat(live).items():
                tensor.copy_(file.get_tensor(name))

    def _path(self, number: int) -> Path:
        return self.place.folder / f"{number}.safetensors"


def flat(state: State) -> dict[str, torch.Tensor]:
    """Return the tensors of all groups; their names tell them apart."""
    return {name: tensor for tensors in state.values() for name, tensor in tensors.items()}
