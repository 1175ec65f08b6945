"""Looking at what is in a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from benchmarks.place import Place
from statevault.state_persistence import StateStore

__all__ = ["Boto3Listing", "FolderListing", "Listing", "S3fsListing", "StoreListing"]

_MARKERS = "_vault/commits"


class Listing(ABC):
    """Finds states.

    Args:
        place: A store.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def all(self) -> Sequence[Any]:
        """Find all."""

    def latest(self) -> Any:
        """Find the newest."""
        return max(self.all())

    def count(self) -> int:
        """Find all; how many there are."""
        return len(self.all())

    def close(self) -> None:  # noqa: B027 - most have none
        """Let go of connections."""


class StoreListing(Listing):
    """The store's own methods."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._store = StateStore(place.url, storage_options=place.storage_options)

    @override
    def latest(self) -> Any:
        return self._store.latest()

    @override
    def all(self) -> Sequence[Any]:
        return self._store.states()

    @override
    def close(self) -> None:
        self._store.close()


class FolderListing(Listing):
    """The files of a folder, with their times."""

    @override
    def all(self) -> list[tuple[float, str]]:
        return [(file.stat().st_mtime, file.name) for file in (self.place.folder / _MARKERS).glob("*")]


class S3fsListing(Listing):
    """``ls`` of s3fs, without its cache."""

    def __init__(self, place: Place) -> None:
        import s3fs  # noqa: PLC0415 - only where it is used

        super().__init__(place)
        self._filesystem: Any = s3fs.S3FileSystem(
            **place.storage_options, skip_instance_cache=True, use_listings_cache=False
        )

    @override
    def all(self) -> list[str]:
        return [entry["name"] for entry in self._filesystem.ls(f"{self.place.url}/{_MARKERS}", detail=True)]


class Boto3Listing(Listing):
    """The bare requests."""

    def __init__(self, place: Place) -> None:
        from benchmarks.methods.boto3_client import transfer_client  # noqa: PLC0415 - boto3 may be missing

        super().__init__(place)
        self._client = transfer_client(place)

    @override
    def all(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.place.bucket, Prefix=f"{self.place.prefix}/{_MARKERS}/"
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]
