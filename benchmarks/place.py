"""Where a method writes: a folder of the local disk, or a prefix in a bucket of an S3 server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place that a method has for itself; it can be sent to another process.

    Attributes:
        url: A path, or ``s3://bucket/prefix``.
        endpoint: The S3 server's URL; empty for a local folder.
        key: The access key there.
        secret: The secret key there.
    """

    url: str
    endpoint: str = ""
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    @property
    def is_remote(self) -> bool:
        """Whether it lies in a bucket."""
        return bool(self.endpoint)

    @property
    def folder(self) -> Path:
        """The local folder; made if need be."""
        path = Path(self.url)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """The part of the URL behind the bucket."""
        return self.url.removeprefix("s3://").partition("/")[2]

    @property
    def storage_options(self) -> Mapping[str, Any]:
        """What fsspec needs to reach it."""
        if not self.is_remote:
            return {}
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def below(self, name: str) -> Self:
        """Return the place of that name in this one."""
        return replace(self, url=f"{self.url}/{name}")

    def through(self, endpoint: str) -> Self:
        """Return the same place, reached by another way."""
        return replace(self, endpoint=endpoint)
