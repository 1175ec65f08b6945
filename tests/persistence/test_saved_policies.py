"""A folder of policies: listed, verified and copied."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from statevault.errors import CorruptStateError, StateNotFoundError, StorageError
from statevault.persistence import (
    CopiedPolicy,
    PolicyPersistence,
    copy_policies,
    list_policies,
    verify_policy,
)
from statevault.sealed import SealedFiles
from statevault.storage import Storage, open_storage
from tests.persistence.test_crash_points import restored, save
from tests.persistence.worlds import BACKENDS, STATE_DICT, Policy, Statistics, Trainer, storage_of, value_of, world_in
from tests.servers import Servers
from tests.state_persistence.storages import DictStorage, FailingStorage, WatchedStorage


def fill(storage: Storage, folder: Path, names: tuple[str, ...] = ("policy.pt", "policy_epoch_1.pt")) -> None:
    for value, name in enumerate(names, start=1):
        save(storage, value, folder, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_policies_are_listed_with_what_their_seals_say(backend: str, servers: Servers, tmp_path: Path) -> None:
    target = servers.target(backend)
    policy = Policy(1)
    world = world_in(target, policy, Trainer(score=2.5, epoch=3))
    persistence = PolicyPersistence(Statistics(1), mode=STATE_DICT)
    persistence.persist(policy, world)
    checkpoint = persistence.get_save_checkpoint_fn(world)
    assert checkpoint is not None
    checkpoint(4, 400, 40)
    storage = storage_of(target)
    for name in ("policy_notes.pt", "policy.txt", "events.out", "policies/policy.pt", "policy_epoch_x.pt"):
        storage.put(name, b"of somebody else")
    save(storage, 5, tmp_path, "policy_of_another_run/policy.pt")
    best, last = list_policies(storage)
    assert (best.name, best.key, best.mode) == ("policy_state_dict.pt", "policy_state_dict.pt", "policy_state_dict")
    assert (best.epoch, best.env_step, best.gradient_step, best.score, best.best) == (3, 300, 30, 2.5, True)
    assert (last.name, last.epoch, last.score) == ("policy_state_dict_epoch_4.pt", 4, None)
    assert best.is_sealed
    assert best.additional is not None
    assert {path: file.size for path, file in best.additional.items()} == {"empty.bin": 0, "env/statistics.txt": 1}
    assert best.total_size == best.size + 1
    assert {info.key for info in storage.list(best.additional_folder)} == {
        best.additional_folder + path for path in best.additional
    }
    assert best.modified is None or best.modified.tzinfo is not None
    for name, listed in (("policy_state_dict", best), ("policy_state_dict_epoch_4.pt", last)):
        # Some backends tell the time to the second in the one answer, and more exactly in the other.
        assert replace(verify_policy(storage, name), modified=listed.modified) == listed


def test_an_empty_folder_has_no_policies(tmp_path: Path) -> None:
    assert list_policies(open_storage(tmp_path / "nowhere")) == []


def test_a_seal_that_cannot_be_understood_hides_no_other_policy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = DictStorage()
    fill(storage, tmp_path)
    with (tmp_path / "payload").open("w+b") as payload:
        SealedFiles(storage).put("policy_epoch_0.pt", payload, {"kind": "policy", "mode": "of the future"})
    with caplog.at_level(logging.WARNING):
        assert [policy.name for policy in list_policies(storage)] == ["policy.pt", "policy_epoch_1.pt"]
    assert "policy_epoch_0.pt" in caplog.text


def test_a_seal_cannot_drive_the_terminal_that_shows_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = DictStorage()
    info = {"kind": "policy", "id": "0" * 16, "mode": "policy", "additional": {"\x1b[2J": {"size": 1}}}
    with (tmp_path / "payload").open("w+b") as payload:
        SealedFiles(storage).put("policy.pt", payload, info)  # type: ignore[arg-type]
    assert list_policies(storage) == []
    assert "\\x1b[2J" in caplog.text
    assert "\x1b" not in caplog.text


def test_every_byte_is_verified_also_that_of_the_additional_state(tmp_path: Path) -> None:
    storage = DictStorage()
    fill(storage, tmp_path)
    done: list[int] = []
    policy = verify_policy(storage, "policy", on_progress=done.append)
    assert sum(done) >= policy.total_size
    for key in [key for key in storage.objects if not key.startswith("policy_epoch")]:
        content = storage.objects[key]
        for position in {0, len(content) // 2}:
            changed = bytearray(content)
            changed[position] ^= 4
            storage.objects[key] = bytes(changed)
            with pytest.raises(CorruptStateError):
                verify_policy(storage, "policy")
        storage.objects[key] = content
        verify_policy(storage, "policy_epoch_1")
    with pytest.raises(StateNotFoundError, match=r"policy_epoch_7\.pt"):
        verify_policy(storage, "policy_epoch_7")


def test_what_is_verified_is_what_is_described(tmp_path: Path) -> None:
    storage = DictStorage()
    fill(storage, tmp_path)
    watched = WatchedStorage(storage)

    def before(call: str) -> None:
        # The last reads of a verification are those that describe what was verified.
        if sum(call == "head policy.pt" for call in watched.calls) == 2:
            watched.before = lambda call: None
            save(storage, 7, tmp_path)

    watched.before = before
    assert verify_policy(watched, "policy").score == 7


@pytest.mark.parametrize("backend", BACKENDS)
def test_copies_are_the_policies_with_their_statistics(backend: str, servers: Servers, tmp_path: Path) -> None:
    source, target = DictStorage(), storage_of(servers.target(backend))
    fill(source, tmp_path)
    noted: list[CopiedPolicy] = []
    done: list[int] = []
    report = copy_policies(source, target, on_policy=noted.append, on_progress=done.append)
    assert [(one.name, one.outcome) for one in report] == [("policy.pt", "copied"), ("policy_epoch_1.pt", "copied")]
    assert noted == report
    assert sum(done) >= sum(one.size for one in report) > 0
    assert {info.key: target.get(info.key) for info in target.list()} == source.objects
    assert [restored(target, tmp_path, name) for name in ("policy.pt", "policy_epoch_1.pt")] == [1, 2]
    assert [one.outcome for one in copy_policies(source, target)] == ["present", "present"]


def test_a_policy_that_was_replaced_meanwhile_is_copied_anew(tmp_path: Path) -> None:
    source, target = DictStorage(), DictStorage()
    fill(source, tmp_path)
    copy_policies(source, target)
    save(source, 9, tmp_path)
    report = copy_policies(source, target)
    assert [one.outcome for one in report] == ["copied", "present"]
    assert target.objects == source.objects, "nothing is left of the policy that was replaced"


@pytest.mark.parametrize("part", ["policy.pt", "statistics.txt"])
@pytest.mark.parametrize("harm", [lambda content: b"", lambda content: b"\xff" + content[1:], None])
def test_what_is_damaged_in_the_target_is_copied_again(
    tmp_path: Path, part: str, harm: Callable[[bytes], bytes] | None
) -> None:
    source, target = DictStorage(), DictStorage()
    fill(source, tmp_path)
    copy_policies(source, target)
    (key,) = [key for key in target.objects if key.endswith(part) and "epoch" not in key]
    content = target.objects.pop(key)
    if harm is not None:
        target.objects[key] = harm(content)
    assert [one.outcome for one in copy_policies(source, target)] == ["copied", "present"]
    assert target.objects == source.objects


def test_some_policies_are_copied_by_name(tmp_path: Path) -> None:
    source, target = DictStorage(), DictStorage()
    fill(source, tmp_path)
    assert [one.name for one in copy_policies(source, target, ["policy_epoch_1"])] == ["policy_epoch_1.pt"]
    assert [policy.name for policy in list_policies(target)] == ["policy_epoch_1.pt"]
    with pytest.raises(StateNotFoundError, match=r"policy_epoch_7\.pt.*nothing was copied"):
        copy_policies(source, target, ["policy", "policy_epoch_7"])
    assert [policy.name for policy in list_policies(target)] == ["policy_epoch_1.pt"]
    with pytest.raises(TypeError, match="several names"):
        copy_policies(source, target, "policy")


def test_a_damaged_policy_is_told_and_the_others_are_copied(tmp_path: Path) -> None:
    source, target = DictStorage(), DictStorage()
    fill(source, tmp_path)
    (key,) = [key for key in source.objects if key.startswith("policy.additional") and "statistics" in key]
    del source.objects[key]
    damaged, copied = copy_policies(source, target)
    assert (damaged.name, damaged.outcome, copied.outcome) == ("policy.pt", "damaged", "copied")
    assert damaged.error is not None
    assert "statistics.txt" in damaged.error
    assert [policy.name for policy in list_policies(target)] == ["policy_epoch_1.pt"]


def test_a_copy_that_was_interrupted_anywhere_goes_on(tmp_path: Path) -> None:
    source = DictStorage()
    fill(source, tmp_path)
    number = 0
    while True:
        number += 1
        target = DictStorage()
        failing = FailingStorage(target, fail_at=number)
        try:
            copy_policies(source, failing)
        except StorageError:
            for policy in list_policies(target):
                restored(target, tmp_path, policy.name)
        if len(failing.calls) < number:
            break
        copy_policies(source, target)
        assert [restored(target, tmp_path, name) for name in ("policy.pt", "policy_epoch_1.pt")] == [1, 2]
    assert number > 8


def test_policies_without_a_seal_are_copied_as_they_are(tmp_path: Path) -> None:
    source, target = open_storage(tmp_path / "from"), open_storage(tmp_path / "to")
    (tmp_path / "from").mkdir()
    torch.save(Policy(5), tmp_path / "from" / "policy.pt")
    assert [one.outcome for one in copy_policies(source, target)] == ["copied"]
    assert [one.outcome for one in copy_policies(source, target)] == ["present"]
    assert (tmp_path / "to" / "policy.pt").read_bytes() == (tmp_path / "from" / "policy.pt").read_bytes()
    assert value_of(torch.load(tmp_path / "to" / "policy.pt", weights_only=False)) == 5


def test_what_saves_that_died_have_left_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "files")
    fill(storage, tmp_path)
    for name, days in (("0" * 16, 2), ("1" * 16, 0)):
        storage.put(f"policy.additional/{name}/statistics.txt", b"of a save that died")
        instant = time.time() - days * 24 * 3600
        os.utime(tmp_path / "files" / "policy.additional" / name / "statistics.txt", (instant, instant))
    save(storage, 3, tmp_path)
    left = {info.key.split("/")[1] for info in storage.list("policy.additional/")}
    assert "0" * 16 not in left
    assert "1" * 16 in left, "its save may still be running"
    assert len(left) == 2
    assert [restored(storage, tmp_path, name) for name in ("policy.pt", "policy_epoch_1.pt")] == [3, 2]
