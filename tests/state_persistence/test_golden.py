"""Stores that released versions wrote are read for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from statevault.errors import StatePrunedError
from statevault.state_persistence import StateStore
from tests.state_persistence.components import Folder
from tests.state_persistence.golden_store import METADATA, NEW, OLD, TREE, Tree

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("version", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_store_of_every_format_version_is_read(version: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / version, tmp_path / "store")
    folder, tree = Folder(), Tree()
    with StateStore(tmp_path / "store") as store:
        store.register("folder", folder)
        store.register("time", tree)
        assert [(info.name, info.sequence) for info in store.states()] == [("old.state", 2), ("new.state", 3)]
        assert store.states()[-1].metadata == METADATA
        store.load_state("latest")
        assert (folder.files, tree.value) == (NEW, TREE)
        store.load_state("old.state")
        assert (folder.files, tree.value) == (OLD, {"step": 1})
        with pytest.raises(StatePrunedError):
            store.load_state("removed.state")
        assert store.save_state(name="next.state").name == "next.state"
        assert store.states()[-1].sequence == 4


def test_there_is_a_golden_store_of_version_1() -> None:
    assert (GOLDEN / "v1" / "_vault" / "format.json").is_file()
