"""Whatever names and values there are, the reports can be written, and hold what they should."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report import latex_table, metrics_json, summarize, text_table
from tests.experiments.report.outcomes import measured
from tests.profiles import rounds

NAMES = st.text(max_size=120)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def results(draw: st.DrawFn) -> MetricsResult:
    algorithms = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    trials = draw(st.integers(1, 4))
    metrics = {}
    for metric in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        length = draw(st.integers(0, 3))
        value: st.SearchStrategy[Any] = st.lists(NUMBERS, min_size=length, max_size=length) if length else NUMBERS
        metrics[metric] = {name: draw(st.lists(value, min_size=trials, max_size=trials)) for name in algorithms}
    return measured(metrics)


@settings(max_examples=rounds(short=150, long=3000), deadline=None)
@given(results(), st.data())
def test_any_result_can_be_reported(result: MetricsResult, data: st.DataObject) -> None:
    better: Any = data.draw(st.dictionaries(st.sampled_from(result.metrics), st.sampled_from(["min", "max"])))

    table = text_table(result, better=better)
    assert all(line.isprintable() for line in table.splitlines())
    assert table.splitlines()[-1].endswith(".")

    latex = latex_table(result, better=better)
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(result.algorithms)
    assert len(latex.splitlines()) == len(rows) + 6

    record = json.loads(metrics_json(result, better=better))
    assert list(record) == list(result.metrics)
    for summary in summarize(result, better=better):
        for name, interval in summary.intervals.items():
            stored = float(record[summary.metric]["algorithms"][name]["mean"])
            assert stored == interval.mean or (math.isnan(stored) and math.isnan(interval.mean))
        means = [summary.intervals[name].mean for name in summary.best]
        assert len(set(means)) <= 1
        assert not any(map(math.isnan, means))


@settings(max_examples=rounds(short=150, long=3000), deadline=None)
@given(results())
def test_a_mean_lies_among_its_values(result: MetricsResult) -> None:
    for summary in summarize(result):
        for name, interval in summary.intervals.items():
            trials = result.values[summary.metric][name].values()
            values = [value if isinstance(value, float) else float(value[-1]) for value in trials]
            if all(map(math.isfinite, values)):
                slack = 1e-12 * max(map(abs, values)) + 5e-324
                assert min(values) - slack <= interval.mean <= max(values) + slack
                assert interval.half_width >= 0 or math.isnan(interval.half_width)
            else:
                assert not math.isfinite(interval.mean)
