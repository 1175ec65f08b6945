"""What is measured of trials: numbers and curves, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle
from collections import deque
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from statevault.experiments.metrics import MetricsResult, compute_metrics
from statevault.experiments.results import ExperimentResult, TrialResult
from tests.experiments.report.outcomes import experiment, measured


def network(trial: TrialResult) -> Any:
    return trial.network


def test_each_trial_of_each_algorithm_is_measured_in_order() -> None:
    result = compute_metrics(
        experiment(b=[1.5, 2], a=[3, 4]), {"value": network, "history": lambda trial: [0, trial.network]}
    )
    assert result.values["value"] == {"b": {0: 1.5, 1: 2.0}, "a": {0: 3.0, 1: 4.0}}
    assert result.values["history"]["a"][1].tolist() == [0.0, 4.0]  # type: ignore[union-attr]
    assert result.trials == {"b": (0, 1), "a": (0, 1)}
    assert result.metrics == ("value", "history")
    assert result.algorithms == ("b", "a")
    assert not result.is_curve("value")
    assert result.is_curve("history")


def test_a_trial_is_found_by_its_number_where_others_are_missing() -> None:
    trials = [TrialResult(0, "a", number, 9, None, number * 10) for number in (1, 4)]
    result = compute_metrics(ExperimentResult(None, {"a": trials}), {"value": network})
    assert result.values["value"]["a"] == {1: 10.0, 4: 40.0}
    assert result.trials == {"a": (1, 4)}


@pytest.mark.parametrize(
    "number",
    [2, 2.0, np.float32(2), np.int8(2), np.uint64(2), np.array(2.0), np.float16(2)],
    ids=lambda number: type(number).__name__ + str(getattr(number, "dtype", "")),
)
def test_numbers_of_all_kinds_become_floats(number: Any) -> None:
    value = compute_metrics(experiment(a=[number]), {"value": network}).values["value"]["a"][0]
    assert type(value) is float
    assert value == 2.0


@pytest.mark.parametrize(
    "curve",
    [[1, 2], (1.0, 2), deque([1, 2]), np.array([1, 2], np.int32), range(1, 3), [np.float32(1), 2], [True, 2]],
    ids=lambda curve: type(curve).__name__,
)
def test_sequences_of_all_kinds_become_arrays(curve: Any) -> None:
    value = compute_metrics(experiment(a=[curve]), {"value": network}).values["value"]["a"][0]
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.float64
    assert value.tolist() == [1.0, 2.0]


def test_booleans_are_counted_so_that_their_mean_is_a_rate() -> None:
    result = compute_metrics(experiment(a=[True, np.False_]), {"solved": network})
    assert result.values["solved"]["a"] == {0: 1.0, 1: 0.0}


def test_a_history_that_goes_on_does_not_change_what_was_measured() -> None:
    history = np.zeros(3)
    result = compute_metrics(experiment(a=[history]), {"history": network})
    history += 1
    assert result.values["history"]["a"][0].tolist() == [0, 0, 0]  # type: ignore[union-attr]


def test_nan_and_infinity_are_values_like_others() -> None:
    result = compute_metrics(experiment(a=[math.nan, -math.inf]), {"value": network})
    assert math.isnan(result.values["value"]["a"][0])
    assert result.values["value"]["a"][1] == -math.inf


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1.0", "but is '1.0'"),
        (None, "but is None"),
        (1j, "but is 1j"),
        (["a"], r"but is \['a'\]"),
        ([1, None], r"but is \[1, None\]"),
        ({1: 2}, r"but is \{1: 2\}"),
        (Fraction(1, 2), r"but is Fraction\(1, 2\)"),
        (np.zeros((2, 3)), r"an array of shape \(2, 3\)"),
        ([[1], [2, 3]], "inhomogeneous"),
        ("x" * 500, "…$"),
    ],
    ids=repr,
)
def test_what_is_no_number_is_refused_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said) as caught:
        compute_metrics(experiment(fine=[1.0], broken=[1.0, value]), {"loss": network})
    assert "metric 'loss' of algorithm 'broken', trial 1" in str(caught.value)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="names of text, not 1"):
        compute_metrics(experiment(a=[1.0]), {1: network, "1": network})  # type: ignore[dict-item]


def test_what_a_metric_raises_says_where() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        compute_metrics(experiment(a=[1, 0]), {"inverse": lambda trial: 1 / trial.network})
    assert caught.value.__notes__ == ["while computing metric 'inverse' of algorithm 'a', trial 1"]


def test_an_integer_beyond_floats_says_where() -> None:
    with pytest.raises(OverflowError) as caught:
        compute_metrics(experiment(a=[10**400]), {"value": network})
    assert "trial 0" in caught.value.__notes__[0]


def test_numbers_and_curves_do_not_mix() -> None:
    with pytest.raises(ValueError, match=r"number in algorithm 'a', trial 0, but a curve in algorithm 'b', trial 0"):
        compute_metrics(experiment(a=[1], b=[[1]]), {"loss": network})


def test_curves_of_one_algorithm_have_one_length() -> None:
    with pytest.raises(ValueError, match=r"2 numbers in trial 0, but 3 in trial 2: let the shorter"):
        compute_metrics(experiment(a=[[1, 2], [1, 2], [1, 2, 3]]), {"loss": network})


def test_curves_of_two_algorithms_may_differ_in_length() -> None:
    result = compute_metrics(experiment(a=[[1, 2]], b=[[1, 2, 3]]), {"loss": network})
    assert [len(result.values["loss"][name][0]) for name in "ab"] == [2, 3]  # type: ignore[arg-type]


def test_an_empty_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="trial 1 is an empty curve"):
        compute_metrics(experiment(a=[[1], []]), {"loss": network})


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(ValueError, match="no algorithm all of whose trials are complete"):
        compute_metrics(ExperimentResult(None, {}), {"loss": network})
    with pytest.raises(ValueError, match="no metric"):
        compute_metrics(experiment(a=[1]), {})
    with pytest.raises(ValueError, match="'a' has no trials"):
        compute_metrics(experiment(a=[]), {"loss": network})


def test_values_made_by_hand_are_checked_too() -> None:
    with pytest.raises(ValueError, match="must have a value for each of these trials"):
        MetricsResult({"loss": {"a": {0: 1.0}}}, {"a": (0, 1)})
    with pytest.raises(ValueError, match="must have a value for each of these trials"):
        MetricsResult({"loss": {"a": {0: 1.0}, "b": {0: 1.0}}}, {"a": (0,)})


def test_equality_is_that_of_values() -> None:
    def result(last: float) -> MetricsResult:
        return measured({"curve": {"a": [[1, math.nan, last]]}, "number": {"a": [math.nan]}})

    assert result(3) == result(3)
    assert result(3) != result(4)
    assert result(3) != measured({"curve": {"a": [[1, math.nan, 3]]}})
    assert result(3) != 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(result(3))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_results_survive_pickling(protocol: int) -> None:
    result = measured({"curve": {"a": [[1, 2], [3, math.inf]], "b": [[1], [2]]}, "number": {"a": [1, 2], "b": [3, 4]}})
    assert pickle.loads(pickle.dumps(result, protocol)) == result
    assert copy.deepcopy(result) == result


def test_a_long_curve_takes_eight_bytes_a_number() -> None:
    result = measured({"curve": {"a": [np.random.default_rng(0).random(100_000).tolist()]}})
    assert len(pickle.dumps(result)) < 801_000
