"""Who uses the package sees its types: without ``py.typed`` every name is Any to a type checker."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

USER = """
from statevault import StateStore

with StateStore("./states") as store:
    reveal_type(store.save_state())
    store.load_state(7)
"""


def test_the_package_says_that_it_has_types() -> None:
    assert files("statevault").joinpath("py.typed").is_file()


@pytest.mark.long
def test_a_type_checker_sees_the_types_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "user.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert 'Revealed type is "upath' in checked.stdout, checked.stdout
    assert 'user.py:6: error: Argument 1 to "load_state"' in checked.stdout
