"""``torch.distributed.checkpoint`` in one process: to a folder, and through fsspec."""

from __future__ import annotations

import warnings
from concurrent.futures import Future
from typing import Any

from s3fs import S3FileSystem
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from typing_extensions import override

from benchmarks.methods.interface import TensorMethod
from benchmarks.place import Place
from benchmarks.workloads import State

__all__ = ["DistributedCheckpoint", "DistributedCheckpointAsync"]


class DistributedCheckpoint(TensorMethod):
    """``save`` and ``load``; the metadata file is put last."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")

    @override
    def prepare(self, state: State) -> None:
        if self.place.is_remote:
            # fsspec gives these out again: to the writer the one, to the reader the other.
            for filesystem in (_SingleDeletes, S3FileSystem):
                filesystem(**self.place.storage_options).exists(f"{self.place.url}/0")

    @override
    def save(self, state: State, number: int) -> None:
        save(dict(state), storage_writer=self.writer(number), no_dist=True)

    @override
    def restore(self, live: State, number: int) -> None:
        load(dict(live), storage_reader=self.reader(number), no_dist=True)

    def writer(self, number: int) -> Any:
        """Return what writes a checkpoint."""
        if not self.place.is_remote:
            return FileSystemWriter(self.place.folder / str(number))
        writer: Any = FsspecWriter(f"{self.place.url}/{number}", **self.place.storage_options)
        writer.fs.fs = _SingleDeletes(**self.place.storage_options)
        return writer

    def reader(self, number: int) -> Any:
        """Return what reads a checkpoint."""
        if self.place.is_remote:
            return FsspecReader(f"{self.place.url}/{number}", **self.place.storage_options)
        return FileSystemReader(self.place.folder / str(number))


class DistributedCheckpointAsync(DistributedCheckpoint):
    """``async_save``."""

    @override
    def save(self, state: State, number: int) -> None:
        self.begin(state, number).result()

    @override
    def begin(self, state: State, number: int) -> Future[Any]:
        saved: Any = async_save(dict(state), storage_writer=self.writer(number), no_dist=True)
        future: Future[Any] = saved
        return future


class _SingleDeletes(S3FileSystem):  # type: ignore[misc]
    """Without the request that deletes many: servers of 2022 want a header with it that botocore no longer sends.

    The writer deletes one object, the metadata under its first name.
    """

    async def _bulk_delete(self, pathlist: list[str], **kwargs: Any) -> list[str]:
        for path in pathlist:
            await self._rm_file(path)
        return pathlist
