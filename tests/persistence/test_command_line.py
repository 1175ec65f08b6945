"""Policies as files on the command line, where what lies there is damaged or hostile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from statevault.persistence import PolicyPersistence
from tests.cli.run import in_a_terminal, invoked
from tests.persistence.worlds import STATE_DICT, Policy, Statistics, world_in

NAME = STATE_DICT.get_filename()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    policy = Policy(1)
    PolicyPersistence(Statistics(), mode=STATE_DICT).persist(policy, world_in(tmp_path / "saved", policy))
    return tmp_path / "saved"


def test_cp_puts_right_what_is_damaged_in_the_target(saved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert invoked("cp", str(saved), str(copy)).code == 0
    content = bytearray((copy / NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / NAME).write_bytes(content)
    assert invoked("cp", str(saved), str(copy)).out.startswith("copied")
    assert invoked("verify", str(copy)).code == 0
    shutil.rmtree(copy / "policy_state_dict.additional")
    assert invoked("cp", str(saved), str(copy)).out.startswith("copied")
    assert invoked("verify", str(copy)).code == 0
    assert invoked("cp", str(saved), str(copy)).out.startswith("present")


def test_verify_and_cp_find_a_policy_that_was_cut_short(saved: Path, tmp_path: Path) -> None:
    assert "1 policy checked, 0 damaged" in invoked("verify", str(saved)).out
    os.truncate(saved / NAME, (saved / NAME).stat().st_size // 2)
    found = invoked("verify", str(saved))
    assert found.code == 4
    assert "cut short" in found.out
    assert invoked("cp", str(saved), str(tmp_path / "copy")).code == 4
    assert not (tmp_path / "copy" / NAME).exists()


def test_a_name_cannot_drive_the_terminal_through_the_progress_bar(saved: Path) -> None:
    for name in ("policy_[bold red].pt", "policy_\u202e.pt"):
        shutil.copyfile(saved / NAME, saved / name)
    shutil.rmtree(saved / "policy_state_dict.additional")
    shown = in_a_terminal("verify", str(saved), columns=200).out
    assert "verifying policy_[bold red].pt" in shown
    assert "verifying policy_\\u202e.pt" in shown
    assert "\u202e" not in shown
