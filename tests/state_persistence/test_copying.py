"""Copies of states: the same bits under the same names, shared as before, by the same steps as a save."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typing_extensions import override

from statevault.errors import StateNotFoundError, StorageError
from statevault.format.chunking import CHUNK_UNIT
from statevault.format.manifest import FileEntry, Manifest
from statevault.state_persistence import PersistentStateMixin, StateStore, save_pickle
from statevault.state_persistence.copies.copying import CopiedState
from statevault.storage import Storage
from tests.servers import Servers, StorageTarget, target_names
from tests.state_persistence.components import Files, Folder, some_files, store_with
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.storages import DictStorage, FailingStorage, Failure, ProcessDiedError, TimedStorage

NAMES = ["a.state", "b.state", "c.state"]


def fill(where: object, *, incremental: bool = True) -> None:
    """Three states of two components, which share much."""
    models, data = Folder(), Folder()
    with StateStore(where, incremental=incremental) as store:  # type: ignore[arg-type]
        store.register("models", models)
        store.register("data", data)
        for number, name in enumerate(NAMES):
            models.files = some_files(number)
            data.files = {f"part-{index}": random.Random(index).randbytes(70_000) for index in range(number + 1)}
            store.save_state(name=name, metadata={"step": number, "eval": {"reward": number / 3}})


@pytest.fixture
def source() -> DictStorage:
    storage = DictStorage()
    fill(storage)
    return storage


def content(where: object, state: str) -> Files:
    """Every file of a state."""
    files: Files = {}
    with StateStore(where) as store:  # type: ignore[arg-type]
        reader = store.open_state(state)
        parts: dict[str, dict[int, bytes]] = {file.path: {} for file in reader.manifest.files}
        reader.read_files(
            reader.manifest.files, lambda path, offset, data: parts[path].__setitem__(offset, bytes(data))
        )
        for path, pieces in parts.items():
            files[path] = b"".join(pieces[offset] for offset in sorted(pieces))
    return files


def manifest(where: Storage, state: str) -> Manifest:
    return StateStore(where).open_state(state).manifest


def described(manifest: Manifest) -> list[tuple[object, ...]]:
    """What of a manifest a copy keeps."""

    def of(file: FileEntry) -> tuple[object, ...]:
        return (file.component, file.path, file.size, file.flags, file.digest, [chunk.size for chunk in file.chunks])

    return [
        (manifest.created_at, manifest.writer, manifest.components, manifest.directories),
        *(of(file) for file in manifest.files),
    ]


class RecordingStorage(DictStorage):
    """Notes which objects are read."""

    def __init__(self, inner: DictStorage) -> None:
        super().__init__()
        self.objects = inner.objects
        self.read: list[str] = []

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self.read.append(key)
        return super().get(key, start, end)


def test_a_copy_is_the_state(source: DictStorage) -> None:
    target = DictStorage()
    report = StateStore(source).copy_states(StateStore(target))
    assert [(state.state, state.outcome, state.target) for state in report.states] == [
        (name, "copied", name) for name in NAMES
    ]
    for name in NAMES:
        old, new = StateStore(source).info(name), StateStore(target).info(name)
        for kept in ("name", "sequence", "created_at", "writer", "files", "size", "components", "metadata"):
            assert getattr(new, kept) == getattr(old, kept)
        assert described(manifest(target, name)) == described(manifest(source, name))
        assert content(target, name) == content(source, name)
        StateStore(target).verify(name)


def test_empty_folders_and_what_is_known_of_pickles_are_kept(tmp_path: Path) -> None:
    class Odd(PersistentStateMixin):
        @override
        def save_state(self, path: Path) -> None:
            (path / "empty" / "inner").mkdir(parents=True)
            save_pickle({1, 2}, path / "ours.pkl")
            (path / "ours").touch()

        @override
        def load_state(self, path: Path) -> None:
            raise NotImplementedError

    with StateStore(tmp_path / "from", allow_pickle=True) as store:
        store.register("odd", Odd())
        store.save_state(name="odd.state")
        store.copy_states(StateStore(tmp_path / "to"))
    with StateStore(tmp_path / "from") as old, StateStore(tmp_path / "to") as new:
        kept = described(new.open_state("odd.state").manifest)
        assert kept == described(old.open_state("odd.state").manifest)
        assert any(file.needs_allow_pickle for file in new.open_state("odd.state").manifest.files)
        assert [entry.path for entry in new.open_state("odd.state").manifest.directories] == ["odd/empty/inner"]


def test_what_states_share_is_neither_read_nor_put_twice(source: DictStorage) -> None:
    recording, target = RecordingStorage(source), DictStorage()
    report = StateStore(recording).copy_states(StateStore(target))
    for copied, name in zip(report.states, NAMES, strict=True):
        info = StateStore(source).info(name)
        assert copied.uploaded == info.new_size == StateStore(target).info(name).new_size
    shared = [key for key in recording.read if key.startswith("a.state/data/")]
    assert shared == ["a.state/data/part-0"]
    assert manifest(target, "c.state").base == "b.state"


def test_chunks_that_the_target_has_of_itself_are_not_read(source: DictStorage) -> None:
    recording, target = RecordingStorage(source), DictStorage()
    with StateStore(target) as store:
        store.register("other", Folder({"x": random.Random(0).randbytes(70_000)}))
        store.save_state(name="own.state")
    StateStore(recording).copy_states(StateStore(target), ["a.state"])
    assert not [key for key in recording.read if "/data/" in key]
    assert content(target, "a.state") == content(source, "a.state")


def test_a_store_without_sharing_gets_it_by_a_copy(tmp_path: Path) -> None:
    fill(tmp_path / "from", incremental=False)
    with StateStore(tmp_path / "from") as store, StateStore(tmp_path / "to") as target:
        report = store.copy_states(target)
        assert report.uploaded < sum(info.new_size for info in store.states())
        assert [content(tmp_path / "to", name) for name in NAMES] == [
            content(tmp_path / "from", name) for name in NAMES
        ]


def test_each_state_finds_its_own_base_among_those_of_several_writers() -> None:
    source, target = DictStorage(), DictStorage()
    left, right = (Folder({"w": random.Random(seed).randbytes(200_000)}) for seed in (1, 2))
    with StateStore(source) as one, StateStore(source) as two:
        one.register("left", left)
        two.register("right", right)
        for number in range(3):
            one.save_state(name=f"left-{number}.state")
            two.save_state(name=f"right-{number}.state")
    report = StateStore(source).copy_states(StateStore(target))
    assert [state.uploaded > 0 for state in report.states] == [True, True, False, False, False, False]


def test_a_second_copy_has_nothing_to_do(source: DictStorage) -> None:
    target = DictStorage()
    StateStore(source).copy_states(StateStore(target))
    before = dict(target.objects)
    report = StateStore(source).copy_states(StateStore(target))
    assert [(state.state, state.target) for state in report.present] == [(name, name) for name in NAMES]
    assert (report.copied, report.uploaded, target.objects) == ((), 0, before)


def test_a_copy_into_the_store_itself_has_nothing_to_do(source: DictStorage) -> None:
    store = StateStore(source)
    assert len(store.copy_states(store).present) == len(NAMES)


def test_only_what_was_asked_for_is_copied_in_the_order_of_states(source: DictStorage) -> None:
    target = StateStore(DictStorage())
    report = StateStore(source).copy_states(target, ["latest", "a.state", "a.state"])
    assert [state.state for state in report.copied] == target.names() == ["a.state", "c.state"]
    assert StateStore(source).copy_states(target, ["latest"]).present[0].state == "c.state"


def test_an_unknown_name_copies_nothing(source: DictStorage) -> None:
    target = StateStore(DictStorage())
    with pytest.raises(StateNotFoundError, match="'z.state'"):
        StateStore(source).copy_states(target, ["a.state", "z.state"])
    assert not target.exists()
    with pytest.raises(TypeError, match="several"):
        StateStore(source).copy_states(target, "a.state")


def test_a_name_that_is_taken_gets_a_suffix_and_the_copy_is_known_again(source: DictStorage) -> None:
    target = DictStorage()
    with StateStore(target) as store:
        store.register("mine", Folder({"mine": b"1"}))
        store.save_state(name="b.state")
        store.save_state(name="c.state")
        store.remove(["c.state"])
    report = StateStore(source).copy_states(StateStore(target))
    assert [state.target for state in report.states] == ["a.state", "b-2.state", "c-2.state"]
    assert content(target, "b-2.state") == content(source, "b.state")
    assert content(target, "b.state") == {"mine/mine": b"1"}
    again = StateStore(source).copy_states(StateStore(target))
    assert [state.target for state in again.present] == ["a.state", "b-2.state", "c-2.state"]


def test_copies_of_copies_are_known_again(source: DictStorage) -> None:
    middle, end = StateStore(DictStorage()), StateStore(DictStorage())
    StateStore(source).copy_states(middle)
    middle.copy_states(end)
    assert len(StateStore(source).copy_states(end).present) == len(NAMES)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_file_of_plain_and_compressed_chunks_is_stored_one_way(blocks: int) -> None:
    source, target = DictStorage(), DictStorage()
    noise = random.Random(0).randbytes(CHUNK_UNIT)
    component = Folder({"file": noise})
    with StateStore(source) as store:
        store.register("c", component)
        store.save_state(name="one.state")
        component.files = {"file": noise + bytes(blocks * CHUNK_UNIT)}
        store.save_state(name="two.state")
    assert manifest(source, "two.state").files[0].compression == "mixed"
    StateStore(source).copy_states(StateStore(target), ["two.state"])
    assert manifest(target, "two.state").files[0].compression == ("none" if blocks == 1 else "zstd")
    assert content(target, "two.state") == {"c/file": component.files["file"]}


def test_frames_are_put_as_they_were(source: DictStorage) -> None:
    target = DictStorage()
    StateStore(source).copy_states(StateStore(target))
    key = "a.state/models/notes.txt.zst"
    assert target.objects[key] == source.objects[key]


def test_progress_adds_up_to_the_size_of_the_states(source: DictStorage) -> None:
    counts: list[int] = []
    states: list[CopiedState] = []
    report = StateStore(source).copy_states(
        StateStore(DictStorage()), on_progress=counts.append, on_state=states.append
    )
    assert sum(counts) == sum(info.size for info in StateStore(source).states())
    assert tuple(states) == report.states


def damage_a_chunk(source: DictStorage) -> None:
    (key,) = (key for key in source.objects if key.startswith("b.state/models/weights.bin"))
    source.objects[key] = source.objects[key][:-1] + b"!"


def damage_a_manifest(source: DictStorage) -> None:
    source.objects["b.state/manifest.msgpack.zst"] = b"nonsense"


def lose_an_object(source: DictStorage) -> None:
    (key,) = (key for key in source.objects if key.startswith("b.state/models/weights.bin"))
    del source.objects[key]


def damage_a_marker(source: DictStorage) -> None:
    source.objects["_vault/commits/000000000002.b.state"] = b"{}"


@pytest.mark.parametrize("damage", [damage_a_chunk, damage_a_manifest, lose_an_object, damage_a_marker])
def test_a_damaged_state_is_reported_and_the_others_are_copied(
    source: DictStorage, damage: Callable[[DictStorage], None]
) -> None:
    damage(source)
    target = DictStorage()
    report = StateStore(source).copy_states(StateStore(target))
    assert [state.outcome for state in report.states] == ["copied", "damaged", "copied"]
    (damaged,) = report.damaged
    assert damaged.target is None
    assert "b.state" in str(damaged.error)
    if damage in (damage_a_chunk, lose_an_object):
        assert "models/weights.bin" in str(damaged.error)
    assert StateStore(target).names() == ["a.state", "c.state"]
    for name in ("a.state", "c.state"):
        StateStore(target).verify(name)
    check_no_garbage(target)


def test_damage_that_the_target_need_not_read_does_no_harm(source: DictStorage) -> None:
    target = StateStore(DictStorage())
    StateStore(source).copy_states(target, ["a.state"])
    source.objects["a.state/data/part-0"] = b"gone bad"
    report = StateStore(source).copy_states(target)
    assert [state.outcome for state in report.states] == ["present", "copied", "copied"]
    target.verify("c.state")


def test_a_local_target_tells_damage_of_the_source_from_its_own(source: DictStorage, tmp_path: Path) -> None:
    lose_an_object(source)
    report = StateStore(source).copy_states(StateStore(tmp_path))
    assert [state.outcome for state in report.states] == ["copied", "damaged", "copied"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_vault", "a.state", "c.state"]


def test_a_state_that_is_pruned_meanwhile_is_reported(source: DictStorage, tmp_path: Path) -> None:
    def prune_the_next(state: CopiedState) -> None:
        if state.state == "a.state":
            StateStore(source).remove(["b.state"])

    report = StateStore(source).copy_states(StateStore(tmp_path), on_state=prune_the_next)
    assert [state.outcome for state in report.states] == ["copied", "pruned", "copied"]
    assert "removed" in str(report.pruned[0].error)


def test_a_state_that_is_pruned_while_it_is_read_is_reported(source: DictStorage, tmp_path: Path) -> None:
    class PrunedStorage(RecordingStorage):
        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            if key == "b.state/models/weights.bin" and key in self.objects:
                StateStore(source).remove(["b.state"])
            return super().get(key, start, end)

    report = StateStore(PrunedStorage(source)).copy_states(StateStore(tmp_path))
    assert [state.outcome for state in report.states] == ["copied", "pruned", "copied"]
    StateStore(tmp_path).verify("c.state")


def test_a_storage_that_fails_ends_the_copy_which_can_go_on(source: DictStorage) -> None:
    inner = DictStorage()
    failing = FailingStorage(source, fail_at=15)
    with pytest.raises(StorageError, match="injected"):
        StateStore(failing).copy_states(StateStore(inner))
    done = StateStore(inner).names()
    report = StateStore(source).copy_states(StateStore(inner))
    assert [state.state for state in report.present] == done
    assert sorted(content(inner, state.target or "") == content(source, state.state) for state in report.states) == [
        True
    ] * len(NAMES)


def crash_points() -> Iterator[int]:
    storage = DictStorage()
    fill(storage)
    counting = FailingStorage(DictStorage())
    StateStore(storage).copy_states(StateStore(counting))
    yield from range(1, len(counting.calls) + 1, 3)


@pytest.mark.parametrize("failure", [Failure.NO_EFFECT, Failure.LOST_ANSWER, Failure.LATE, Failure.TORN])
def test_a_copy_that_died_at_any_call_is_taken_up_again(source: DictStorage, failure: Failure) -> None:
    for call in crash_points():
        inner = DictStorage()
        dying = FailingStorage(inner, fail_at=call, failure=failure, dies=True)
        with pytest.raises(ProcessDiedError):
            StateStore(source).copy_states(StateStore(dying))
        for name in StateStore(inner).names():
            assert content(inner, name) == content(source, name)
        dying.land()
        report = StateStore(source).copy_states(StateStore(inner))
        assert {state.outcome for state in report.states} <= {"copied", "present"}
        assert [state.state for state in report.states] == NAMES
        for state in report.states:
            assert content(inner, str(state.target)) == content(source, state.state)
        assert len(StateStore(inner).names()) == len(NAMES)
        check_no_garbage(inner)


def test_a_prune_of_the_target_takes_nothing_of_a_copy_under_way(source: DictStorage) -> None:
    target = DictStorage()

    def prune(state: CopiedState) -> None:
        if state.state != "c.state":
            StateStore(target).remove([str(state.target)])

    StateStore(source).copy_states(StateStore(target), on_state=prune)
    assert StateStore(target).names() == ["c.state"]
    assert content(target, "c.state") == content(source, "c.state")


def test_states_go_from_every_backend_to_every_other(target: StorageTarget, tmp_path: Path) -> None:
    fill(tmp_path / "here")
    with (
        StateStore(tmp_path / "here") as here,
        StateStore(target.url, storage_options=target.storage_options) as there,
        StateStore(tmp_path / "back") as back,
    ):
        assert len(here.copy_states(there).copied) == len(NAMES)
        assert len(there.copy_states(back).copied) == len(NAMES)
        assert [info.new_size for info in back.states()] == [info.new_size for info in here.states()]
    for name in NAMES:
        assert content(tmp_path / "back", name) == content(tmp_path / "here", name)


@pytest.mark.skipif("juicefs" not in target_names(), reason="needs a server")
def test_a_big_file_goes_in_parts(servers: Servers, tmp_path: Path) -> None:
    big = random.Random(1).randbytes(40 * CHUNK_UNIT + 1)
    target = servers.target("juicefs")
    with (
        StateStore(tmp_path / "here") as here,
        StateStore(target.url, storage_options=target.storage_options) as there,
    ):
        here.register("big", Folder({"big": big}))
        here.save_state(name="big.state")
        assert here.copy_states(there).uploaded == len(big)
        there.verify("big.state")


def test_a_state_is_logged_when_it_can_not_be_copied(source: DictStorage, caplog: pytest.LogCaptureFixture) -> None:
    damage_a_manifest(source)
    with caplog.at_level(logging.INFO):
        StateStore(source).copy_states(StateStore(DictStorage()))
    assert "b.state was not copied" in caplog.text


def run_of(number: int, *, steps: int = 3) -> TimedStorage:
    """A store of a run that has chosen its names itself, an hour after the run before."""
    storage = TimedStorage(datetime(2026, 1, 1, number, tzinfo=UTC))
    for step in range(steps):
        # In each run objects of the same names and sizes, which the states share.
        weights = random.Random(f"{number} {step}").randbytes(3000)
        folder = Folder({"frozen.bin": random.Random(number).randbytes(100_000), "weights.bin": weights})
        with store_with(storage, folder=folder) as store:
            store.save_state(name=f"epoch-{step}.state", metadata={"run": number})
    return storage


@pytest.mark.parametrize("markers_first", [True, False])
@pytest.mark.parametrize("goes_on", ["save", "copy"])
def test_over_what_another_tool_has_left_of_a_copy_no_state_is_committed_that_is_damaged(
    goes_on: str, markers_first: bool
) -> None:
    """A plain copy of files over a store with the same names ends half-way: its states are of neither run then."""
    first, longer = run_of(1), run_of(2, steps=4)
    keys = sorted(first.objects, key=lambda key: (key.startswith("_vault/") is not markers_first, key))
    for count in range(1, len(keys) + 1):
        mixed = run_of(2)
        mixed.now += timedelta(hours=1)
        for key in keys[:count]:
            mixed.put(key, first.objects[key])
        there = set(StateStore(mixed).names())
        if goes_on == "save":
            with store_with(mixed, folder=Folder({"frozen.bin": random.Random(2).randbytes(100_000)})) as store:
                store.save_state(name="next.state")
        else:
            for run in (longer, first):
                StateStore(run).copy_states(StateStore(mixed))
        store = StateStore(mixed)
        for name in set(store.names()) - there:
            store.verify(name)
