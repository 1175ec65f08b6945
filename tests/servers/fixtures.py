"""The pytest fixtures: each server starts when a test first needs it and ends with the test run."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.commands import ACCESS_KEY, BUCKET, SECRET_KEY, STARTERS
from tests.servers.raw import GcsRaw, LocalRaw, MemoryRaw, S3Raw
from tests.servers.targets import StorageTarget, target_names

__all__ = ["Servers", "servers", "target"]


class Servers:
    """The servers of this test run.

    Args:
        folder: Where their data and logs go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = contextlib.ExitStack()
        self._endpoints: dict[str, str] = {}

    def endpoint(self, name: str) -> str:
        """The URL at which a server answers; it is started if it does not run yet."""
        if name not in self._endpoints:
            folder = self._folder / name
            folder.mkdir()
            self._endpoints[name] = self._running.enter_context(STARTERS[name](folder))
        return self._endpoints[name]

    def target(self, name: str) -> StorageTarget:
        """A fresh, empty place in a backend."""
        place = f"test-{uuid.uuid4().hex}"
        if name == "local":
            root = self._folder / "local" / place
            return StorageTarget(name, str(root), LocalRaw(root))
        if name == "memory":
            return StorageTarget(name, f"memory://{place}", MemoryRaw(place))
        if name == "fake-gcs":
            return self._gcs(name, self.endpoint(name), BUCKET, place)
        if name == "gcs-endpoint":
            bucket = os.environ.get("STATEVAULT_TEST_GCS_BUCKET", BUCKET)
            return self._gcs(name, os.environ["STATEVAULT_TEST_GCS_ENDPOINT"], bucket, place)
        if name == "s3-endpoint":
            bucket = os.environ.get("STATEVAULT_TEST_S3_BUCKET", BUCKET)
            keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
            return self._s3(name, os.environ["STATEVAULT_TEST_S3_ENDPOINT"], keys, bucket, place)
        return self._s3(name, self.endpoint(name), (ACCESS_KEY, SECRET_KEY), BUCKET, place)

    def close(self) -> None:
        """End all servers."""
        self._running.close()

    def _s3(self, name: str, endpoint: str, keys: tuple[str, str], bucket: str, place: str) -> StorageTarget:
        raw = S3Raw(endpoint, *keys, bucket, place)
        raw.make_bucket()
        options = {"endpoint_url": endpoint, "key": keys[0], "secret": keys[1]}
        return StorageTarget(name, f"s3://{bucket}/{place}", raw, options)

    def _gcs(self, name: str, endpoint: str, bucket: str, place: str) -> StorageTarget:
        raw = GcsRaw(endpoint, bucket, place)
        raw.make_bucket()
        return StorageTarget(name, f"gs://{bucket}/{place}", raw, {"endpoint_url": endpoint})


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """All servers; each starts when it is first used."""
    running = Servers(tmp_path_factory.mktemp("servers"))
    yield running
    running.close()


@pytest.fixture(params=target_names())
def target(request: pytest.FixtureRequest, servers: Servers) -> StorageTarget:
    """A fresh, empty place, on each backend in turn."""
    return servers.target(request.param)
