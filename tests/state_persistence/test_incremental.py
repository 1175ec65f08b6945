"""Saves that upload only what changed: what is reused, what that costs, and what it must never cost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from statevault.data import DataBuffer
from statevault.data.impls import RandomReplacementBuffer, SequentialBuffer
from statevault.errors import CorruptStateError, StateNotFoundError
from statevault.format.chunking import CHUNK_UNIT
from statevault.format.keys import StateKey, commit_key, folder_of, manifest_key, tombstone_key
from statevault.format.manifest import Chunk, Manifest, ObjectEntry
from statevault.format.records import TombstoneRecord
from statevault.state_persistence import PersistentStateMixin, StateInfo, StateStore, read_tree, write_tree
from statevault.state_persistence.pruning.prune import prune
from statevault.state_persistence.publish.object_names import object_names
from statevault.state_persistence.publish.reuse import MAX_DEAD_RATIO, MAX_FOLDERS, worth_reusing
from statevault.state_persistence.records.catalog import Catalog
from statevault.storage import Body
from tests.profiles import rounds
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.storages import DictStorage, FailingStorage
from tests.state_persistence.test_prune import NOW, MeddlingStorage


def blob(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def saved(store: StateStore, name: str | None = None) -> StateInfo:
    return store.info(store.save_state(name=name).name)


def check_whole(storage: DictStorage, contents: dict[str, dict[str, bytes]]) -> None:
    """Every state, loaded by somebody who has seen nothing of it before."""
    for name, files in contents.items():
        folder = Folder()
        with store_with(storage, folder=folder) as store:
            store.load_state(name)
        assert folder.files == files, name


def test_what_did_not_change_is_not_uploaded() -> None:
    storage = DictStorage()
    files = some_files(1)
    with store_with(storage, folder=Folder(files)) as store:
        first = saved(store)
        second = saved(store)
    assert (first.base, first.new_size) == (None, first.stored_size)
    assert (second.base, second.new_size) == (first.name, 0)
    assert second.size == first.size
    assert second.stored_size <= first.stored_size  # equal chunks of two files need to be there only once
    assert [key for key in storage.objects if key.startswith(second.name)] == [manifest_key(second.name)]
    check_whole(storage, {first.name: files, second.name: files})


def test_of_a_file_that_changed_in_one_place_one_chunk_is_uploaded() -> None:
    storage = DictStorage()
    content = bytearray(blob(1, 5 * CHUNK_UNIT))
    folder = Folder({"weights.bin": bytes(content)})
    with store_with(storage, folder=folder) as store:
        first = saved(store)
        content[3 * CHUNK_UNIT + 17] ^= 1
        folder.files = {"weights.bin": bytes(content)}
        second = saved(store)
    assert second.new_size == CHUNK_UNIT
    # What holds a part of a file does not go by the file's name.
    assert f"{second.name}/folder/weights.bin.part" in storage.objects
    check_whole(storage, {first.name: {"weights.bin": blob(1, 5 * CHUNK_UNIT)}, second.name: dict(folder.files)})


def test_a_renamed_file_costs_nothing() -> None:
    storage = DictStorage()
    folder = Folder({"a.bin": blob(1, 3 * CHUNK_UNIT)})
    with store_with(storage, folder=folder) as store:
        saved(store)
        folder.files = {"deep/b.bin": folder.files["a.bin"]}
        assert saved(store).new_size == 0


def test_incremental_false_uploads_everything() -> None:
    storage = DictStorage()
    with StateStore(storage, incremental=False) as store:
        store.register("folder", Folder(some_files(1)))
        for _ in range(2):
            state = saved(store)
            assert (state.base, state.new_size) == (None, state.stored_size)
            assert Catalog(storage).record(StateKey(state.sequence, state.name)).reuses == []


def test_the_base_is_what_this_writer_saved_or_loaded_last_then_the_newest() -> None:
    storage = DictStorage()
    mine, other = Folder(some_files(1)), Folder({"other.bin": blob(7, 5000)})
    with store_with(storage, folder=mine) as first, store_with(storage, folder=other) as second:
        a = saved(first, "a.state")
        saved(second, "b.state")
        assert saved(first, "c.state").base == a.name
        second.load_state("a.state")
        assert saved(second, "d.state").base == "a.state"
    with store_with(storage, folder=Folder(some_files(1))) as restarted:
        assert saved(restarted, "e.state").base == "d.state"


def test_a_base_that_has_nothing_in_common_is_none() -> None:
    storage = DictStorage()
    folder = Folder({"x": blob(1, 100)})
    with store_with(storage, folder=folder) as store:
        saved(store)
        folder.files = {"x": blob(2, 100)}
        assert saved(store).base is None


def test_any_state_of_the_store_may_be_given_as_the_base(tmp_path: Path) -> None:
    storage = DictStorage()
    folder = Folder(some_files(1))
    with store_with(storage, folder=folder) as store:
        store.save_state(name="a.state")
        folder.files = {"other.bin": blob(3, 4000)}
        store.save_state(name="b.state")
        folder.files = some_files(1)
        store.save_state(name="c.state", base="a.state")
        assert (store.info("c.state").base, store.info("c.state").new_size) == ("a.state", 0)
        with pytest.raises(StateNotFoundError, match="no state 'z.state'"):
            store.save_state(base="z.state")
        with StateStore(tmp_path) as elsewhere:
            elsewhere.register("folder", folder)
            foreign = elsewhere.save_state()
        with pytest.raises(StateNotFoundError, match="its own store only"):
            store.save_state(base=foreign)


def test_a_base_that_is_removed_before_the_session_was_seen_is_not_used() -> None:
    def remove_old(storage: DictStorage, key: str) -> None:
        """A prune that listed the sessions before this one was put."""
        tombstone = TombstoneRecord(state="old.state", sequence=1, by="pruner", at=NOW, reason="test")
        storage.objects[tombstone_key(1, "old.state")] = tombstone.to_json()
        for gone in [key for key in storage.objects if key.startswith("old.state/")]:
            del storage.objects[gone]
        del storage.objects[commit_key(1, "old.state")]

    storage = MeddlingStorage("_vault/sessions/new", remove_old)
    files = some_files(1)
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="old.state")
        new = saved(store, "new.state")
    assert (new.base, new.new_size) == (None, new.stored_size)
    check_whole(storage, {"new.state": files})


@pytest.mark.parametrize("prefix", ["new.state/", "new.state/manifest", "_vault/commits/000000000002"])
def test_a_base_that_is_removed_while_it_is_used_keeps_what_the_save_refers_to(prefix: str) -> None:
    def remove_old(storage: DictStorage, key: str) -> None:
        for _ in range(2):
            prune(storage, Catalog(storage), ["old.state"], by="pruner", reason="test")

    storage = MeddlingStorage(prefix, remove_old)
    folder = Folder(some_files(1))
    with store_with(storage, folder=folder) as store:
        store.save_state(name="old.state")
        folder.files = some_files(2)
        new = saved(store, "new.state")
        assert new.base == "old.state"
        assert [state.name for state in store.states()] == ["new.state"]
    check_whole(storage, {"new.state": some_files(2)})
    with StateStore(storage) as store:
        store.remove([])
    check_whole(storage, {"new.state": some_files(2)})
    assert manifest_key("old.state") not in storage.objects


def test_restoring_reads_one_manifest_whatever_the_history() -> None:
    storage = DictStorage()
    folder = Folder()
    with store_with(storage, folder=folder) as store:
        for number in range(20):
            folder.files[f"{number}.bin"] = blob(number, 1000)
            store.save_state()
    counting = FailingStorage(storage)
    with store_with(counting, folder=Folder()) as store:
        store.load_state("latest")
    assert sum("manifest" in call for call in counting.calls) == 1
    assert sum(call.startswith("get") for call in counting.calls) == 20 + 1 + 1 + 1  # marker, manifest, format.json


class Trees(PersistentStateMixin):
    """A component that writes one tree."""

    def __init__(self, tree: object) -> None:
        self.tree = tree

    @override
    def save_state(self, path: Path) -> None:
        write_tree(self.tree, path.with_suffix(".tree"))

    @override
    def load_state(self, path: Path) -> None:
        self.tree = read_tree(path.with_suffix(".tree"))


def test_a_frozen_backbone_costs_nothing_beside_a_trained_head() -> None:
    random_numbers = np.random.default_rng(1)
    backbone = {f"layer{i}": random_numbers.standard_normal(300_000).astype(np.float32) for i in range(8)}
    head = random_numbers.standard_normal(100_000).astype(np.float32)
    model = Trees({**backbone, "head": head})
    storage = DictStorage()
    with StateStore(storage) as store:
        store.register("model", model)
        saved(store)
        for _ in range(3):
            head = head + np.float32(1)
            model.tree = {"steps": 3, **backbone, "head": head}
            state = saved(store)
            assert head.nbytes * 0.8 < state.new_size <= 1.05 * head.nbytes


IMAGE = (84, 84)


def image_sample(random_numbers: np.random.Generator, number: int) -> dict[str, object]:
    return {
        "image": random_numbers.integers(0, 256, IMAGE, dtype=np.uint8),
        "reward": float(number),
        "action": number % 4,
    }


def grown(make: Callable[[], DataBuffer[dict[str, object], object]], samples: int, more: int) -> tuple[StateInfo, int]:
    """The second state of a buffer that got `more` samples, and how many bytes these are."""
    random_numbers = np.random.default_rng(2)
    buffer = make()
    for number in range(samples):
        buffer.add(image_sample(random_numbers, number))
    storage = DictStorage()
    with StateStore(storage) as store:
        store.register("buffer", buffer)
        saved(store)
        for number in range(more):
            buffer.add(image_sample(random_numbers, samples + number))
        second = saved(store)
        again = make()
        with StateStore(storage) as other:
            other.register("buffer", again)
            other.load_state()
    mine, theirs = buffer.get_data(), again.get_data()
    np.testing.assert_equal(theirs, mine)
    return second, more * (84 * 84 + 16)


@pytest.mark.parametrize("full", [False, True])
def test_a_replay_buffer_that_grew_by_a_little_uploads_a_little(full: bool) -> None:
    samples = 3000
    second, added = grown(
        lambda: SequentialBuffer(["image", "reward", "action"], samples if full else 2 * samples), samples, 150
    )
    # Again: the structure of the file, and of each column less than 64 KiB at the end of its last two segments.
    assert second.size > 20_000_000
    assert second.new_size < 1.01 * added + 3 * 2 * 64 * 1024 + 50_000


def test_random_replacement_uploads_the_chunks_that_it_touched() -> None:
    second, _ = grown(
        lambda: RandomReplacementBuffer(["image", "reward", "action"], 3000, replace_probability=1.0), 3000, 3
    )
    assert second.new_size < 3 * 1.1 * CHUNK_UNIT + 100_000 < second.size / 5


def test_a_long_history_keeps_little_that_is_dead_and_refers_to_few_folders() -> None:
    """Random changes for many saves; retention keeps two. The bounds hold at each of them."""
    source = random.Random(5)
    storage = DictStorage()
    folder = Folder({f"{i}.bin": source.randbytes(2000) for i in range(60)} | {"big.bin": blob(1, 4 * CHUNK_UNIT)})
    uploaded = changed = 0
    saves = rounds(short=200, long=2000)
    with store_with(storage, folder=folder) as store:
        for number in range(saves):
            name = f"{source.randrange(60)}.bin"
            folder.files[name] = source.randbytes(2000)
            changed += 2000
            if number % 20 == 0:
                big = bytearray(folder.files["big.bin"])
                at = source.randrange(4) * CHUNK_UNIT
                big[at : at + 8] = source.randbytes(8)
                folder.files["big.bin"] = bytes(big)
                changed += CHUNK_UNIT
            state = saved(store)
            uploaded += state.new_size
            manifest = store.open_state(state.name).manifest
            check_bounds(manifest)
            if number % 10 == 9:
                store.remove([old.name for old in store.states()[:-2]])
        names = [state.name for state in store.states()]
    check_whole(storage, {names[-1]: folder.files})
    # Beside the first, full save: what changed, and what was gathered to let old objects go.
    kept = sum(map(len, storage.objects.values()))
    print(f"{saves} saves: {changed:,} bytes changed, {uploaded:,} uploaded, {kept:,} kept")
    assert uploaded < 2 * changed + 60 * 2000 + 4 * CHUNK_UNIT + 100


def check_bounds(manifest: Manifest) -> None:
    needed = {(chunk.object, chunk.offset, chunk.stored) for file in manifest.files for chunk in file.chunks}
    kept = sum(entry.size for entry in manifest.objects)
    assert kept <= MAX_DEAD_RATIO * sum(stored for _, _, stored in needed)
    assert len({folder_of(entry.key) for entry in manifest.objects} - {manifest.state}) <= MAX_FOLDERS


@st.composite
def references(draw: st.DrawFn) -> tuple[tuple[ObjectEntry, ...], list[Chunk]]:
    sizes = draw(st.lists(st.integers(1, 1000), min_size=1, max_size=300))
    folders = draw(st.integers(1, 300))
    objects = tuple(ObjectEntry(f"s{i % folders}.state/f{i}", size) for i, size in enumerate(sizes))
    live = draw(st.lists(st.integers(0, len(objects) - 1), max_size=300))
    wanted = []
    for index in live:
        stored = draw(st.integers(1, objects[index].size))
        wanted.append(Chunk(index, 0, stored, stored, bytes(32), 0))
    return objects, wanted


@given(references())
def test_what_is_reused_keeps_both_bounds(case: tuple[tuple[ObjectEntry, ...], list[Chunk]]) -> None:
    objects, wanted = case
    unique = {chunk.object: chunk for chunk in wanted}
    chosen = worth_reusing(objects, unique.values())
    assert chosen <= set(unique)
    assert sum(objects[i].size for i in chosen) <= MAX_DEAD_RATIO * sum(unique[i].stored for i in chosen)
    assert len({folder_of(objects[i].key) for i in chosen}) <= MAX_FOLDERS
    if all(chunk.stored == objects[i].size for i, chunk in unique.items()) and len(objects) <= MAX_FOLDERS:
        assert chosen == set(unique), "what is wholly alive stays where it is"


segments = st.sampled_from(["a", "b", "a.part", "a.zst", "a.part.zst", "a.part~", "b.part", "~"])


@given(st.sets(st.lists(segments, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12))
def test_no_object_takes_the_name_of_another_or_of_a_folder(paths: set[str]) -> None:
    files = {path for path in paths if not any(other.startswith(path + "/") for other in paths)}
    names = object_names(sorted(files))
    for part in (set(), files, {path for path in files if len(path) % 2}):
        for compressed in (False, True):
            keys = [
                names[path].key(
                    "s", whole=path not in part, compressed=compressed and (path in part or names[path].may_compress)
                )
                for path in files
            ]
            assert len(set(keys)) == len(keys)
            assert not any(other.startswith(key + "/") for key in keys for other in keys)


def test_a_body_that_is_put_again_refers_to_the_same_chunks() -> None:
    """The first put of the data fails half-way; the storage tries it again with the same body."""

    class Retries(DictStorage):
        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            if not isinstance(body, bytes):
                next(iter(body))
            return super().put(key, body, create_only=create_only)

    storage = Retries()
    folder = Folder(some_files(1))
    with store_with(storage, folder=folder) as store:
        store.save_state(name="a.state")
        folder.files = some_files(2)
        store.save_state(name="b.state")
    check_whole(storage, {"a.state": some_files(1), "b.state": some_files(2)})


def test_small_pieces_in_many_folders_are_gathered_and_large_ones_stay() -> None:
    """A log that gets one file with each save: after many saves its files do not lie in as many folders."""
    storage = DictStorage()
    folder = Folder({"weights.bin": blob(1, 100_000)})
    uploaded = []
    with store_with(storage, folder=folder) as store:
        for number in range(MAX_FOLDERS + 20):
            folder.files[f"{number}.txt"] = blob(number, 100)
            state = saved(store)
            uploaded.append(state.new_size)
            check_bounds(store.open_state(state.name).manifest)
    assert max(uploaded[1:]) < 100 * MAX_FOLDERS, "the weights are never uploaded again"
    assert sum(size > 100 for size in uploaded[1:]) == 1
    check_whole(storage, {state.name: folder.files})


def test_a_marker_that_hides_what_its_state_refers_to_is_damaged() -> None:
    """A prune goes by the marker: the state would lose what it does not name."""
    storage = DictStorage()
    with store_with(storage, folder=Folder(some_files(1))) as store:
        store.save_state(name="a.state")
        store.save_state(name="b.state")
    record = Catalog(storage).record(StateKey(2, "b.state"))
    assert record.reuses == ["a.state"]
    storage.objects[commit_key(2, "b.state")] = record.model_copy(update={"reuses": []}).to_json()
    with (
        store_with(storage, folder=Folder()) as store,
        pytest.raises(CorruptStateError, match="refers to other states"),
    ):
        store.load_state("b.state")


@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_what_somebody_has_taken_from_the_base_is_uploaded_again(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """A rule of the bucket that expires old objects, or a folder removed by hand, costs the old states only."""
    storage = DictStorage()
    files = some_files(1) | {"weights.bin": blob(3, 3 * CHUNK_UNIT)}
    with store_with(storage, folder=Folder(files)) as store:
        store.save_state(name="a.state")
        key = "a.state/folder/weights.bin"
        if damage == "lost":
            del storage.objects[key]
        else:
            storage.objects[key] = storage.objects[key][:-1]
        second = saved(store, "b.state")
        assert key in caplog.text
        store.verify("b.state")
        assert (second.base, second.new_size) == ("a.state", 3 * CHUNK_UNIT)
        assert saved(store, "c.state").new_size == 0
    check_whole(storage, {"b.state": files, "c.state": files})
