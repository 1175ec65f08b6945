"""Bounds of the machine: copying memory, and writing bytes to a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["MemoryCopy", "RawFile", "RawFileDurable", "flat_bytes"]

_BLOCK = 8 << 20


def flat_bytes(state: State) -> bytearray:
    """Return the bytes of all tensors one after the other."""
    joined = bytearray(sum(tensor.nbytes for tensors in state.values() for tensor in tensors.values()))
    offset = 0
    for tensors in state.values():
        for tensor in tensors.values():
            joined[offset : offset + tensor.nbytes] = tensor.view(torch.uint8).numpy().data
            offset += tensor.nbytes
    return joined


class MemoryCopy(TensorMethod):
    """Copies the tensors into memory that is faulted in already: no snapshot is faster."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._copy: State = {}

    @override
    def prepare(self, state: State) -> None:
        self._copy = {group: {name: t.clone() for name, t in tensors.items()} for group, tensors in state.items()}

    @override
    def save(self, state: State, number: int) -> None:
        _copy(state, self._copy)

    @override
    def restore(self, live: State, number: int) -> None:
        _copy(self._copy, live)


class RawFile(TensorMethod):
    """Writes bytes that need no encoding to a file, and reads them into memory that is faulted in."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._bytes = np.empty(0, np.uint8)

    @override
    def prepare(self, state: State) -> None:
        self._bytes = np.frombuffer(flat_bytes(state), np.uint8)

    @override
    def save(self, state: State, number: int) -> None:
        with self._path(number).open("wb", buffering=0) as file:
            view = self._bytes.data
            while view:
                view = view[file.write(view[:_BLOCK]) :]
            self._finish(file.fileno())

    @override
    def restore(self, live: State, number: int) -> None:
        with self._path(number).open("rb", buffering=0) as file:
            view = self._bytes.data
            while view:
                view = view[file.readinto(view[:_BLOCK]) :]

    def _path(self, number: int) -> Path:
        return self.place.folder / str(number)

    def _finish(self, descriptor: int) -> None:
        pass


class RawFileDurable(RawFile):
    """The same with an fsync."""

    @override
    def _finish(self, descriptor: int) -> None:
        os.fsync(descriptor)


def _copy(source: State, target: State) -> None:
    for group, tensors in source.items():
        for name, tensor in tensors.items():
            target[group][name].copy_(tensor)
