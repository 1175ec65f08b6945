"""Small files are put together: few requests, and every byte comes back as from files of their own."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from statevault.codecs import decompress_chunk
from statevault.errors import CorruptStateError, StorageError
from statevault.format.keys import manifest_key
from statevault.format.manifest import ENCODING_PLAIN, ENCODING_ZSTD, Manifest
from statevault.state_persistence import StateStore
from statevault.state_persistence.publish.new_objects import MIN_PACKED_FILES, PACK_SIZE, SMALL_SIZE
from statevault.storage import Body
from tests.profiles import rounds
from tests.servers import StorageTarget
from tests.state_persistence.components import Files, Folder, store_with
from tests.state_persistence.storages import (
    FAILURES,
    DictStorage,
    FailingStorage,
    Failure,
    ProcessDiedError,
    WatchedStorage,
)

NOISE = random.Random(0)


def small_files(count: int = 100, *, seed: int = 0) -> Files:
    """Files of noise, of text and of nothing, some of them in folders."""
    source = random.Random(seed)
    files: Files = {}
    for number in range(count):
        folder = f"folder {number % 3}/" if number % 4 else ""
        size = source.randint(1, 3000)
        content = source.randbytes(size) if number % 5 else f"line {seed}\n".encode() * size
        files[f"{folder}{number:04}.bin"] = content
    return files


def manifest_of(storage: DictStorage, state: str) -> Manifest:
    with StateStore(storage) as store:
        return store.open_state(state).manifest


def data_of(storage: DictStorage, state: str) -> list[str]:
    return sorted(key for key in storage.objects if key.startswith(f"{state}/") and key != manifest_key(state))


def loaded(storage: DictStorage, state: str) -> Files:
    """By somebody who has seen nothing of it before."""
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        store.verify(state)
        store.load_state(state)
    return folder.files


def test_many_small_files_are_one_object() -> None:
    storage = DictStorage()
    files = small_files()
    with store_with(storage, folder=Folder(files)) as store:
        info = store.info(store.save_state(name="a.state").name)
    first = min(path for path in files)
    (key,) = data_of(storage, "a.state")
    assert key == f"a.state/folder/{first}.part", "nobody must take it for the file"
    assert info.new_size == info.stored_size == len(storage.objects[key])
    assert loaded(storage, "a.state") == files


def test_an_object_of_small_files_is_what_the_format_says() -> None:
    """Read without our own reader: file after file, each of them compressed or not."""
    storage = DictStorage()
    files = small_files()
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
    manifest = manifest_of(storage, "a.state")
    stored = storage.objects[manifest.objects[0].key]
    end = 0
    encodings = Counter[int]()
    for entry in manifest.files:
        (chunk,) = entry.chunks
        assert (chunk.object, chunk.offset) == (0, end)
        end += chunk.stored
        piece = stored[chunk.offset : end]
        content = piece if chunk.encoding == ENCODING_PLAIN else decompress_chunk(piece, size=chunk.size)
        assert bytes(content) == files[entry.path.removeprefix("folder/")]
        encodings[chunk.encoding] += 1
    assert end == len(stored)
    assert encodings == {ENCODING_PLAIN: 80, ENCODING_ZSTD: 20}


@pytest.mark.parametrize("large", [0, 3])
def test_few_small_files_keep_their_names(large: int) -> None:
    storage = DictStorage()
    files = {f"{number:02}.bin": NOISE.randbytes(100) for number in range(MIN_PACKED_FILES - 1)}
    files |= {f"large{number}.bin": NOISE.randbytes(SMALL_SIZE) for number in range(large)}
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
    assert data_of(storage, "a.state") == sorted(f"a.state/folder/{name}" for name in files)
    assert all(storage.objects[f"a.state/folder/{name}"] == content for name, content in files.items())


def test_large_files_and_empty_ones_stay_outside() -> None:
    storage = DictStorage()
    files = small_files(MIN_PACKED_FILES) | {"0 first.bin": NOISE.randbytes(SMALL_SIZE), "empty": b""}
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
    first = min(small_files(MIN_PACKED_FILES))
    assert data_of(storage, "a.state") == [
        "a.state/folder/0 first.bin".replace(" ", "%20"),
        f"a.state/folder/{first}.part",
    ]
    assert loaded(storage, "a.state") == files


def test_an_object_of_small_files_is_bounded() -> None:
    storage = DictStorage()
    size = SMALL_SIZE - 1
    count = PACK_SIZE // size * 3
    files = {f"{number:04}.bin": NOISE.randbytes(size) for number in range(count)}
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
    sizes = [len(storage.objects[key]) for key in data_of(storage, "a.state")]
    assert sum(sizes) == count * size
    assert len(sizes) == 3
    assert max(sizes) < PACK_SIZE + SMALL_SIZE
    assert loaded(storage, "a.state") == files


def test_what_remains_alone_is_the_file() -> None:
    storage = DictStorage()
    size = SMALL_SIZE - 1
    in_one = -(-PACK_SIZE // size)
    files = {f"{number:04}.bin": NOISE.randbytes(size) for number in range(in_one + 1)}
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
    last = max(files)
    assert data_of(storage, "a.state") == ["a.state/folder/0000.bin.part", f"a.state/folder/{last}"]
    assert storage.objects[f"a.state/folder/{last}"] == files[last]


def test_names_that_are_taken_are_left_to_their_files() -> None:
    storage = DictStorage()
    files = {f"{number:04}.bin": NOISE.randbytes(50) for number in range(MIN_PACKED_FILES)}
    large = {"0000.bin.part": NOISE.randbytes(SMALL_SIZE), "0000.bin.part~": NOISE.randbytes(SMALL_SIZE)}
    with store_with(storage, folder=Folder(files | large)) as store:
        store.save_state(name="a.state")
    assert data_of(storage, "a.state") == [
        "a.state/folder/0000.bin.part",
        "a.state/folder/0000.bin.part~",
        "a.state/folder/0000.bin.part~~",
    ]
    assert loaded(storage, "a.state") == files | large


def test_what_changed_is_uploaded_and_no_more() -> None:
    storage = DictStorage()
    folder = Folder(small_files())
    with store_with(storage, folder=folder) as store:
        store.save_state(name="a.state")
        before = dict(folder.files)
        changed = next(iter(folder.files))
        folder.files[changed] = NOISE.randbytes(500)
        store.save_state(name="b.state")
        info = store.info("b.state")
        assert (info.new_size, info.base) == (500, "a.state")
        assert data_of(storage, "b.state") == [f"b.state/folder/{changed}"]
        store.remove(["a.state"])
        assert data_of(storage, "a.state") != [], "the other files lie there"
    assert before != folder.files
    assert loaded(storage, "b.state") == folder.files


def test_an_object_of_which_little_is_needed_is_let_go() -> None:
    storage = DictStorage()
    folder = Folder(small_files())
    with store_with(storage, folder=folder) as store:
        store.save_state(name="a.state")
        for name in list(folder.files)[10:]:
            del folder.files[name]
        store.save_state(name="b.state")
        assert store.info("b.state").base is None
        store.remove(["a.state"])
    assert data_of(storage, "a.state") == []
    assert loaded(storage, "b.state") == folder.files


def test_loading_many_small_files_takes_few_requests() -> None:
    storage = WatchedStorage(DictStorage())
    with store_with(storage, folder=Folder(small_files(300))) as store:
        store.save_state(name="a.state")
        puts = [call for call in storage.calls if call.startswith("put a.state/")]
        assert len(puts) == 2  # one of data, and the manifest
        storage.calls.clear()
        store.load_state("a.state")
    assert len([call for call in storage.calls if call.startswith("get a.state/")]) <= 2


def test_one_component_of_many_small_files_is_read_alone() -> None:
    storage = DictStorage()
    one, other = Folder(small_files(50, seed=1)), Folder(small_files(50, seed=2))
    with store_with(storage, one=one, other=other) as store:
        store.save_state(name="a.state")
    fresh = Folder()
    with store_with(storage, one=fresh) as store:
        store.load_state("a.state", components=["one"])
    assert fresh.files == one.files


def history_of(seed: int, changes: list[tuple[int, float]]) -> list[Files]:
    """Some states of a folder, each made from the one before.

    Args:
        seed: Of everything.
        changes: For each state how many files are written, and which part of all goes away.
    """
    source = random.Random(seed)
    files: Files = {}
    states = []
    for written, removed in changes:
        for _ in range(written):
            size = source.choice([0, 1, 40, 3000, SMALL_SIZE - 1, SMALL_SIZE])
            files[f"{source.randrange(4 * MIN_PACKED_FILES):03}"] = (
                source.randbytes(size) if source.random() < 0.5 else bytes(size)
            )
        for name in source.sample(sorted(files), int(removed * len(files))):
            del files[name]
        states.append(dict(files))
    return states


@settings(max_examples=rounds(15, 500), deadline=None)
@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(0, 3 * MIN_PACKED_FILES), st.floats(0, 0.5)), min_size=1, max_size=4),
)
def test_whatever_the_files_all_states_come_back(seed: int, changes: list[tuple[int, float]]) -> None:
    storage = DictStorage()
    folder = Folder()
    names = []
    history = history_of(seed, changes)
    with store_with(storage, folder=folder) as store:
        for number, files in enumerate(history):
            folder.files = dict(files)
            names.append(store.save_state(name=f"{number}.state").name)
            small = [len(file) for file in files.values() if 0 < len(file) < SMALL_SIZE]
            packs = sum(small) // PACK_SIZE + 1
            large = sum(len(file) >= SMALL_SIZE for file in files.values())
            assert len(data_of(storage, names[-1])) <= large + max(MIN_PACKED_FILES - 1, packs)
    for name, files in zip(names, history, strict=True):
        assert loaded(storage, name) == files
    with StateStore(storage) as store:
        store.remove(names[:-1])
    assert loaded(storage, names[-1]) == history[-1]


def test_a_put_that_is_tried_again_while_files_are_still_being_read() -> None:
    class Retries(DictStorage):
        """Each put fails where it is in the middle of the files, as a connection that broke, and is tried again."""

        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            if not isinstance(body, bytes):
                for stop in (1, 30, 99):
                    for number, _ in enumerate(body):
                        if number == stop:
                            break
            return super().put(key, body, create_only=create_only)

    storage = Retries()
    files = small_files()
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
    assert loaded(storage, "a.state") == files


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("dies", [False, True])
def test_a_failure_at_any_call_of_a_save_leaves_all_or_nothing(failure: Failure, dies: bool) -> None:
    saved = DictStorage()
    with store_with(saved, folder=Folder(small_files())) as store:
        store.save_state(name="old.state")
    number = 0
    while True:
        number += 1
        storage = saved.copy()
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=dies)
        store = store_with(failing, folder=Folder(small_files(seed=1)))
        acknowledged = False
        try:
            store.save_state(name="new.state")
            acknowledged = True
        except (ProcessDiedError, StorageError):
            pass
        finally:
            store._staging.close()
        failing.land()
        with StateStore(storage) as reader:
            names = reader.names()
        assert loaded(storage, "old.state") == small_files()
        assert "new.state" in names or not acknowledged
        if "new.state" in names:
            assert loaded(storage, "new.state") == small_files(seed=1)
        if len(failing.calls) < number:
            break


def test_one_lost_object_is_damage_that_is_named_and_healed() -> None:
    storage = DictStorage()
    folder = Folder(small_files())
    with store_with(storage, folder=folder) as store:
        store.save_state(name="a.state")
        (key,) = data_of(storage, "a.state")
        storage.objects[key] = storage.objects[key][:-1]
        with pytest.raises(CorruptStateError, match="has fewer than"):
            store.verify("a.state")
        store.save_state(name="b.state")
    assert loaded(storage, "b.state") == folder.files


def test_a_copy_puts_small_files_together_and_takes_them_apart(tmp_path: Path) -> None:
    storage = DictStorage()
    files = small_files()
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
        with StateStore(tmp_path / "copy") as copy:
            store.copy_states(copy)
            copy.verify("a.state")
            back = DictStorage()
            with StateStore(back) as returned:
                copy.copy_states(returned)
    assert loaded(back, "a.state") == files
    assert storage.objects[data_of(storage, "a.state")[0]] == back.objects[data_of(back, "a.state")[0]]


def test_small_files_come_back_from_every_backend(target: StorageTarget) -> None:
    folder = Folder(small_files(200))
    files = dict(folder.files)
    with StateStore(target.url, storage_options=target.storage_options) as store:
        store.register("folder", folder)
        store.save_state(name="a.state")
        folder.files["0000.bin"] = b"changed"
        store.save_state(name="b.state")
        store.load_state("a.state")
        assert folder.files == files
        store.remove(["a.state"])
        store.load_state("b.state")
        assert folder.files == files | {"0000.bin": b"changed"}
