"""``torch.save`` and ``torch.load``: to a file, and through s3fs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["TorchSave", "TorchSaveDurable", "TorchSaveS3fs", "copy_into"]


class TorchSave(TensorMethod):
    """To a file under its final name."""

    @override
    def save(self, state: State, number: int) -> None:
        torch.save(state, self._path(number))

    @override
    def restore(self, live: State, number: int) -> None:
        copy_into(live, torch.load(self._path(number), weights_only=True, mmap=True))

    def _path(self, number: int) -> Path:
        return self.place.folder / f"{number}.pt"


class TorchSaveDurable(TorchSave):
    """To another name, fsync, rename, fsync of the folder: what a careful script does."""

    @override
    def save(self, state: State, number: int) -> None:
        path = self._path(number)
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class TorchSaveS3fs(TensorMethod):
    """Into a file of s3fs."""

    def __init__(self, place: Place) -> None:
        import s3fs  # noqa: PLC0415 - only where it is used

        super().__init__(place)
        self._filesystem: Any = s3fs.S3FileSystem(**place.storage_options, skip_instance_cache=True)

    @override
    def prepare(self, state: State) -> None:
        self._filesystem.exists(f"{self.place.url}/0.pt")

    @override
    def save(self, state: State, number: int) -> None:
        with self._filesystem.open(f"{self.place.url}/{number}.pt", "wb") as file:
            torch.save(state, file)

    @override
    def restore(self, live: State, number: int) -> None:
        with self._filesystem.open(f"{self.place.url}/{number}.pt", "rb") as file:
            copy_into(live, torch.load(file, weights_only=True))


def copy_into(live: State, loaded: State) -> None:
    """Copy loaded tensors into the living ones, as loading a model does."""
    for group, tensors in live.items():
        for name, tensor in tensors.items():
            tensor.copy_(loaded[group][name])
