"""Where a test may store things: one value per backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.servers.commands import STARTERS
from tests.servers.raw import RawStore

__all__ = ["S3_SERVERS", "SERVER_NAMES", "StorageTarget", "target_names"]

SERVER_NAMES = tuple(STARTERS)
S3_SERVERS = ("juicefs", "rclone", "moto", "seaweedfs")


@dataclass(frozen=True, slots=True)
class StorageTarget:
    """An empty place in one backend.

    Attributes:
        name: Of the backend: ``local``, ``memory``, ``juicefs``, …
        url: The root to give to a store.
        storage_options: To give with it.
        raw: What really lies there.
    """

    name: str
    url: str
    raw: RawStore
    storage_options: Mapping[str, Any] = field(default_factory=dict)


def target_names() -> tuple[str, ...]:
    """The backends that this test run uses."""
    names = ["local", "memory"]
    if os.environ.get("STATEVAULT_TEST_SKIP_SERVERS") != "1":
        names += SERVER_NAMES
    if os.environ.get("STATEVAULT_TEST_S3_ENDPOINT"):
        names.append("s3-endpoint")
    if os.environ.get("STATEVAULT_TEST_GCS_ENDPOINT"):
        names.append("gcs-endpoint")
    return tuple(names)
