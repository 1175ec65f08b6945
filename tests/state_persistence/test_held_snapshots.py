"""Snapshots that are held in memory, in a store: what is committed is what was at the instant of the cut."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from statevault.codecs import real_files
from statevault.data.impls import SequentialBuffer
from statevault.errors import FormatError, UnsupportedTypeError
from statevault.state_persistence import PersistentStateMixin, StateStore, read_tree, write_tree
from statevault.state_persistence.snapshot import staging as staging_module
from statevault.storage import Body
from statevault.storage.wrapper import StorageWrapper
from tests.state_persistence.storages import DictStorage

MIB = 1024**2


class Model(PersistentStateMixin):
    """An array that changes in place, as parameters do."""

    def __init__(self, size: int = 3 * MIB) -> None:
        self.weights = np.zeros(size, np.uint8)

    @override
    def save_state(self, path: Path) -> None:
        write_tree(self.weights, path.with_suffix(".tree"), held=True)

    @override
    def load_state(self, path: Path) -> None:
        self.weights[:] = read_tree(path.with_suffix(".tree"))


class SlowStorage(DictStorage):
    """Takes a large object slowly, piece by piece, and only when it is told to begin."""

    def __init__(self) -> None:
        super().__init__()
        self.begins = threading.Event()

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        if isinstance(body, bytes | bytearray | memoryview):
            return super().put(key, body, create_only=create_only)
        self.begins.wait(300)
        taken = []
        for piece in body:
            time.sleep(0.01)
            taken.append(bytes(piece))
        return super().put(key, b"".join(taken), create_only=create_only)


def noise(seed: int, size: int = 3 * MIB) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_a_snapshot_is_not_written_over_while_it_is_published() -> None:
    """One is published and one waits, while the tensors change and the next one is taken."""
    storage, model = SlowStorage(), Model()
    with StateStore(storage) as store:
        store.register("model", model)
        saves = []
        for seed in range(6):
            model.weights[:] = noise(seed)
            saves.append(store.save_state_async(name=f"{seed}.state"))
            model.weights[:] = 255
            storage.begins.set()
            if seed % 2:
                saves[-1].result()
        store.wait()
        kept = {info.name for info in store.states()}
        assert {"1.state", "3.state", "5.state"} <= kept
        for name in kept:
            store.load_state(name)
            assert np.array_equal(model.weights, noise(int(name[0])))
            store.verify(name)


def test_memory_that_served_a_larger_snapshot_leaves_nothing_in_a_smaller_one() -> None:
    model = Model()
    with StateStore(DictStorage()) as store:
        store.register("model", model)
        for seed, size in enumerate([5 * MIB, 4 * MIB + 1, 5 * MIB - 7, MIB + 1]):
            model.weights = noise(seed, size)
            name = store.save_state().name
            model.weights = np.zeros(size, np.uint8)
            store.load_state(name)
            assert np.array_equal(model.weights, noise(seed, size))


class Packing(PersistentStateMixin):
    """Packs what its part has saved into an archive."""

    def __init__(self, part: SequentialBuffer[object], *, real: bool) -> None:
        self.part = part
        self.real = real

    @override
    def save_state(self, path: Path) -> None:
        path.mkdir()
        if self.real:
            with real_files():
                self.part.save_state(path / "part")
        else:
            self.part.save_state(path / "part")
        shutil.make_archive(str(path / "all"), "tar", path, "part.tree")
        (path / "part.tree").unlink()

    @override
    def load_state(self, path: Path) -> None:
        shutil.unpack_archive(path / "all.tar", path, filter="data")
        self.part.load_state(path / "part")


def test_who_packs_the_files_of_a_part_lets_it_write_real_ones() -> None:
    part: SequentialBuffer[object] = SequentialBuffer(max_size=2000)
    part.extend([noise(seed, 1000) for seed in range(1500)])
    packing = Packing(part, real=False)
    with StateStore(DictStorage()) as store:
        store.register("packing", packing)
        with pytest.raises(UnsupportedTypeError, match="real_files"):
            store.save_state()
        assert store.states() == []
        packing.real = True
        store.save_state()
        packing.part = SequentialBuffer(max_size=2000)
        store.load_state()
        assert np.array_equal(packing.part.get_data()[1499], noise(1499, 1000))


def test_a_folder_with_a_stub_is_not_imported(tmp_path: Path) -> None:
    class Keeping(Model):
        @override
        def save_state(self, path: Path) -> None:
            super().save_state(path)
            shutil.copy(path.with_suffix(".tree"), tmp_path / "kept")

    (tmp_path / "kept").mkdir()
    with StateStore(DictStorage()) as store:
        store.register("model", Keeping())
        store.save_state()
        with pytest.raises(FormatError, match="held in memory"):
            store.import_folder(tmp_path / "kept")


class Xor(StorageWrapper):
    """Changes what is put, and back what is got; knows no other way to read."""

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        data = body if isinstance(body, bytes) else b"".join(bytes(piece) for piece in body)
        return super().put(key, bytes(byte ^ 1 for byte in data), create_only=create_only)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return bytes(byte ^ 1 for byte in super().get(key, start, end))


def test_all_that_is_read_goes_through_a_wrapper() -> None:
    model = Model(1000)
    model.weights[:] = noise(1, 1000)
    with StateStore(Xor(DictStorage())) as store:
        store.register("model", model)
        store.save_state()
        model.weights[:] = 0
        store.load_state()
    assert np.array_equal(model.weights, noise(1, 1000))


@pytest.mark.parametrize("prepare", [lambda store: store.load_state(), lambda store: None])
def test_a_large_buffer_needs_no_room_for_a_snapshot(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[[StateStore], object]
) -> None:
    storage = DictStorage()
    buffer: SequentialBuffer[object] = SequentialBuffer(max_size=30_000)
    buffer.extend([noise(seed % 7, 1000) for seed in range(20_000)])
    with StateStore(storage) as store:
        store.register("buffer", buffer)
        store.save_state()
    with StateStore(storage) as store:
        store.register("buffer", buffer)
        prepare(store)
        monkeypatch.setattr(staging_module, "_room", lambda root: 80 * MIB)
        for seed in range(3):
            buffer.add(noise(seed, 1000))
            store.save_state()


def test_spare_memory_is_no_room_for_a_state_that_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is given back, and if that is not enough the state goes elsewhere."""
    model = Model(80 * MIB)
    with StateStore(DictStorage()) as store:
        store.register("model", model)
        store.save_state()
        memory = store._staging._memory
        assert memory.spare_size > 80 * MIB
        monkeypatch.setattr(staging_module, "available_memory", lambda: 200 * MIB)
        folders = []
        monkeypatch.setattr(Model, "load_state", lambda self, path: folders.append(path))
        store.load_state()
        assert memory.spare_size == 0
        assert not folders[0].is_relative_to("/dev/shm")
