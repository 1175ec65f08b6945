"""The public names: what ``__all__`` says, what is there, what the reference lists, and what an import costs."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from statevault import LaunchConfig, StateStore, errors, read_tree, write_tree
from statevault.state_persistence import LatestStatesKeeper
from statevault.storage import RetryPolicy, open_storage
from statevault.torch import TorchTrainingModel
from tests.docs.examples import ROOT

PACKAGES = [
    "statevault",
    "statevault.codecs",
    "statevault.console",
    "statevault.data",
    "statevault.data.impls",
    "statevault.errors",
    "statevault.experiments",
    "statevault.experiments.report",
    "statevault.gym",
    "statevault.interaction",
    "statevault.launcher",
    "statevault.model",
    "statevault.persistence",
    "statevault.schedulers",
    "statevault.sealed",
    "statevault.state_persistence",
    "statevault.state_persistence.spool",
    "statevault.storage",
    "statevault.testing",
    "statevault.time",
    "statevault.torch",
    "statevault.trainer",
]

# Of extras, or needed for one backend only.
OPTIONAL = [
    *("aiobotocore", "boto3", "botocore", "gcsfs", "gymnasium", "httpx", "joblib", "matplotlib", "prometheus_client"),
    *("rich", "s3fs", "starlette", "tianshou", "torch", "typer", "uvicorn"),
]
HEAVY = [*OPTIONAL, "blake3", "fsspec", "msgpack", "numpy", "pydantic", "upath", "zstandard"]


def sections() -> dict[str, str]:
    """The text of the reference by package."""
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    parts = re.split(r"^## `([\w.]+)`$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def in_order(name: str) -> tuple[int, str]:
    """The order of names in ``__all__``: constants, classes, the rest, each by the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_every_name_exists(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__, key=in_order)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_lists_exactly_the_public_names(package: str) -> None:
    section = sections()[package]
    if package == "statevault":
        listed = {name for row in section.splitlines() if row.startswith("| `") for name in row.split("`")[3::2]}
    else:
        listed = set(re.findall(r"^\| `(\w+)` \| \S", section, flags=re.MULTILINE))
    assert listed == set(importlib.import_module(package).__all__)


def test_the_reference_has_no_other_packages() -> None:
    assert sorted(sections()) == PACKAGES


def test_every_error_has_a_remedy() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    missing = [name for name in errors.__all__ if f"`{name}`" not in text and name != "StateVaultError"]
    assert missing == []


@pytest.mark.parametrize(
    "subject",
    [StateStore, LatestStatesKeeper, RetryPolicy, TorchTrainingModel, open_storage, read_tree, write_tree],
    ids=lambda subject: subject.__name__,
)
def test_the_reference_has_the_signature(subject: Callable[..., Any]) -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    found = re.search(rf"^{subject.__name__}\(([^()]*(?:\(\)[^()]*)?)\)", text, flags=re.MULTILINE)
    assert found is not None
    documented = [
        part.partition("=")[0].strip() for part in found[1].split(",") if part.strip() not in {"*", '%f.state"'}
    ]
    assert documented == list(inspect.signature(subject).parameters)


def test_the_guide_has_every_method_of_a_store() -> None:
    text = sections()["statevault.state_persistence"]
    methods = {name for name in dir(StateStore) if not name.startswith("_")}
    assert set(re.findall(r"^  \.(\w+)", text, flags=re.MULTILINE)) == methods


def test_the_guide_has_every_field_of_launch_config() -> None:
    text = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
    table = text.partition("## Configuration\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)` \| ", table, flags=re.MULTILINE))
    assert documented == {field.name for field in dataclasses.fields(LaunchConfig)}


def test_the_readme_has_every_extra() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| extra |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == set(extras)


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, statevault; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert result.stdout.strip() == "[]"


def test_import_leaves_out_what_it_does_not_need() -> None:
    code = (
        "import sys, statevault; statevault.StateStore('memory://x'); statevault.launch;"
        f"print([name for name in {OPTIONAL!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert result.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    module = importlib.import_module("statevault")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense
