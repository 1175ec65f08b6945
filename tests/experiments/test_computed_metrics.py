"""Computed metrics: with their marker, and without what can be made anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from statevault.errors import ExperimentNotFoundError
from statevault.experiments import CheckpointManager
from tests.experiments.objects import Counting


@dataclass(frozen=True)
class Metrics:
    loss: float
    network_views: Any = None


@pytest.fixture
def manager(tmp_path: Path) -> CheckpointManager:
    made = CheckpointManager(tmp_path / "run")
    made.initialize([Counting("a")], None, 2)
    complete(made, 0)
    return made


def complete(manager: CheckpointManager, trial: int) -> None:
    manager.mark_trial_complete(
        alg_idx=0, trial=trial, iteration=9, algorithm=Counting("a"), network=f"network {trial}", rng_state=None
    )


def test_views_are_made_anew_once_the_experiment_is_complete(manager: CheckpointManager, tmp_path: Path) -> None:
    complete(manager, 1)
    metrics = Metrics(0.5, {"a": ["b" * 100_000]})
    manager.save_metrics_result(metrics)
    assert metrics.network_views == {"a": ["b" * 100_000]}
    assert manager.load_metrics_result() == Metrics(0.5, {"a": ["network 0", "network 1"]})
    assert manager.load_metrics_result(skip_network_views=True) == Metrics(0.5, None)
    manager.save_metrics_result({"loss": 1, "network_views": 3})
    assert manager.load_metrics_result() == {"loss": 1, "network_views": {"a": ["network 0", "network 1"]}}


def test_views_stay_as_long_as_the_experiment_is_not_complete(manager: CheckpointManager) -> None:
    manager.save_metrics_result(Metrics(0.5, "views"))
    assert manager.load_metrics_result() == Metrics(0.5, "views")
    assert manager.load_metrics_result(skip_network_views=True) == Metrics(0.5, None)


def test_metrics_of_any_kind(manager: CheckpointManager) -> None:
    for metrics in (None, 3, [1, 2], {"a": 1}):
        manager.save_metrics_result(metrics)
        assert manager.are_metrics_computed()
        assert manager.load_metrics_result() == metrics


def test_what_was_not_computed_is_told(manager: CheckpointManager) -> None:
    assert not manager.are_metrics_computed()
    with pytest.raises(ExperimentNotFoundError, match="not computed"):
        manager.load_metrics_result()


@pytest.mark.parametrize("more", [{"increase_trials": 1}, {"increase_iterations": 1}])
def test_metrics_of_fewer_trials_or_iterations_count_for_nothing(
    manager: CheckpointManager, more: dict[str, int]
) -> None:
    manager.save_metrics_result(Metrics(0.5))
    manager.extend(**more)
    assert not manager.are_metrics_computed()


def test_a_new_result_invalidates_the_metrics(manager: CheckpointManager) -> None:
    manager.save_metrics_result(Metrics(0.5))
    complete(manager, 1)
    assert not manager.are_metrics_computed()


def test_a_marker_without_its_metrics_counts_for_nothing(
    manager: CheckpointManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager.save_metrics_result(Metrics(0.5))
    payload = tmp_path / "run/metric_computation.pkl.zst"
    first = payload.read_bytes()
    manager.save_metrics_result(Metrics(0.7))
    payload.write_bytes(first)
    assert not manager.are_metrics_computed()
    assert "not of the metrics that lie beside it" in caplog.text
    payload.unlink()
    assert not manager.are_metrics_computed()
