"""The global random generators go on where they stood."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from statevault.errors import FormatError
from statevault.state_persistence import RandomGenerators, read_tree, write_tree


def draw() -> list[float]:
    """Numbers of all generators, of both kinds where one keeps a second number back."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.random()),
        float(np.random.standard_normal()),
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def scramble() -> None:
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)


def test_generators_go_on_where_they_stood(tmp_path: Path) -> None:
    scramble()
    draw()
    RandomGenerators().save_state(tmp_path / "rng")
    expected = [draw() for _ in range(3)]
    scramble()
    assert draw() != expected[0]
    RandomGenerators().load_state(tmp_path / "rng")
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_generators_go_on_whatever_the_default_device_is(tmp_path: Path, device: str) -> None:
    scramble()
    with torch.device(device):
        RandomGenerators().save_state(tmp_path / "rng")
    expected = draw()
    with torch.device(device):
        RandomGenerators().load_state(tmp_path / "rng")
    assert draw() == expected


def test_saving_draws_nothing(tmp_path: Path) -> None:
    scramble()
    expected = draw()
    scramble()
    RandomGenerators().save_state(tmp_path / "rng")
    assert draw() == expected


def test_what_is_not_loaded_is_neither_saved_nor_imported(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib
from statevault.state_persistence import RandomGenerators, read_tree
RandomGenerators().save_state(pathlib.Path({str(tmp_path)!r}, "rng"))
RandomGenerators().load_state(pathlib.Path({str(tmp_path)!r}, "rng"))
assert "torch" not in sys.modules and "numpy" not in sys.modules, sys.modules.keys()
assert read_tree(pathlib.Path({str(tmp_path)!r}, "rng.tree")).keys() == {{"python"}}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_a_state_without_torch_leaves_torch_alone(tmp_path: Path) -> None:
    RandomGenerators().save_state(tmp_path / "rng")
    record = read_tree(tmp_path / "rng.tree")
    del record["torch"]
    write_tree(record, tmp_path / "rng.tree")
    torch.manual_seed(5)
    expected = float(torch.rand(()))
    torch.manual_seed(5)
    RandomGenerators().load_state(tmp_path / "rng")
    assert float(torch.rand(())) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device of the test is there")
def test_a_device_that_is_not_there_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RandomGenerators().save_state(tmp_path / "rng")
    record = read_tree(tmp_path / "rng.tree")
    record["torch"]["cuda"] = [bytes(16)]
    write_tree(record, tmp_path / "rng.tree")
    expected = draw()
    RandomGenerators().load_state(tmp_path / "rng")
    assert draw() == expected
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "the state has the random generator of cuda:0, which is not there: it is not set"
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_generators_of_cuda_devices_go_on_where_they_stood(tmp_path: Path) -> None:
    torch.rand(1, device="cuda")
    RandomGenerators().save_state(tmp_path / "rng")
    expected = torch.rand(3, device="cuda").tolist()
    torch.manual_seed(99)
    RandomGenerators().load_state(tmp_path / "rng")
    assert torch.rand(3, device="cuda").tolist() == expected


@pytest.mark.parametrize(
    "record",
    [
        [1],
        {},
        {"python": (3, (1, 2), None)},
        {"python": random.getstate(), "numpy": {"bit_generator": "nonsense"}},
        {"python": random.getstate(), "torch": {"cpu": b"short", "cuda": []}},
    ],
    ids=["list", "empty", "python", "numpy", "torch"],
)
def test_what_is_no_state_of_generators_is_refused(record: object, tmp_path: Path) -> None:
    write_tree(record, tmp_path / "rng.tree")
    with pytest.raises(FormatError, match=r"rng\.tree"):
        RandomGenerators().load_state(tmp_path / "rng")
