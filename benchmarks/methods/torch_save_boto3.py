"""``torch.save`` into memory, and from there boto3's transfer manager."""

from __future__ import annotations

import io

import torch
from typing_extensions import override

from benchmarks.methods.boto3_client import transfer_client
from benchmarks.methods.interface import TensorMethod
from benchmarks.methods.torch_save import copy_into
from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["TorchSaveBoto3"]


class TorchSaveBoto3(TensorMethod):
    """Into memory, and from there by boto3's transfer manager."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._client = transfer_client(place)

    @override
    def save(self, state: State, number: int) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        self._client.upload_fileobj(buffer, self.place.bucket, f"{self.place.prefix}/{number}.pt")

    @override
    def restore(self, live: State, number: int) -> None:
        buffer = io.BytesIO()
        self._client.download_fileobj(self.place.bucket, f"{self.place.prefix}/{number}.pt", buffer)
        buffer.seek(0)
        copy_into(live, torch.load(buffer, weights_only=True))
