"""Keeping many files that lie in memory."""

from __future__ import annotations

import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from benchmarks.place import Place
from statevault.state_persistence import PersistentStateMixin, StateStore

__all__ = ["FilesOfBoto3", "FilesOfS3fs", "PlainFiles", "StoredFiles", "TarFile", "TarOfBoto3", "WholeFiles"]

Contents = Mapping[str, bytes]

_THREADS = 10


class Files(ABC):
    """Saves files and reads them back.

    Args:
        place: Where.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def save(self, contents: Contents) -> None:
        """Return when all are saved."""

    @abstractmethod
    def restore(self, count: int) -> Contents:
        """Return what was saved last: that many files."""

    def close(self) -> None:  # noqa: B027 - most have none
        """Let go of connections."""


class Folder(PersistentStateMixin):
    """A component of plain files."""

    def __init__(self) -> None:
        self.contents: Contents = {}

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        for name, content in self.contents.items():
            (path / name).write_bytes(content)

    @override
    def load_state(self, path: Path) -> None:
        self.contents = {file.name: file.read_bytes() for file in path.iterdir()}


class StoredFiles(Files):
    """A store with one component."""

    incremental: ClassVar[bool] = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._folder = Folder()
        self._store = StateStore(place.url, storage_options=place.storage_options, incremental=self.incremental)
        self._store.register("files", self._folder)

    @override
    def save(self, contents: Contents) -> None:
        self._folder.contents = contents
        self._store.save_state()

    @override
    def restore(self, count: int) -> Contents:
        self._store.load_state("latest")
        return self._folder.contents

    @override
    def close(self) -> None:
        self._store.close()


class WholeFiles(StoredFiles):
    """Each save uploads everything."""

    incremental = False


class PlainFiles(Files):
    """A file for each, without fsync."""

    @override
    def save(self, contents: Contents) -> None:
        folder = self.place.folder
        for name, content in contents.items():
            (folder / name).write_bytes(content)

    @override
    def restore(self, count: int) -> Contents:
        return {file.name: file.read_bytes() for file in self.place.folder.iterdir()}


class TarFile(Files):
    """One file for all, without fsync."""

    @override
    def save(self, contents: Contents) -> None:
        (self.place.folder / "files.tar").write_bytes(_packed(contents))

    @override
    def restore(self, count: int) -> Contents:
        return _unpacked((self.place.folder / "files.tar").read_bytes())


class FilesOfS3fs(Files):
    """An object for each, by s3fs' own concurrency."""

    def __init__(self, place: Place) -> None:
        import s3fs  # noqa: PLC0415 - only where it is used

        super().__init__(place)
        self._filesystem: Any = s3fs.S3FileSystem(**place.storage_options, skip_instance_cache=True)

    @override
    def save(self, contents: Contents) -> None:
        self._filesystem.pipe({f"{self.place.url}/{name}": content for name, content in contents.items()})

    @override
    def restore(self, count: int) -> Contents:
        # Not recursively: JuiceFS lists folders as keys, which s3fs then tries to read.
        paths = [entry["name"] for entry in self._filesystem.ls(self.place.url, detail=True) if entry["size"]]
        found: dict[str, bytes] = self._filesystem.cat(paths)
        return {path.rpartition("/")[2]: content for path, content in found.items()}


class FilesOfBoto3(Files):
    """An object for each, by a pool of threads."""

    def __init__(self, place: Place) -> None:
        from benchmarks.methods.boto3_client import transfer_client  # noqa: PLC0415 - boto3 may be missing

        super().__init__(place)
        self._client = transfer_client(place)

    @override
    def save(self, contents: Contents) -> None:
        def put(name: str) -> None:
            self._client.put_object(Bucket=self.place.bucket, Key=f"{self.place.prefix}/{name}", Body=contents[name])

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(put, contents))

    @override
    def restore(self, count: int) -> Contents:
        def get(key: str) -> tuple[str, bytes]:
            answer = self._client.get_object(Bucket=self.place.bucket, Key=key)
            return key.rpartition("/")[2], answer["Body"].read()

        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.place.bucket, Prefix=f"{self.place.prefix}/"
        )
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]
        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(pool.map(get, keys))


class TarOfBoto3(Files):
    """One object for all."""

    def __init__(self, place: Place) -> None:
        from benchmarks.methods.boto3_client import transfer_client  # noqa: PLC0415 - boto3 may be missing

        super().__init__(place)
        self._client = transfer_client(place)

    @override
    def save(self, contents: Contents) -> None:
        self._client.upload_fileobj(io.BytesIO(_packed(contents)), self.place.bucket, f"{self.place.prefix}/files.tar")

    @override
    def restore(self, count: int) -> Contents:
        buffer = io.BytesIO()
        self._client.download_fileobj(self.place.bucket, f"{self.place.prefix}/files.tar", buffer)
        return _unpacked(buffer.getvalue())


def _packed(contents: Contents) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _unpacked(packed: bytes) -> Contents:
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {entry.name: opened.read() for entry in tar if (opened := tar.extractfile(entry)) is not None}
