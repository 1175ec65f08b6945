"""A save that fails at every single storage call, in each way a call can fail.

Invariants, after each: the policy that lies there, the old or the new one, restores with its own additional state; an
acknowledged save is the new one; the next save works, and leaves nothing behind but what a save that died has left.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import pytest

from statevault.errors import CorruptStateError, StateVaultError
from statevault.persistence import PolicyPersistence
from statevault.persistence.policy_files import PolicyFiles
from statevault.persistence.record import PolicyRecord
from statevault.persistence.staged import StagedPolicy
from statevault.state_persistence import KeepLatest, StateStore
from statevault.storage import Storage
from tests.persistence.worlds import STATE_DICT, Policy, Statistics, Trainer, value_of, world_in
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.storages import FAILURES, DictStorage, FailingStorage, Failure, ProcessDiedError

NAME = "policy.pt"
FILES = ("statistics.txt", "env/mean.bin")


def save(storage: Storage, value: int, folder: Path, name: str = NAME) -> None:
    """Save a policy that is a number, with an additional state that is the same number."""
    staged = StagedPolicy(folder / secrets.token_hex(4), name)
    for file in (staged.file, *(staged.additional / path for path in FILES)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(value))
    PolicyFiles(storage).put(name, staged, PolicyRecord(id=secrets.token_hex(8), mode="policy", score=value))


def restored(storage: Storage, folder: Path, name: str = NAME) -> int:
    """The number that was saved: that of the policy, and of every file of its additional state."""
    folder = folder / secrets.token_hex(4)
    folder.mkdir()
    staged, record = PolicyFiles(storage).fetch(name, folder)
    assert record is not None
    files = staged.additional_files()
    assert sorted(files) == sorted(FILES)
    (value,) = {staged.file.read_text(), *(file.read_text() for file in files.values())}
    assert record.score == int(value)
    return int(value)


def with_a_policy(folder: Path) -> DictStorage:
    storage = DictStorage()
    save(storage, 1, folder)
    return storage


def calls_of_a_save(folder: Path) -> list[str]:
    failing = FailingStorage(with_a_policy(folder))
    save(failing, 2, folder)
    return failing.calls


def test_the_policy_is_put_after_its_additional_state_and_before_the_old_one_is_deleted(tmp_path: Path) -> None:
    storage = with_a_policy(tmp_path)
    (old,) = {key.split("/")[1] for key in storage.objects if "/" in key}
    failing = FailingStorage(storage)
    save(failing, 2, tmp_path)
    (new,) = {key.split("/")[1] for key in storage.objects if "/" in key}
    changes = [call for call in failing.calls if call.startswith(("put", "delete"))]
    assert new != old
    assert changes == [
        f"put policy.additional/{new}/env/mean.bin",
        f"put policy.additional/{new}/statistics.txt",
        "put policy.pt",
        f"delete ['policy.additional/{old}/env/mean.bin', 'policy.additional/{old}/statistics.txt']",
    ]


@pytest.mark.parametrize("dies", [False, True], ids=["error", "death"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_save_fails_at_every_call(failure: Failure, dies: bool, tmp_path: Path) -> None:
    calls = calls_of_a_save(tmp_path)
    for number, call in enumerate(calls, start=1):
        storage = with_a_policy(tmp_path)
        failing = FailingStorage(storage, fail_at=number, failure=failure, dies=dies)
        acknowledged = False
        with suppress(StateVaultError, ProcessDiedError):
            save(failing, 2, tmp_path)
            acknowledged = True
        for landed in (False, True):
            if landed:
                failing.land()
            if failure is Failure.TORN and call == f"put {NAME}":
                # No backend tears a put: but if one did, nobody would take it for a policy.
                with pytest.raises((CorruptStateError, AssertionError)):
                    restored(storage, tmp_path)
                continue
            value = restored(storage, tmp_path)
            assert value in ((2,) if acknowledged else (1, 2)), call
        save(storage, 3, tmp_path)
        assert restored(storage, tmp_path) == 3, call


def test_a_save_that_failed_before_its_policy_leaves_nothing(tmp_path: Path) -> None:
    for number, call in enumerate(calls_of_a_save(tmp_path), start=1):
        storage = with_a_policy(tmp_path)
        before = set(storage.objects)
        failing = FailingStorage(storage, fail_at=number)
        with suppress(StateVaultError):
            save(failing, 2, tmp_path)
        if call == f"put {NAME}":
            # Whether it landed is not known: what it would name must stay.
            assert set(storage.objects) > before
        elif restored(storage, tmp_path) == 1:
            assert set(storage.objects) == before, call


def test_a_policy_that_lands_late_finds_its_additional_state(tmp_path: Path) -> None:
    storage = with_a_policy(tmp_path)
    number = calls_of_a_save(tmp_path).index(f"put {NAME}") + 1
    failing = FailingStorage(storage, fail_at=number, failure=Failure.LATE)
    with pytest.raises(StateVaultError):
        save(failing, 2, tmp_path)
    save(storage, 3, tmp_path)
    assert restored(storage, tmp_path) == 3
    failing.land()
    assert restored(storage, tmp_path) == 2


def test_what_could_not_be_deleted_does_not_fail_a_save(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = with_a_policy(tmp_path)
    (number,) = [n for n, call in enumerate(calls_of_a_save(tmp_path), start=1) if call.startswith("delete")]
    save(FailingStorage(storage, fail_at=number), 2, tmp_path)
    assert restored(storage, tmp_path) == 2
    assert "could not be deleted" in caplog.text


@pytest.mark.parametrize("dies", [False, True], ids=["error", "death"])
def test_a_save_as_a_state_fails_at_every_call(dies: bool, tmp_path: Path) -> None:
    number = 0
    while True:
        number += 1
        storage = DictStorage()
        _save_as_state(storage, 1, score=1.0)
        failing = FailingStorage(storage, fail_at=number, dies=dies)
        with suppress(StateVaultError, ProcessDiedError):
            _save_as_state(failing, 2, score=2.0)
        if len(failing.calls) < number:
            break
        assert _restored_state(storage) in (1, 2), failing.calls[number - 1]
        _save_as_state(storage, 3, score=3.0)
        assert _restored_state(storage) == 3
        check_no_garbage(storage)
    assert number > 10


def _save_as_state(storage: Storage, value: int, score: float) -> None:
    policy = Policy(value)
    with StateStore(storage) as store:
        persistence = PolicyPersistence(Statistics(value), mode=STATE_DICT, store=store, keeper=KeepLatest(1))
        persistence.get_save_best_fn(world_in(Path("nowhere"), policy, Trainer(score)))(policy)


def _restored_state(storage: Storage) -> float:
    policy, statistics = Policy(), Statistics()
    with StateStore(storage) as store:
        PolicyPersistence(statistics, mode=STATE_DICT, store=store).restore(policy, world_in(Path("x"), policy), "cpu")
    assert value_of(policy) == statistics.value
    return statistics.value
