"""Damage is found before anything is changed; a policy that is replaced while it is read is read anew."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from typing_extensions import override

from statevault.codecs import write_tree
from statevault.errors import CorruptStateError, FormatError, InvalidNameError, UnsupportedTypeError
from statevault.persistence import Persistence, PersistEvent, PolicyPersistence, RestoreEvent, verify_policy
from statevault.persistence.policy_files import PolicyFiles
from statevault.sealed import SealedFiles
from statevault.state_persistence import StateStore
from statevault.storage import open_storage
from tests.persistence.test_crash_points import NAME, restored, save, with_a_policy
from tests.persistence.worlds import POLICY, STATE_DICT, Policy, Statistics, value_of, world_in
from tests.profiles import rounds
from tests.state_persistence.storages import DictStorage, WatchedStorage


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << (position % 8)
    return bytes(changed)


@pytest.mark.parametrize("mode", [POLICY, STATE_DICT], ids=["whole", "state dict"])
def test_a_flipped_bit_anywhere_is_found_and_nothing_is_changed(tmp_path: Path, mode: PolicyPersistence.Mode) -> None:
    policy, statistics = Policy(1), Statistics(1)
    world = world_in(tmp_path, policy)
    PolicyPersistence(statistics, mode=mode).persist(policy, world)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) == 2
    restoring = PolicyPersistence(statistics, mode=mode, allow_pickle=True)
    policy.set_to(2)
    statistics.value = 2
    rng = random.Random(5)
    for path in files:
        content = path.read_bytes()
        for _ in range(rounds(short=25, long=2000)):
            path.write_bytes(flipped(content, rng.randrange(len(content))))
            with pytest.raises((CorruptStateError, FormatError)):
                restoring.restore(policy, world, "cpu")
            assert (value_of(policy), statistics.value) == (2, 2)
        path.write_bytes(content)
    restoring.restore(policy, world, "cpu")
    assert (value_of(policy), statistics.value) == (1, 1)


@pytest.mark.parametrize("mode", [POLICY, STATE_DICT], ids=["whole", "state dict"])
def test_a_file_that_was_cut_short_is_not_a_policy(tmp_path: Path, mode: PolicyPersistence.Mode) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    PolicyPersistence(mode=mode).persist(policy, world)
    path = tmp_path / mode.get_filename()
    content = path.read_bytes()
    policy.set_to(2)
    for length in (0, 1, 10, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises((CorruptStateError, FormatError)):
            PolicyPersistence(mode=mode, allow_pickle=True).restore(policy, world, "cpu")
        assert value_of(policy) == 2


@pytest.mark.parametrize("mode", [POLICY, STATE_DICT], ids=["whole", "state dict"])
def test_verify_finds_a_file_that_was_cut_short_anywhere(tmp_path: Path, mode: PolicyPersistence.Mode) -> None:
    policy = Policy(1)
    PolicyPersistence(mode=mode).persist(policy, world_in(tmp_path, policy))
    storage, path = open_storage(tmp_path), tmp_path / mode.get_filename()
    content = path.read_bytes()
    payload = verify_policy(storage, path.name).size
    rng = random.Random(5)
    lengths = {0, 1, 3, 7, 8, 60, 100, payload - 1, payload + 1, len(content) - 1}
    # Where the whole payload of a tree file is there, nothing says that a seal has followed.
    for length in lengths | {rng.randrange(payload) for _ in range(rounds(short=25, long=2000))}:
        path.write_bytes(content[:length])
        with pytest.raises(CorruptStateError, match=r"cut short|empty"):
            verify_policy(storage, path.name)


# Of the count of segments, of the leaf table's length and of the values': but for what is lost in the padding.
@pytest.mark.parametrize("position", [*range(12, 16), *range(17, 24), *range(25, 32)])
def test_damaged_lengths_of_a_tree_file_make_nobody_read_more_than_there_is(tmp_path: Path, position: int) -> None:
    write_tree({"parameters": {"weight": torch.zeros(10)}, "metadata": {}}, tmp_path / STATE_DICT.get_filename())
    storage, path = open_storage(tmp_path), tmp_path / STATE_DICT.get_filename()
    assert not verify_policy(storage, path.name).is_sealed
    path.write_bytes(flipped(path.read_bytes(), position))
    with pytest.raises(CorruptStateError, match="cut short"):
        verify_policy(storage, path.name)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("0.25")], ids=["missing", "changed"])
def test_an_additional_file_that_is_damaged_is_named(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    policy, statistics = Policy(1), Statistics(1)
    world = world_in(tmp_path, policy)
    persistence = PolicyPersistence(statistics, mode=STATE_DICT)
    persistence.persist(policy, world)
    (path,) = tmp_path.rglob("statistics.txt")
    harm(path)
    policy.set_to(2)
    with pytest.raises(CorruptStateError, match=r"env/statistics\.txt, which belongs to policy_state_dict\.pt"):
        persistence.restore(policy, world, "cpu")
    assert (value_of(policy), statistics.value) == (2, 1)


def test_a_policy_that_is_replaced_while_it_is_read_is_read_anew(tmp_path: Path) -> None:
    for number in count(1):
        calls, value = _replaced_before_call(number, tmp_path)
        if calls < number:
            assert value == 1
            assert number > 5
            break
        assert value in (1, 123456)


def _replaced_before_call(number: int, folder: Path) -> tuple[int, int]:
    """Read a policy that is replaced, by one that takes more room; returns how many calls that took, and its value."""
    storage = with_a_policy(folder)
    watched = WatchedStorage(storage)

    def before(call: str) -> None:
        if len(watched.calls) == number:
            watched.before = lambda call: None
            save(storage, 123456, folder)

    watched.before = before
    value = restored(watched, folder)
    return len(watched.calls), value


def test_a_policy_that_is_replaced_by_a_shorter_one_is_read_anew(tmp_path: Path) -> None:
    storage = DictStorage()
    save(storage, 123456, tmp_path)
    watched = WatchedStorage(storage)

    def before(call: str) -> None:
        if call == f"get {NAME}":
            watched.before = lambda call: None
            save(storage, 1, tmp_path)

    watched.before = before
    assert restored(watched, tmp_path) == 1


def test_a_policy_that_is_replaced_again_and_again_is_given_up(tmp_path: Path) -> None:
    storage = with_a_policy(tmp_path)
    number = [1]

    def before(call: str) -> None:
        if call.startswith("head policy.additional/"):
            number[0] += 1
            save(storage, number[0], tmp_path)

    with pytest.raises(CorruptStateError, match="faster than it can be read"):
        restored(WatchedStorage(storage, before), tmp_path)
    assert number[0] == 6


def test_a_sealed_file_of_another_kind_is_no_policy(tmp_path: Path) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    storage = open_storage(tmp_path)
    with (tmp_path / "payload").open("w+b") as payload:
        payload.write(b"content")
        SealedFiles(storage).put("policy.pt", payload, {"kind": "checkpoint"})
        with pytest.raises(FormatError, match="'checkpoint'"):
            PolicyPersistence(allow_pickle=True).restore(policy, world, "cpu")
        SealedFiles(storage).put("policy.pt", payload, {"kind": "policy", "id": "../../etc", "mode": "policy"})
        with pytest.raises(FormatError, match="malformed"):
            PolicyPersistence(allow_pickle=True).restore(policy, world, "cpu")


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a//b", "..", "a/../../b", ""])
def test_a_seal_cannot_make_anybody_write_outside(tmp_path: Path, path: str) -> None:
    storage = open_storage(tmp_path / "files")
    info = {
        "kind": "policy",
        "id": "0" * 16,
        "mode": "policy",
        "additional": {path: {"size": 1, "digest": "0" * 64}},
    }
    with (tmp_path / "payload").open("w+b") as payload:
        SealedFiles(storage).put(NAME, payload, info)  # type: ignore[arg-type]
    (tmp_path / "target").mkdir()
    with pytest.raises(FormatError, match="malformed"):
        PolicyFiles(storage).fetch(NAME, tmp_path / "target")


class Writing(Persistence):
    """Writes what a test wants."""

    def __init__(self, write: Callable[[Path], object]) -> None:
        self._write = write

    @override
    def persist(self, event: PersistEvent, world: object) -> None:
        self._write(Path(world.persist_directory))  # type: ignore[attr-defined]

    @override
    def restore(self, event: RestoreEvent, world: object) -> None: ...


def many(folder: Path) -> None:
    for number in range(1000):
        (folder / f"{number:04}").touch()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: (folder / "link").symlink_to("/etc"), "'link'"),
        (many, "1000 files"),
        (lambda folder: (folder / "a\\b").touch(), "backslash"),
    ],
    ids=["link", "many files", "name"],
)
def test_an_additional_state_that_cannot_be_stored_stops_the_save_before_anything_is_put(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    policy = Policy(1)
    saving = PolicyPersistence(Writing(write), mode=STATE_DICT)
    with pytest.raises((UnsupportedTypeError, InvalidNameError), match=message):
        saving.persist(policy, world_in(tmp_path, policy))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_additional_persistence_that_fails_leaves_the_policy_that_was_there(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no room")

    policy, statistics = Policy(1), Statistics(1)
    world = world_in(tmp_path / "files", policy)
    with StateStore(tmp_path / "store") as store:
        for options in ({}, {"store": store}):
            persistence = PolicyPersistence(statistics, mode=STATE_DICT, **options)  # type: ignore[arg-type]
            persistence.persist(policy, world)
            persistence.additional_persistence = Writing(fail)
            with pytest.raises(OSError, match="no room"):
                persistence.persist(policy, world)
            persistence.additional_persistence = statistics
            persistence.restore(policy, world, "cpu")
