"""Every backend, against a real server, passes the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typing_extensions import override

from statevault.storage import Storage, open_storage, probe
from tests.servers import RawStore, StorageTarget
from tests.storage.contract import StorageContract

_CREATE_ONLY = {
    "local": True,
    "memory": True,
    "juicefs": False,
    "rclone": False,
    "moto": True,
    "seaweedfs": True,
    "fake-gcs": True,
}


class TestEveryBackend(StorageContract):
    """Runs on each backend in turn."""

    @override
    @pytest.fixture
    def storage(self, target: StorageTarget) -> Iterator[Storage]:
        opened = open_storage(target.url, target.storage_options)
        yield opened
        opened.close()

    @override
    @pytest.fixture
    def raw(self, target: StorageTarget) -> RawStore:
        return target.raw

    @override
    @pytest.fixture
    def replaces_atomically(self, target: StorageTarget) -> bool:
        # Seen with rclone 1.75: get answers NoSuchKey, and list nothing, while two writers replace an object.
        return target.name != "rclone"

    @override
    @pytest.fixture
    def keeps_backslashes(self, target: StorageTarget) -> bool:
        # Seen with SeaweedFS 4.48: it takes a backslash for a slash.
        return target.name != "seaweedfs"

    def test_the_probe_finds_out_about_create_only(self, storage: Storage, target: StorageTarget) -> None:
        if target.name in _CREATE_ONLY:
            assert probe(storage).create_only == _CREATE_ONLY[target.name]
