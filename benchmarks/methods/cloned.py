"""``torch.save`` of a copy, in a thread: the usual way by hand to go on training meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from typing_extensions import override

from benchmarks.methods.torch_save import TorchSave, TorchSaveS3fs
from benchmarks.workloads import State

__all__ = ["ClonedTorchSave", "ClonedTorchSaveS3fs"]


class ClonedTorchSave(TorchSave):
    """Into a file."""

    @override
    def begin(self, state: State, number: int) -> Future[Any]:
        return _in_a_thread(self.save, state, number)


class ClonedTorchSaveS3fs(TorchSaveS3fs):
    """Into a file of s3fs."""

    @override
    def begin(self, state: State, number: int) -> Future[Any]:
        return _in_a_thread(self.save, state, number)


def _in_a_thread(save: Callable[[State, int], None], state: State, number: int) -> Future[Any]:
    copied = {group: {name: tensor.clone() for name, tensor in tensors.items()} for group, tensors in state.items()}
    thread = ThreadPoolExecutor(1, "save")
    saved = thread.submit(save, copied, number)
    thread.shutdown(wait=False)
    return saved
