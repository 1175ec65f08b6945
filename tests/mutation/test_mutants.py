"""Every step of the protocol has a test that fails without it.

The short profile only makes sure that each mutant still is one: that the piece of code that it changes is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.mutants import MUTANTS, Mutant

_ROOT = Path(__file__).parents[2]


def mutated(mutant: Mutant) -> str:
    """The source of the module with the change made."""
    source = (_ROOT / "statevault" / mutant.module).read_text()
    assert source.count(mutant.before) == 1, f"{mutant.module} has changed: adapt the mutant"
    return source.replace(mutant.before, mutant.after)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_code(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.module, "exec")


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: Mutant, tmp_path: Path) -> None:
    for package in ("statevault", "tests"):
        shutil.copytree(_ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "statevault" / mutant.module).write_text(mutated(mutant))
    files = [f"tests/state_persistence/{name}" for name in mutant.tests]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "STATEVAULT_TEST_PROFILE": "short"}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", "120", *files],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 1, f"no test has failed:\n{tested.stdout[-2000:]}{tested.stderr[-1000:]}"
