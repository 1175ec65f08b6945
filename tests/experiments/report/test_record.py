"""metrics.json: all values, for other programs."""

from __future__ import annotations

import json
import math

import pytest

from statevault.experiments.report.record import metrics_json
from tests.experiments.report.outcomes import measured


def test_the_record_has_all_values_and_what_the_tables_say() -> None:
    result = measured({"loss": {"a": [[3, 1], [5, 3]], "b": [[2, 9], [5, 9]]}, "rate": {"a": [0, 1], "b": [1, 1]}})
    record = json.loads(metrics_json(result, better={"loss": "min"}))
    assert record["loss"] == {
        "kind": "curve",
        "better": "min",
        "best": ["a"],
        "algorithms": {
            "a": {
                "mean": 2.0,
                "half_width": pytest.approx(12.7062),
                "n": 2,
                "trials": {"0": [3.0, 1.0], "1": [5.0, 3.0]},
            },
            "b": {"mean": 9.0, "half_width": 0.0, "n": 2, "trials": {"0": [2.0, 9.0], "1": [5.0, 9.0]}},
        },
    }
    assert record["rate"]["kind"] == "number"
    assert record["rate"]["better"] is None
    assert record["rate"]["algorithms"]["a"]["trials"] == {"0": 0.0, "1": 1.0}


def test_what_json_has_no_numbers_for_is_text_that_parsers_of_numbers_read() -> None:
    result = measured({"loss": {"a": [[math.nan, math.inf, -math.inf]]}, "one": {"a": [1.0]}})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    record = json.loads(metrics_json(result), parse_constant=refuse)
    values = record["loss"]["algorithms"]["a"]["trials"]["0"]
    assert values == ["NaN", "Infinity", "-Infinity"]
    assert [str(float(value)) for value in values] == ["nan", "inf", "-inf"]
    assert record["one"]["algorithms"]["a"]["half_width"] is None


def test_floats_come_back_bit_by_bit() -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308]
    record = json.loads(metrics_json(measured({"x": {"a": [values]}})))
    assert record["x"]["algorithms"]["a"]["trials"]["0"] == values


def test_any_name_can_be_written() -> None:
    name = 'größe "quoted" \\ \n \ud800 \x00'
    assert list(json.loads(metrics_json(measured({name: {"a": [1.0]}})))) == [name]


def test_a_curve_stands_on_one_line() -> None:
    data = metrics_json(measured({"loss": {"a": [list(range(1000))] * 3}})).decode()
    assert data.count("\n") < 20
    assert data.endswith("}\n")
