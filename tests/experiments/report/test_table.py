"""The table of text: what people read."""

from __future__ import annotations

import math

import pytest

from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.table import text_table
from tests.experiments.report.outcomes import measured

TWO = measured(
    {
        "loss": {"gradient descent": [[1, 0.05], [1, 0.07], [1, 0.06]], "Adam": [[1, 0.01], [1, 0.03], [1, 0.02]]},
        "accuracy": {"gradient descent": [0.9, 0.92, 0.91], "Adam": [0.89, 0.88, 0.9]},
        "seconds": {"gradient descent": [3.0, 3.1, 3.2], "Adam": [4.0, 4.0, 4.0]},
    }
)


def many(metrics: int, name: str = "metric") -> MetricsResult:
    return measured({f"{name} {number}": {"a": [number, 1.5], "b": [2, 3]} for number in range(metrics)})


def test_a_table_is_as_people_like_to_read_it() -> None:
    assert text_table(TWO, better={"loss": "min", "accuracy": "max"}) == (
        "                      loss, last ↓        accuracy ↑       seconds\n"
        "──────────────────────────────────────────────────────────────────\n"
        "gradient descent   0.060 ± 0.025     0.910 ± 0.025 *   3.10 ± 0.25\n"
        "Adam               0.020 ± 0.025 *   0.890 ± 0.025        4 ± 0\n"
        "\n"
        "Mean ± half the 95 % confidence interval (Student's t) over 3 trials; last:\n"
        "after the last iteration; ↓ lower is better; ↑ higher is better; * best mean.\n"
    )


def test_a_single_trial_has_no_intervals() -> None:
    table = text_table(measured({"loss": {"a": [1 / 3], "b": [2]}}), better={"loss": "min"})
    assert "±" not in table
    assert "0.3333 *" in table
    assert "One trial; ↓ lower is better; * best mean." in table


def test_numbers_of_trials_that_differ_are_told() -> None:
    table = text_table(measured({"loss": {"a": [1, 2], "b": [2, 3, 4]}}))
    assert "over the trials, 2 of a,\n3 of b." in table


@pytest.mark.parametrize("metrics", [1, 4, 9, 30])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_longer_than_the_terminal(metrics: int, width: int) -> None:
    table = text_table(many(metrics, "the size of something"), width=width)
    assert max(map(len, table.splitlines())) <= width
    for number in range(metrics):
        assert f"{number}" in table
    # Every block names the algorithms again.
    assert table.count("\na ") == table.count("─\n")


def test_what_fits_stands_side_by_side() -> None:
    assert text_table(many(4)).count("─\n") == 1
    assert text_table(many(8)).count("─\n") == 2
    assert text_table(many(8), width=160).count("─\n") == 1


def test_no_line_ends_in_spaces() -> None:
    for line in text_table(TWO, better={"loss": "min"}).splitlines():
        assert line == line.rstrip()


def test_long_names_are_wrapped() -> None:
    long = "an algorithm with a name that says everything about it, with all parameters"
    lines = text_table(measured({"loss": {long: [1, 2], "b": [1, 2]}})).splitlines()
    assert lines[2].startswith("an algorithm with a name")
    assert "±" in lines[2]
    assert lines[3].startswith("that says everything about")
    assert "±" not in lines[3]
    assert max(map(len, lines)) <= 80


def test_wide_characters_take_two_columns() -> None:
    lines = text_table(measured({"loss": {"梯度下降": [1, 3], "Adam": [1, 3]}})).splitlines()
    assert lines[2].replace("梯度下降", "12345678").index("±") == lines[3].index("±")


def test_control_characters_do_nothing_to_the_terminal() -> None:
    table = text_table(measured({"lo\x1bss": {"a\x1b[31m\nb": [1, 2], "": [1, 2]}}))
    assert "\x1b" not in table
    assert "a\N{REPLACEMENT CHARACTER}[31m b" in table


def test_what_diverged_is_shown_and_never_the_best() -> None:
    table = text_table(
        measured({"loss": {"a": [1, math.nan], "b": [math.inf, 1], "c": [5, 6]}}), better={"loss": "min"}
    )
    rows = {line.split()[0]: line for line in table.splitlines()[2:5]}
    assert rows["a"].split() == ["a", "nan"]
    assert rows["b"].split() == ["b", "inf"]
    assert rows["c"].endswith("*")


def test_equal_means_are_all_the_best() -> None:
    table = text_table(measured({"loss": {"a": [1, 3], "b": [2, 2], "c": [3, 3]}}), better={"loss": "min"})
    assert [line.endswith("*") for line in table.splitlines()[2:5]] == [True, True, False]


def test_a_single_algorithm_is_not_the_best_of_one() -> None:
    assert "*" not in text_table(measured({"loss": {"a": [1, 3]}}), better={"loss": "min"})


def test_where_all_diverged_none_is_the_best() -> None:
    result = measured({"loss": {"a": [math.nan], "b": [math.inf], "c": [math.inf]}})
    assert "*" not in text_table(result, better={"loss": "min"})
    assert text_table(result, better={"loss": "max"}).count(" *\n") == 2


def test_a_wrong_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="names metric 'los', but there is only 'loss', 'accuracy', 'seconds'"):
        text_table(TWO, better={"los": "min"})
    with pytest.raises(ValueError, match="must say 'min' or 'max' of metric 'loss', not 'low'"):
        text_table(TWO, better={"loss": "low"})  # type: ignore[dict-item]
