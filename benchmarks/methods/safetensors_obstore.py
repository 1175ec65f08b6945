"""safetensors in memory, and from there obstore."""

from __future__ import annotations

from safetensors.torch import load, save
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.methods.obstore_client import object_store
from benchmarks.methods.safetensors_file import flat
from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["SafetensorsObstore"]

_PART = 16 << 20


class SafetensorsObstore(TensorMethod):
    """Into memory, and from there by obstore."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._store = object_store(place)

    @override
    def save(self, state: State, number: int) -> None:
        self._store.put(f"{number}.safetensors", save(flat(state)), chunk_size=_PART, max_concurrency=4)

    @override
    def restore(self, live: State, number: int) -> None:
        loaded = load(bytes(self._store.get(f"{number}.safetensors").bytes()))
        for name, tensor in flat(live).items():
            tensor.copy_(loaded[name])
