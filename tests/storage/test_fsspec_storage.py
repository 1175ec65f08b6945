"""Filesystems of fsspec that have no storage of their own; here its local one, with real folders and streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from statevault.errors import ObjectExistsError, StorageError
from statevault.storage import FsspecStorage

_BIG = (20 << 20) + 3


@pytest.fixture
def storage(tmp_path: Path) -> FsspecStorage:
    return FsspecStorage(f"file://{tmp_path}")


@pytest.mark.parametrize("size", [3, _BIG], ids=["small", "big"])
def test_a_missing_folder_is_made(storage: FsspecStorage, tmp_path: Path, size: int) -> None:
    assert storage.put("a/b/key", bytes(size)) == size
    assert (tmp_path / "a/b/key").stat().st_size == size
    assert storage.get("a/b/key", size - 2) == bytes(2)


def test_a_stream_that_fails_publishes_nothing(storage: FsspecStorage, tmp_path: Path) -> None:
    def body() -> Iterator[bytes]:
        yield bytes(_BIG)
        yield bytes(_BIG)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        storage.put("key", body())
    assert list(tmp_path.iterdir()) == []


def test_a_stream_does_not_replace_what_is_there_if_told_so(storage: FsspecStorage) -> None:
    storage.put("key", bytes(_BIG), create_only=True)
    with pytest.raises(ObjectExistsError):
        storage.put("key", bytes(_BIG), create_only=True)


def test_no_error_of_the_filesystem_comes_out(storage: FsspecStorage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        storage.put("file/key", b"x")


def test_an_object_in_memory_is_never_seen_before_it_is_whole() -> None:
    """fsspec's own way, to open and write, shows an empty file at once."""
    storage = FsspecStorage("memory://never-seen")

    def body() -> Iterator[bytes]:
        for _ in range(3):
            assert not storage.exists("key")
            yield bytes(10 << 20)

    storage.put("key", body())
    assert storage.head("key").size == 30 << 20
    with MemoryFileSystem().open("/never-seen/other", "wb"):
        assert storage.head("other").size == 0
    storage.delete(["key", "other"])


def test_bytes_in_memory_are_a_copy() -> None:
    storage = FsspecStorage("memory://copied")
    source = bytearray(b"abc")
    storage.put("key", source)
    source[:] = b"xyz"
    assert storage.get("key") == b"abc"


def test_folders_are_listed_in_the_order_of_their_names(
    storage: FsspecStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that is committed and removed while they are listed must not look visible."""
    for key in ("_vault/tombstones/old", "_vault/commits/old", "_vault/format.json"):
        storage.put(key, b"x")
    find = LocalFileSystem.find

    def slow_find(self: LocalFileSystem, path: str, **options: object) -> object:
        found = find(self, path, **options)
        if path.endswith("commits"):
            storage.put("_vault/tombstones/new", b"x")
        return found

    monkeypatch.setattr(LocalFileSystem, "find", slow_find)
    listed = [info.key for info in storage.list("_vault/")]
    assert listed == ["_vault/commits/old", "_vault/format.json", "_vault/tombstones/new", "_vault/tombstones/old"]
