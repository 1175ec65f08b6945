"""Six ways in which the model of this CheckpointManager fails, on a local disk, S3 and GCS: none of them happens."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from typing import Any

import pytest

from statevault.errors import TrialTakenError
from statevault.experiments import CheckpointManager
from statevault.storage import Storage, open_storage
from tests.experiments.objects import Counting
from tests.servers import Servers, StorageTarget

TRIAL = "algorithm_0/trial_0/"


@pytest.fixture(params=["local", "juicefs", "fake-gcs"])
def place(request: pytest.FixtureRequest, servers: Servers) -> StorageTarget:
    return servers.target(request.param)


@pytest.fixture
def manager(place: StorageTarget) -> Iterator[CheckpointManager]:
    with CheckpointManager(place.url, 1, storage_options=place.storage_options) as made:
        made.initialize([Counting("a", 20)], None, 1)
        yield made


@pytest.fixture
def storage(place: StorageTarget) -> Iterator[Storage]:
    opened = open_storage(place.url, place.storage_options)
    yield opened
    opened.close()


def save(manager: CheckpointManager, *iterations: int, mark: Any = None) -> None:
    for iteration in iterations:
        manager.save_checkpoint(
            alg_idx=0, trial=0, iteration=iteration, algorithm=Counting("a"), network=mark, rng_state=None
        )


def complete(manager: CheckpointManager) -> None:
    manager.mark_trial_complete(alg_idx=0, trial=0, iteration=19, algorithm=Counting("a"), network=None, rng_state=None)


def iterations(storage: Storage) -> list[int]:
    keys = [info.key.removeprefix(TRIAL) for info in storage.list(TRIAL + "checkpoint_")]
    return [int(key[len("checkpoint_") :][:7]) for key in keys]


def newest(place: StorageTarget) -> int | None:
    with CheckpointManager(place.url, storage_options=place.storage_options) as other:
        loaded = other.load_checkpoint(0, 0)
        return None if loaded is None else loaded[2]


def test_1_rewinding_deletes_nothing_that_was_just_saved(
    manager: CheckpointManager, storage: Storage, place: StorageTarget
) -> None:
    save(manager, 8, 9, 10)
    save(manager, 5, mark="after the rewind")
    assert iterations(storage) == [5, 9, 10]
    assert newest(place) == 5
    save(manager, 6, 7)
    assert iterations(storage) == [5, 6, 7]
    save(manager, 8, 9, 10, mark="anew")
    loaded = manager.load_checkpoint(0, 0)
    assert loaded is not None
    assert loaded[1:3] == ("anew", 10)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "gone"])
def test_2_a_damaged_newest_checkpoint_falls_back(
    manager: CheckpointManager, storage: Storage, place: StorageTarget, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(manager, 3, 4, 5)
    key = TRIAL + "checkpoint_0000005.pkl.zst"
    content = storage.get(key)
    if damage == "gone":
        storage.delete([key])
    else:
        flipped = bytes([*content[:30], content[30] ^ 1, *content[31:]])
        storage.put(key, {"cut": content[: len(content) // 2], "empty": b"", "flipped": flipped}[damage])
    with caplog.at_level(logging.WARNING):
        assert newest(place) == 4
    if damage != "gone":
        assert "checkpoint_0000005.pkl.zst" in caplog.text
        assert "going back to the checkpoint before it" in caplog.text
    save(manager, 5, 6)
    assert newest(place) == 6


@pytest.mark.parametrize("content", [None, b"", b'{"last_completed', b"[]", b'{"last_completed_iteration": -1}'])
def test_2_a_torn_progress_record_ends_nothing(
    manager: CheckpointManager, storage: Storage, place: StorageTarget, content: bytes | None
) -> None:
    save(manager, 3, 4)
    tear(storage, TRIAL + "progress.json", content)
    assert newest(place) == 4
    save(manager, 5)
    assert newest(place) == 5
    assert json.loads(storage.get(TRIAL + "progress.json"))["last_completed_iteration"] == 5


@pytest.mark.parametrize("content", [None, b"", b'{"alg_name": "a", "alg', b'{"alg_name": "a"}'])
def test_2_a_torn_completion_lets_the_trial_go_on(
    manager: CheckpointManager, storage: Storage, place: StorageTarget, content: bytes | None
) -> None:
    complete(manager)
    tear(storage, TRIAL + "complete.json", content)
    assert not manager.is_trial_complete(0, 0)
    assert newest(place) == 19
    complete(manager)
    assert manager.is_trial_complete(0, 0)


def test_2_all_checkpoints_damaged_means_from_the_beginning(
    manager: CheckpointManager, storage: Storage, place: StorageTarget, caplog: pytest.LogCaptureFixture
) -> None:
    save(manager, 3, 4)
    for iteration in (3, 4):
        storage.put(f"{TRIAL}checkpoint_{iteration:07d}.pkl.zst", b"rubbish")
    assert newest(place) is None
    assert "All 2 checkpoints of trial 0 of algorithm 0 are damaged" in caplog.text


def test_3_metrics_do_not_outlive_their_payload(manager: CheckpointManager, storage: Storage) -> None:
    complete(manager)
    manager.save_metrics_result({"loss": 1})
    assert manager.are_metrics_computed()
    payload = storage.get("metric_computation.pkl.zst")
    storage.delete(["metric_computation.pkl.zst"])
    assert not manager.are_metrics_computed()
    storage.put("metric_computation.pkl.zst", payload[:-1])
    assert not manager.are_metrics_computed()
    storage.put("metric_computation.pkl.zst", payload)
    assert manager.load_metrics_result() == {"loss": 1}
    manager.extend(increase_trials=1)
    assert not manager.are_metrics_computed()


def test_4_foreign_files_are_ignored(manager: CheckpointManager, storage: Storage, place: StorageTarget) -> None:
    foreign = [
        "checkpoint_final.pkl.zst",
        "checkpoint_0000003.pkl.zst.bak",
        "checkpoint_3.pkl.zst",
        ".DS_Store",
        "notes/checkpoint_0000099.pkl.zst",
    ]
    for name in foreign:
        storage.put(TRIAL + name, b"not ours")
    storage.put("algorithm_0/trial_x/checkpoint_0000099.pkl.zst", b"not ours")
    save(manager, *range(6))
    assert newest(place) == 5
    complete(manager)
    left = {info.key for info in storage.list()}
    assert {TRIAL + name for name in foreign} <= left
    assert len([key for key in left if key.startswith(TRIAL + "checkpoint_0") and key.endswith(".zst")]) == 3


def test_5_increases_are_remembered_by_a_second_resume(manager: CheckpointManager, place: StorageTarget) -> None:
    complete(manager)
    manager.extend(increase_iterations=5, increase_trials=2)
    with CheckpointManager(place.url, storage_options=place.storage_options) as second:
        metadata = second.load_metadata()
        assert (metadata["n_trials"], metadata["algorithms"][0]["iterations"]) == (3, 25)
        assert second.load_initial_algorithms()[0].iterations == 25
        assert not second.is_benchmark_completed()


def hold(url: str, options: dict[str, Any], held: Event, over: Event) -> None:
    """Another process, which works on the trial."""
    with CheckpointManager(url, 1, storage_options=options) as manager:
        save(manager, 0, mark="theirs")
        held.set()
        over.wait(300)


def test_6_a_second_process_on_a_trial_is_told_so(manager: CheckpointManager, place: StorageTarget) -> None:
    context = multiprocessing.get_context("spawn")
    held, over = context.Event(), context.Event()
    other = context.Process(target=hold, args=(place.url, dict(place.storage_options), held, over))
    other.start()
    try:
        assert held.wait(300)
        with pytest.raises(TrialTakenError, match=f"process {other.pid} on .* has trial 0 of algorithm 0"):
            save(manager, 7)
        loaded = manager.load_checkpoint(0, 0)
        assert loaded is not None
        assert loaded[1:3] == ("theirs", 0)
        with pytest.raises(TrialTakenError), manager.working_on(0, 0):
            pass
        with manager.working_on(0, 1):
            pass  # another trial is free
    finally:
        over.set()
        other.join(300)
    save(manager, 7)
    assert newest(place) == 7


def test_6_the_trial_of_a_killed_process_is_free_at_once(manager: CheckpointManager, place: StorageTarget) -> None:
    context = multiprocessing.get_context("spawn")
    held, over = context.Event(), context.Event()
    other = context.Process(target=hold, args=(place.url, dict(place.storage_options), held, over))
    other.start()
    assert held.wait(300)
    other.kill()
    other.join(300)
    save(manager, 7)
    assert newest(place) == 7


def tear(storage: Storage, key: str, content: bytes | None) -> None:
    if content is None:
        storage.delete([key])
    else:
        storage.put(key, content)
