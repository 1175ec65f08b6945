"""What Tianshou's own PolicyPersistence has written is restored as well, with the statistics that lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typing_extensions import override

from statevault.errors import FormatError, PickleNotAllowedError
from statevault.persistence import (
    Persistence,
    PersistEvent,
    PolicyPersistence,
    RestoreEvent,
    list_policies,
    verify_policy,
)
from statevault.storage import open_storage
from tests.persistence.worlds import POLICY, STATE_DICT, Policy, Statistics, value_of, world_in

LEGACY = {"_use_new_zipfile_serialization": False}


class Beside(Persistence):
    """Reads a file where Tianshou left it: beside the policy."""

    value = 0.0

    @override
    def persist(self, event: PersistEvent, world: Any) -> None:
        Path(world.persist_path("statistics.txt")).write_text(str(self.value))

    @override
    def restore(self, event: RestoreEvent, world: Any) -> None:
        self.value = float(Path(world.restore_path("statistics.txt")).read_text())


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["archive", "legacy"])
@pytest.mark.parametrize("mode", [POLICY, STATE_DICT], ids=["whole", "state dict"])
def test_a_file_of_torch_save_is_restored(
    tmp_path: Path, mode: PolicyPersistence.Mode, options: dict[str, Any]
) -> None:
    policy = Policy(3)
    torch.save(policy if mode is POLICY else policy.state_dict(), tmp_path / mode.get_filename(), **options)
    (tmp_path / "statistics.txt").write_text("1.5")
    restored, statistics = Policy(), Beside()
    persistence = PolicyPersistence(statistics, mode=mode, allow_pickle=mode is POLICY)
    persistence.restore(restored, world_in(tmp_path, restored), "cpu")
    assert (value_of(restored), statistics.value) == (3, 1.5)
    # From then on the statistics belong to the policy.
    persistence.persist(restored, world_in(tmp_path, restored))
    (tmp_path / "statistics.txt").unlink()
    statistics.value = 0
    persistence.restore(restored, world_in(tmp_path, restored), "cpu")
    assert statistics.value == 1.5


def test_a_state_dict_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    policy = Policy(3)
    world = world_in(tmp_path, policy)
    for options in ({}, LEGACY):
        torch.save({**policy.state_dict(), "bomb": Bomb()}, tmp_path / "policy_state_dict.pt", **options)
        for mode in (STATE_DICT, POLICY):
            with pytest.raises(PickleNotAllowedError, match="code of whoever"):
                PolicyPersistence(mode=mode).restore(policy, world, "cpu", name="policy_state_dict")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", [POLICY, STATE_DICT], ids=["whole", "state dict"])
def test_a_file_that_holds_something_else_says_what(tmp_path: Path, mode: PolicyPersistence.Mode) -> None:
    policy = Policy(3)
    torch.save([1, 2], tmp_path / mode.get_filename())
    with pytest.raises(FormatError, match=r"policy.*holds a list, not"):
        PolicyPersistence(mode=mode, allow_pickle=True).restore(policy, world_in(tmp_path, policy), "cpu")


def test_older_policies_are_listed_by_what_their_names_tell(tmp_path: Path) -> None:
    policy = Policy(3)
    torch.save(policy, tmp_path / "policy.pt")
    torch.save(policy.state_dict(), tmp_path / "policy_state_dict_epoch_12.pt")
    PolicyPersistence(Statistics()).persist(policy, world_in(tmp_path / "other", policy))
    whole, checkpoint = list_policies(open_storage(tmp_path))
    assert (whole.name, whole.mode, whole.epoch, whole.is_sealed) == ("policy.pt", "policy", None, False)
    assert whole.size == (tmp_path / "policy.pt").stat().st_size
    assert (checkpoint.mode, checkpoint.epoch, checkpoint.is_sealed) == ("policy_state_dict", 12, False)
    assert (checkpoint.additional, checkpoint.additional_folder) == (None, "")
    assert not verify_policy(open_storage(tmp_path), "policy").is_sealed
