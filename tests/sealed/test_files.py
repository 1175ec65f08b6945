"""Sealed files on storages: atomic, verified, readable by the programs whose formats they are in."""

from __future__ import annotations

import io
import random
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import zstandard
from typing_extensions import override

from statevault.errors import CorruptStateError, ObjectNotFoundError, StagingSpaceError, StorageError
from statevault.sealed import SealedFiles
from statevault.storage import Body, RetryingStorage, RetryPolicy, open_storage
from tests.servers import StorageTarget
from tests.state_persistence.storages import DictStorage

PIECE = 8 * 1024**2


@pytest.fixture
def storage() -> DictStorage:
    return DictStorage()


def archive(*names: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name in names:
            file.writestr(name, random.Random(name).randbytes(100))
    return target.getvalue()


def test_what_was_put_comes_back_on_every_backend(target: StorageTarget) -> None:
    storage = open_storage(target.url, target.storage_options)
    files = SealedFiles(storage)
    content = random.Random(1).randbytes(PIECE + 12_345)
    put = files.put("folder/a.bin", io.BytesIO(content), {"epoch": 3})
    assert files.look("folder/a.bin") == put
    file, described = files.open("folder/a.bin")
    with file:
        assert file.read() == content
    assert described == put
    assert (described.size, described.info) == (len(content), {"epoch": 3})
    storage.close()


@pytest.mark.parametrize("size", [0, 1, 21, 22, 23, 70_000, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_files_of_any_size(storage: DictStorage, size: int) -> None:
    files = SealedFiles(storage)
    content = random.Random(size).randbytes(size)
    files.put("a", io.BytesIO(content), {"size": size})
    told: list[int] = []
    file, described = files.open("a", told.append)
    with file:
        assert file.read() == content
    assert described.info == {"size": size}
    assert sum(told) == len(storage.objects["a"])


@pytest.mark.parametrize("payload", [b"", b"payload", archive("one", "two")], ids=["empty", "bytes", "archive"])
def test_a_change_of_any_byte_is_noticed(storage: DictStorage, payload: bytes) -> None:
    files = SealedFiles(storage)
    files.put("a", io.BytesIO(payload), {"kind": "test"})
    whole = storage.objects["a"]
    for place in range(len(whole)):
        for bit in (1, 0x80):
            changed = bytearray(whole)
            changed[place] ^= bit
            storage.objects["a"] = bytes(changed)
            try:
                described = files.verify("a")
            except CorruptStateError:
                continue
            # What is left can only be a file that no longer claims to be a sealed one.
            assert described.info is None


def test_a_file_that_is_cut_has_no_seal(storage: DictStorage) -> None:
    files = SealedFiles(storage)
    files.put("a", io.BytesIO(b"payload"), {})
    whole = storage.objects["a"]
    for end in range(len(whole)):
        storage.objects["a"] = whole[:end]
        assert files.verify("a").info is None
        assert files.look("a").info is None


def test_torch_reads_a_sealed_archive(storage: DictStorage) -> None:
    module = torch.nn.Linear(3, 4)
    target = io.BytesIO()
    torch.save(module.state_dict(), target)
    SealedFiles(storage).put("policy.pt", target, {"epoch": 1})
    loaded = torch.load(io.BytesIO(storage.objects["policy.pt"]), weights_only=True)
    assert all(torch.equal(loaded[name], value) for name, value in module.state_dict().items())
    with zipfile.ZipFile(io.BytesIO(storage.objects["policy.pt"])) as file:
        assert file.testzip() is None
        assert file.comment


@pytest.mark.parametrize("comment", [b"", b"a comment of its own"])
def test_an_archive_comes_back_as_it_was(storage: DictStorage, comment: bytes) -> None:
    target = io.BytesIO(archive("one"))
    if comment:
        with zipfile.ZipFile(target, "a") as file:
            file.comment = comment
    before = target.getvalue()
    SealedFiles(storage).put("a.zip", target, {})
    file_, _ = SealedFiles(storage).open("a.zip")
    with file_:
        assert file_.read() == before


def test_zstd_reads_a_sealed_frame(storage: DictStorage) -> None:
    frame = zstandard.ZstdCompressor().compress(b"content" * 100)
    SealedFiles(storage).put("a.zst", io.BytesIO(frame), {"kind": "test"})
    stored = storage.objects["a.zst"]
    assert zstandard.ZstdDecompressor().decompress(stored) == b"content" * 100
    with zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True) as stream:
        assert stream.read() == b"content" * 100


def test_a_long_seal_is_read_by_a_second_look(storage: DictStorage) -> None:
    info = {"text": "x" * 60_000}
    SealedFiles(storage).put("a", io.BytesIO(b"payload"), info)
    assert SealedFiles(storage).look("a").info == info


def test_a_put_that_fails_at_first_seals_the_whole_at_the_second_try() -> None:
    class Broken(DictStorage):
        tries = 0

        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            self.tries += 1
            if self.tries == 1:
                assert not isinstance(body, Iterator)
                next(iter(body))
                raise StorageError("the connection broke", transient=True)
            return super().put(key, body, create_only=create_only)

    storage = Broken()
    files = SealedFiles(RetryingStorage(storage, RetryPolicy(first_delay_s=0.0)))
    files.put("a", io.BytesIO(b"x" * (PIECE + 1)), {})
    assert storage.tries == 2
    assert files.verify("a").size == PIECE + 1


def test_a_file_that_is_replaced_while_it_is_read_is_read_again() -> None:
    class Replaced(DictStorage):
        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            found = super().get(key, start, end)
            if later:
                self.objects[key] = later.pop()
            return found

    storage, other = Replaced(), DictStorage()
    later: list[bytes] = []
    for content, place in ((b"a" * (PIECE + 9), storage), (b"b" * (PIECE + 9), other)):
        SealedFiles(place).put("k", io.BytesIO(content), {})
    later.append(other.objects["k"])
    file, _ = SealedFiles(storage).open("k")
    with file:
        assert file.read(3) == b"bbb"


@pytest.mark.parametrize("size", [3, PIECE + 9, 2 * PIECE])
def test_a_file_that_is_replaced_before_it_is_read_is_the_new_one(size: int) -> None:
    class Replaced(DictStorage):
        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            if later:
                self.objects[key] = later.pop()
            return super().get(key, start, end)

    storage, other = Replaced(), DictStorage()
    later: list[bytes] = []
    SealedFiles(storage).put("k", io.BytesIO(b"a" * PIECE), {"is": "old"})
    SealedFiles(other).put("k", io.BytesIO(b"b" * size), {"is": "new"})
    later.append(other.objects["k"])
    file, described = SealedFiles(storage).open("k")
    with file:
        assert file.read() == b"b" * size
    assert described.info == {"is": "new"}


def test_a_file_that_is_not_there_is_told(storage: DictStorage) -> None:
    for call in (SealedFiles(storage).open, SealedFiles(storage).verify, SealedFiles(storage).look):
        with pytest.raises(ObjectNotFoundError):
            call("nothing")


@pytest.mark.parametrize("size", [PIECE - 50_000, PIECE - 20, 2 * PIECE - 1])
def test_a_seal_that_lies_in_two_pieces_is_checked(storage: DictStorage, size: int) -> None:
    files = SealedFiles(storage)
    put = files.put("a", io.BytesIO(bytes(size)), {"text": "x" * 60_000})
    assert files.verify("a") == put
    whole = storage.objects["a"]
    for place in (0, size - 1, size + 100, len(whole) - 50):
        changed = bytearray(whole)
        changed[place] ^= 1
        storage.objects["a"] = bytes(changed)
        with pytest.raises(CorruptStateError):
            files.verify("a")


def test_verifying_takes_no_room_and_the_lack_of_it_is_told(
    storage: DictStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SealedFiles(storage)
    put = files.put("a", io.BytesIO(bytes(65 * 1024**2)), {})
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert files.verify("a") == put
    with pytest.raises(StagingSpaceError, match=r"of a can't be kept in .*gone .*TMPDIR"):
        files.open("a")
    with pytest.raises(StagingSpaceError):
        files.copy("a", DictStorage())
