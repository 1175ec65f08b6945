"""A :class:`StateStore` with a component for each group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.place import Place
from benchmarks.workloads import State
from statevault.state_persistence import PersistentStateMixin, StateStore, read_tree, write_tree

__all__ = ["Statevault", "StatevaultUnsigned", "StatevaultWhole"]


class Tensors(PersistentStateMixin):
    """Living tensors as a component: loading copies into them, as loading a model does."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    @override
    def save_state(self, path: Path) -> None:
        # As the components of statevault do.
        write_tree(self.tensors, path.with_suffix(".tree"), held=True)

    @override
    def load_state(self, path: Path) -> None:
        loaded = read_tree(path.with_suffix(".tree"), mapped=True)
        for name, tensor in self.tensors.items():
            tensor.copy_(loaded[name])


class Statevault(TensorMethod):
    """As a user has it who changes no setting."""

    incremental: ClassVar[bool] = True
    config: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        options = {**place.storage_options, **self.config}
        self._store = StateStore(place.url, storage_options=options, incremental=self.incremental)
        self._registered: State = {}

    @override
    def prepare(self, state: State) -> None:
        self._store.exists()

    @override
    def save(self, state: State, number: int) -> None:
        self._register(state)
        self._store.save_state()

    @override
    def restore(self, live: State, number: int) -> None:
        self._register(live)
        self._store.load_state("latest", components=live)

    @override
    def close(self) -> None:
        self._store.close()

    def _register(self, state: State) -> None:
        for name, tensors in state.items():
            if name not in self._registered:
                self._store.register(name, Tensors(tensors))
                self._registered[name] = tensors


class StatevaultWhole(Statevault):
    """Each save uploads everything."""

    incremental = False


class StatevaultUnsigned(Statevault):
    """The hash of S3's signature is left out: over https, or in a network that is trusted."""

    config: ClassVar[Mapping[str, Any]] = {"config_kwargs": {"s3": {"payload_signing_enabled": False}}}
