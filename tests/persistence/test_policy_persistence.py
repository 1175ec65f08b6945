"""Policies are saved and restored with their additional state: in both modes, as files and states, on any storage."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typing_extensions import override
from upath import UPath

from statevault.errors import FormatError, PickleNotAllowedError, StateNotFoundError, StateVaultError
from statevault.persistence import (
    Persistence,
    PersistenceGroup,
    PersistEvent,
    PolicyMode,
    PolicyPersistence,
    RestoreEvent,
    World,
)
from statevault.state_persistence import StateStore
from tests.persistence.worlds import (
    BACKENDS,
    POLICY,
    STATE_DICT,
    ForeignWorld,
    Policy,
    Statistics,
    Trainer,
    storage_of,
    value_of,
    world_in,
)
from tests.servers import Servers, StorageTarget

MODES = [pytest.param(POLICY, id="whole"), pytest.param(STATE_DICT, id="state dict")]
KINDS = ["files", "states"]


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, servers: Servers) -> StorageTarget:
    """A fresh place on one of the usual backends."""
    return servers.target(request.param)


def persistence_in(place: StorageTarget, kind: str, **options: Any) -> PolicyPersistence:
    if kind == "states":
        options |= {"store": f"{place.url}/store", "storage_options": place.storage_options}
    return PolicyPersistence(options.pop("additional", None), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_policy_comes_back_with_the_statistics_of_its_own_save(
    place: StorageTarget, mode: PolicyMode, kind: str
) -> None:
    statistics = Statistics(0.5)
    policy = Policy(1)
    world = world_in(place, policy, Trainer(score=10.0, epoch=1))
    with persistence_in(place, kind, additional=statistics, mode=mode) as saving:
        saving.get_save_best_fn(world)(policy)
        checkpoint = saving.get_save_checkpoint_fn(world)
        assert checkpoint is not None
        for epoch in (2, 3):
            policy.set_to(epoch)
            statistics.value = epoch / 2
            checkpoint(epoch, 100 * epoch, 10 * epoch)
    # Another process: nothing but the storage is left.
    restored, others = Policy(), Statistics()
    with persistence_in(place, kind, additional=others, mode=mode, allow_pickle=True) as restoring:
        world = world_in(place, restored)
        for chosen, value in (({}, 1), ({"epoch": 3}, 3), ({"epoch": 2}, 2), ({"name": _name(kind, mode, 3)}, 3)):
            restoring.restore(restored, world, "cpu", **chosen)
            assert (value_of(restored), others.value) == (value, value / 2)


def _name(kind: str, mode: PolicyMode, epoch: int) -> str:
    return f"{mode.value if kind == 'files' else 'policy'}_epoch_{epoch}"


@pytest.mark.parametrize("mode", MODES)
def test_what_lies_in_the_folder_has_the_names_that_people_know(place: StorageTarget, mode: PolicyMode) -> None:
    policy = Policy(1)
    world = world_in(place, policy)
    saving = PolicyPersistence(Statistics(), mode=mode)
    saving.persist(policy, world)
    checkpoint = saving.get_save_checkpoint_fn(world)
    assert checkpoint is not None
    path = checkpoint(3, 300, 30)
    names = sorted(info.key for info in storage_of(place).list())
    own = [name for name in names if "/" not in name]
    assert own == [f"{mode.value}.pt", f"{mode.value}_epoch_3.pt"]
    assert {name.split("/")[0] for name in names if "/" in name} == {
        f"{mode.value}.additional",
        f"{mode.value}_epoch_3.additional",
    }
    assert path == world.persist_path(f"{mode.value}_epoch_3.pt")
    assert path.exists()


def test_a_whole_policy_is_an_archive_that_torch_loads_by_itself(tmp_path: Path) -> None:
    policy = Policy(7)
    PolicyPersistence(Statistics()).persist(policy, world_in(tmp_path, policy))
    for mmap in (False, True):
        loaded = torch.load(tmp_path / "policy.pt", weights_only=False, mmap=mmap)
        assert value_of(loaded) == 7


def test_restoring_a_whole_policy_asks_for_trust_and_says_so(tmp_path: Path) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    PolicyPersistence().persist(policy, world)
    restored = Policy()
    with pytest.raises(PickleNotAllowedError, match=r"allow_pickle=True.*POLICY_STATE_DICT"):
        PolicyPersistence().restore(restored, world, "cpu")
    assert value_of(restored) == 0
    with pytest.raises(PickleNotAllowedError, match="allow_pickle=True"):
        states = PolicyPersistence(store=tmp_path / "store")
        states.persist(policy, world)
        states.restore(restored, world, "cpu")
    assert value_of(restored) == 0


def test_a_state_dict_is_written_without_pickle(tmp_path: Path) -> None:
    policy = Policy(1)
    PolicyPersistence(mode=STATE_DICT).persist(policy, world_in(tmp_path, policy))
    content = (tmp_path / "policy_state_dict.pt").read_bytes()
    assert not content.startswith((b"PK", b"\x80"))
    assert b"torch" not in content


def test_what_a_state_dict_cannot_hold_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        @override
        def get_extra_state(self) -> Any:
            return object()

    policy = Odd(1, 1)
    with pytest.raises(StateVaultError, match="_extra_state"):
        PolicyPersistence(mode=STATE_DICT).persist(policy, world_in(tmp_path, policy))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_mode_that_a_policy_was_saved_in_decides(tmp_path: Path, kind: str) -> None:
    policy = Policy(4)
    world = world_in(tmp_path, policy)
    options: dict[str, Any] = {"store": tmp_path / "store"} if kind == "states" else {}
    PolicyPersistence(mode=STATE_DICT, **options).persist(policy, world)
    restored = Policy()
    if kind == "files":
        with pytest.raises(StateNotFoundError, match=r"policy\.pt .*there is policy_state_dict\.pt"):
            PolicyPersistence().restore(restored, world, "cpu")
        options = {"name": "policy_state_dict"}
        PolicyPersistence().restore(restored, world, "cpu", **options)
    else:
        PolicyPersistence(**options).restore(restored, world, "cpu")
    assert value_of(restored) == 4


@pytest.mark.parametrize("mode", MODES)
def test_tensors_go_to_the_device_that_is_asked_for(tmp_path: Path, mode: PolicyMode) -> None:
    seen: list[str] = []

    class Watching(Policy):
        @override
        def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
            seen.extend(str(value.device) for value in state_dict.values() if isinstance(value, torch.Tensor))
            return super().load_state_dict({**state_dict, **self.state_dict()}, strict=strict, assign=assign)

    policy = Policy(1)
    world = world_in(tmp_path, policy)
    PolicyPersistence(mode=mode).persist(policy, world)
    PolicyPersistence(mode=mode, allow_pickle=True).restore(Watching(), world, torch.device("meta"))
    assert set(seen) == {"meta"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is needed")
@pytest.mark.parametrize("mode", MODES)
def test_a_device_that_is_not_there_is_not_taken_for_damage(tmp_path: Path, mode: PolicyMode) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    PolicyPersistence(mode=mode).persist(policy, world)
    with pytest.raises(StateVaultError, match="cuda") as raised:
        PolicyPersistence(mode=mode, allow_pickle=True).restore(policy, world, "cuda")
    assert not isinstance(raised.value, FormatError)
    message = str(raised.value)
    assert message.startswith(str(tmp_path / mode.get_filename())), "where it is, and not where it was fetched to"
    with pytest.raises((RuntimeError, AssertionError)) as reason:
        torch.empty(1, device="cuda")
    assert message.endswith(str(reason.value)), "the reason"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_default_device_decides_nothing(tmp_path: Path, mode: PolicyMode, device: str) -> None:
    policy, restored = Policy(4), Policy(1)
    world = world_in(tmp_path, policy)
    with torch.device(device):
        PolicyPersistence(mode=mode).persist(policy, world)
        PolicyPersistence(mode=mode, allow_pickle=True).restore(restored, world, None)
    assert value_of(restored) == 4


@pytest.mark.parametrize("mode", MODES)
def test_a_policy_without_values_is_not_restored(tmp_path: Path, mode: PolicyMode) -> None:
    policy = Policy(4)
    world = world_in(tmp_path, policy)
    PolicyPersistence(mode=mode).persist(policy, world)
    with pytest.raises(StateVaultError, match="on the meta device") as caught:
        PolicyPersistence(mode=mode, allow_pickle=True).restore(Policy(1).to("meta"), world, "cpu")
    assert not isinstance(caught.value, FormatError)


@pytest.mark.parametrize("mode", MODES)
def test_a_policy_that_does_not_fit_is_left_as_it_was(tmp_path: Path, mode: PolicyMode) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    statistics = Statistics(1)
    PolicyPersistence(statistics, mode=mode).persist(policy, world)
    other = Policy(2)
    other.layers.append(nn.Linear(4, 4))
    before = {name: parameter.clone() for name, parameter in other.named_parameters()}
    statistics.value = 2
    with pytest.raises(FormatError, match=r"does not fit the Policy[^$]*layers\.2"):
        PolicyPersistence(statistics, mode=mode, allow_pickle=True).restore(other, world, "cpu")
    assert all(torch.equal(before[name], parameter) for name, parameter in other.named_parameters())
    assert statistics.value == 2


def test_an_optimizer_that_does_not_fit_is_told(tmp_path: Path) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    PolicyPersistence(mode=STATE_DICT).persist(policy, world)
    other = Policy(2)
    other.optimizer = torch.optim.Adam(other.norm.parameters())
    with pytest.raises(FormatError, match=r"does not fit the Policy.*parameter group"):
        PolicyPersistence(mode=STATE_DICT).restore(other, world, "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_saved_when_it_is_not_enabled_but_restored(tmp_path: Path, kind: str) -> None:
    policy = Policy(1)
    world = world_in(tmp_path / "files", policy)
    options: dict[str, Any] = {"store": tmp_path / "store"} if kind == "states" else {}
    disabled = PolicyPersistence(None, False, STATE_DICT, **options)
    disabled.persist(policy, world)
    disabled.get_save_best_fn(world)(policy)
    assert disabled.get_save_checkpoint_fn(world) is None
    assert list(tmp_path.rglob("*")) == []
    PolicyPersistence(mode=STATE_DICT, **options).persist(policy, world)
    restored = Policy()
    disabled.restore(restored, world, "cpu")
    assert value_of(restored) == 1


class Noting(Persistence):
    """Notes what it is asked."""

    def __init__(self, name: str, notes: list[tuple[str, object]]) -> None:
        self.name = name
        self.notes = notes

    @override
    def persist(self, event: PersistEvent, world: Any) -> None:
        self.notes.append((self.name, event))
        Path(world.persist_path(self.name)).write_text(self.name)

    @override
    def restore(self, event: RestoreEvent, world: Any) -> None:
        self.notes.append((self.name, event))
        assert Path(world.restore_path(self.name)).read_text() == self.name


def test_a_group_asks_its_members_in_their_order_and_restores_when_disabled(tmp_path: Path) -> None:
    notes: list[tuple[str, object]] = []
    members = [Noting("b", notes), Noting("a", notes), PersistenceGroup(Noting("c", notes))]
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    PolicyPersistence(PersistenceGroup(*members), mode=STATE_DICT).persist(policy, world)
    PolicyPersistence(PersistenceGroup(*members, enabled=False), mode=STATE_DICT).restore(policy, world, "cpu")
    assert notes == [
        *((name, PersistEvent.PERSIST_POLICY) for name in "bac"),
        *((name, RestoreEvent.RESTORE_POLICY) for name in "bac"),
    ]
    notes.clear()
    PersistenceGroup(*members, enabled=False).persist(PersistEvent.PERSIST_POLICY, world)
    assert notes == []


def test_an_object_that_would_silently_do_nothing_is_refused() -> None:
    class OfAnotherLibrary:
        def persist(self, event: object, world: object) -> None: ...

        def restore(self, event: object, world: object) -> None: ...

    for wrong, message in (
        (OfAnotherLibrary(), r"inherit.*FromTianshou"),
        (object(), "no Persistence"),
        (Statistics, "no Persistence"),
    ):
        for make in (PolicyPersistence, PersistenceGroup):
            with pytest.raises(TypeError, match=message):
                make(wrong)  # type: ignore[arg-type]


def test_the_enums_are_those_of_tianshou() -> None:
    assert PersistEvent.PERSIST_POLICY.value == "persist_policy"
    assert RestoreEvent.RESTORE_POLICY.value == "restore_policy"
    assert PolicyPersistence.Mode is PolicyMode
    assert {mode.value: mode.get_filename() for mode in PolicyMode} == {
        "policy": "policy.pt",
        "policy_state_dict": "policy_state_dict.pt",
    }


@pytest.mark.parametrize("mode", [STATE_DICT, "policy_state_dict"])
def test_a_mode_is_also_known_by_its_value(mode: Any) -> None:
    assert PolicyPersistence(mode=mode).mode is STATE_DICT
    with pytest.raises(ValueError, match="halves"):
        PolicyPersistence(mode="halves")  # type: ignore[arg-type]


# -- worlds


def test_a_foreign_world_with_strings_gets_strings(tmp_path: Path) -> None:
    policy = Policy(1)
    world = ForeignWorld(policy, str(tmp_path), str(tmp_path))
    seen: list[Any] = []

    class Typed(Statistics):
        @override
        def persist(self, event: PersistEvent, world: Any) -> None:
            seen.append((world.persist_path("x"), world.persist_directory, world.policy, world.trainer))
            super().persist(event, world)

    saving = PolicyPersistence(Typed(1), mode=STATE_DICT)
    checkpoint = saving.get_save_checkpoint_fn(world)
    assert checkpoint is not None
    world.trainer = Trainer()
    assert checkpoint(1, 10, 100) == os.path.join(tmp_path, "policy_state_dict_epoch_1.pt")  # noqa: PTH118
    path, directory, its_policy, its_trainer = seen[0]
    assert (type(path), type(directory), its_policy, its_trainer) == (str, str, policy, world.trainer)
    restored = Policy()
    saving.restore(restored, world, "cpu", epoch=1)
    assert value_of(restored) == 1
    states = PolicyPersistence(mode=STATE_DICT, store=tmp_path / "store").get_save_checkpoint_fn(world)
    assert states is not None
    assert states(1, 10, 100) == str(tmp_path / "store" / "policy_epoch_1.state")


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name not in ("local", "memory")])
def test_a_foreign_world_may_give_urls(backend: str, servers: Servers) -> None:
    place = servers.target(backend)
    policy = Policy(1)
    world = ForeignWorld(policy, place.url, place.url)
    statistics = Statistics(1)
    with PolicyPersistence(statistics, mode=STATE_DICT, storage_options=place.storage_options) as saving:
        saving.persist(policy, world)
        statistics.value = 0
        restored = Policy()
        saving.restore(restored, world, "cpu")
    assert (value_of(restored), statistics.value) == (1, 1)


def test_a_view_is_its_world_but_for_the_paths(tmp_path: Path) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy)
    seen: list[Any] = []

    class Meddling(Persistence):
        @override
        def persist(self, event: PersistEvent, world: Any) -> None:
            seen.append(world)
            world.note = "set"
            world.persist_directory = "elsewhere"
            with pytest.raises(AttributeError, match="nothing_of_that_name"):
                _ = world.nothing_of_that_name
            with pytest.raises(ValueError, match="restore"):
                world.restore_path("x")

        @override
        def restore(self, event: RestoreEvent, world: Any) -> None:
            with pytest.raises(ValueError, match="persist"):
                world.persist_path("x")

    persistence = PolicyPersistence(Meddling(), mode=STATE_DICT)
    persistence.persist(policy, world)
    persistence.restore(policy, world, "cpu")
    (view,) = seen
    assert view is not world
    assert view == world
    assert hash(view) == hash(world)
    assert world.note == "set"  # type: ignore[attr-defined]
    assert world.persist_directory == tmp_path
    assert repr(world) in repr(view)


def test_a_world_without_a_place_says_which_argument_is_missing(tmp_path: Path) -> None:
    policy = Policy()
    with pytest.raises(ValueError, match="restore_directory="):
        PolicyPersistence().restore(policy, World(policy, tmp_path), "cpu")
    with pytest.raises(ValueError, match="persist_directory="):
        PolicyPersistence().persist(policy, World(policy, None, tmp_path))


def test_a_world_may_restore_from_another_storage_than_it_saves_to(servers: Servers, tmp_path: Path) -> None:
    remote = servers.target("memory")
    policy = Policy(1)
    persistence = PolicyPersistence(mode=STATE_DICT)
    persistence.persist(policy, world_in(remote, policy))
    world = World(policy, tmp_path, remote.url, restore_storage_options=remote.storage_options, envs="these")
    policy.set_to(2)
    persistence.restore(policy, world, "cpu")
    persistence.persist(policy, world)
    assert value_of(policy) == 1
    assert (tmp_path / "policy_state_dict.pt").is_file()
    assert world.envs == "these"  # type: ignore[attr-defined]
    assert isinstance(world.restore_path("x"), UPath)
    assert isinstance(world.persist_path("x"), Path)


def test_a_world_has_an_algorithm_or_a_policy(tmp_path: Path) -> None:
    class Nothing:
        def persist_path(self, filename: str) -> str:
            return str(tmp_path / filename)

        def restore_path(self, filename: str) -> str:
            return str(tmp_path / filename)

    checkpoint = PolicyPersistence(mode=STATE_DICT).get_save_checkpoint_fn(Nothing())
    assert checkpoint is not None
    with pytest.raises(TypeError, match="'algorithm' or 'policy'"):
        checkpoint(1, 1, 1)


def test_one_policy_is_asked_for_in_one_way(tmp_path: Path) -> None:
    policy = Policy()
    with pytest.raises(ValueError, match="not both"):
        PolicyPersistence().restore(policy, world_in(tmp_path, policy), "cpu", name="policy", epoch=3)
    with pytest.raises(StateNotFoundError, match=r"policy_epoch_3\.pt"):
        PolicyPersistence().restore(policy, world_in(tmp_path, policy), "cpu", epoch=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    with StateStore(tmp_path / "store") as opened:
        yield opened


def test_a_store_that_was_given_stays_open(store: StateStore, tmp_path: Path) -> None:
    policy = Policy(1)
    with PolicyPersistence(mode=STATE_DICT, store=store) as persistence:
        persistence.persist(policy, world_in(tmp_path, policy))
    assert store.names() == ["policy_best.state"]
    with pytest.raises(RuntimeError, match="a store of its own"):
        store.save_state()
    with pytest.raises(KeyError, match="policy"):
        PolicyPersistence(store=store)


def test_what_is_saved_and_restored_is_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy(1)
    world = world_in(tmp_path, policy, Trainer(score=2.5, epoch=4))
    with caplog.at_level(logging.INFO, "statevault.persistence"):
        PolicyPersistence(mode=STATE_DICT).persist(policy, world)
        PolicyPersistence(mode=STATE_DICT).restore(policy, world, "cpu")
    path = tmp_path / "policy_state_dict.pt"
    assert [record.message for record in caplog.records if record.name.startswith("statevault.persistence")] == [
        f"Saved the policy in {path} (epoch 4, score 2.5)",
        f"Restored the policy from {path}",
    ]
