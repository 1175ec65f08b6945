"""Counts as users give them: one check for every policy, keeper, launch and experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from statevault import (
    BestStatesKeeper,
    KeepBest,
    KeepLatest,
    KeepPeriodic,
    KeepWithinSize,
    LatestStatesKeeper,
    LaunchConfig,
    PeriodicStatesKeeper,
)
from statevault.experiments import CheckpointManager
from statevault.state_persistence.whole_numbers import whole_number


class Three:
    """A number of somebody's own."""

    def __index__(self) -> int:
        return 3


TAKERS: dict[str, tuple[str, Callable[[Any, Path], Any]]] = {
    "KeepLatest": ("n", lambda count, _: KeepLatest(count).n),
    "KeepBest": ("n", lambda count, _: KeepBest(count, metric="reward").n),
    "KeepPeriodic": ("weekly", lambda count, _: KeepPeriodic(weekly=count).weekly),
    "KeepWithinSize": ("max_bytes", lambda count, _: KeepWithinSize(count).max_bytes),
    "LatestStatesKeeper": ("max_keep", lambda count, _: LatestStatesKeeper("", count).max_keep),
    "BestStatesKeeper": ("max_keep", lambda count, _: BestStatesKeeper("", count, "reward").policy.n),  # type: ignore[attr-defined]
    "PeriodicStatesKeeper": ("daily", lambda count, _: PeriodicStatesKeeper("", daily=count).policy.daily),  # type: ignore[attr-defined]
    "LaunchConfig": ("max_keep_states", lambda count, _: LaunchConfig(max_keep_states=count).max_keep_states),
    "CheckpointManager": (
        "keep_n_checkpoints",
        lambda count, path: CheckpointManager(path, keep_n_checkpoints=count)._policy.n,  # type: ignore[attr-defined]
    ),
}
every_taker = pytest.mark.parametrize(("name", "take"), TAKERS.values(), ids=TAKERS)


@every_taker
@pytest.mark.parametrize(
    "count",
    [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), Three()],
    ids=lambda count: type(count).__name__,
)
def test_whatever_is_an_integer_becomes_pythons(
    name: str, take: Callable[[Any, Path], Any], count: Any, tmp_path: Path
) -> None:
    taken = take(count, tmp_path)
    assert (taken, type(taken)) == (3, int)


@every_taker
@pytest.mark.parametrize(
    "count",
    [True, np.True_, 2.5, 3.0, np.float64(3), float("nan"), float("inf"), "3", None, [3]],
    ids=repr,
)
def test_whatever_is_none_is_refused_with_one_message(
    name: str, take: Callable[[Any, Path], Any], count: Any, tmp_path: Path
) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        take(count, tmp_path)
    assert "must be an integer, not" in str(caught.value)
    assert name in str(caught.value)
    # A field of a pydantic dataclass is an error of that, which is a ValueError.
    assert isinstance(caught.value, ValueError if take is TAKERS["LaunchConfig"][1] else TypeError)


@every_taker
@pytest.mark.parametrize("count", [0, np.int64(0), 2**63, 10**5000], ids=["0", "np0", "2**63", "10**5000"])
def test_numbers_out_of_range_are_refused(
    name: str, take: Callable[[Any, Path], Any], count: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="at least|less than"):
        take(count, tmp_path)


def test_policies_of_equal_counts_are_equal() -> None:
    assert KeepLatest(np.int64(3)) == KeepLatest(3)  # type: ignore[arg-type]
    assert repr(KeepLatest(np.int64(3))) == "KeepLatest(n=3)"  # type: ignore[arg-type]


def test_a_range_is_named() -> None:
    assert whole_number("n", -5) == -5
    with pytest.raises(ValueError, match=r"^n must be at least 2, not 1$"):
        whole_number("n", 1, minimum=2)
