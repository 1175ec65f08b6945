"""The results as JSON, for other programs."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic import JsonValue

from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.summary import Better, summarize

__all__ = ["metrics_json"]


def metrics_json(result: MetricsResult, *, better: Better | None = None) -> bytes:
    """Write all values, and what the tables say of them.

    Args:
        result: What was measured.
        better: Which direction is good, for the metrics for which that is known.

    Returns:
        JSON: ``{metric: {"kind": "number" | "curve", "better": "min" | "max" | null, "best": [algorithm, …],
        "algorithms": {algorithm: {"mean": …, "half_width": …, "n": …, "trials": {trial: value}}}}}``. `mean` and
        `half_width` (null where it is not known) are of the last values of curves. Numbers that JSON does not have are
        the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which the number parsers of most languages read.

    Raises:
        ValueError: `better` names a metric that is not there, or says something else than ``"min"`` or ``"max"``.
    """
    record = {
        summary.metric: {
            "kind": "curve" if summary.of_curve else "number",
            "better": summary.better,
            "best": [name for name in result.algorithms if name in summary.best],
            "algorithms": {
                name: {
                    "mean": _value(interval.mean),
                    "half_width": None if math.isnan(interval.half_width) else _value(interval.half_width),
                    "n": interval.n,
                    "trials": {
                        str(trial): _value(value) for trial, value in result.values[summary.metric][name].items()
                    },
                }
                for name, interval in summary.intervals.items()
            },
        }
        for summary in summarize(result, better=better)
    }
    # A surrogate, which a name may hold but UTF-8 can't, becomes the escape sequence that JSON has for it.
    return f"{_text(record)}\n".encode(errors="backslashreplace")


def _text(value: object, indent: str = "") -> str:
    """JSON with a line for each field, and a single one for a curve."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = f"{indent}  "
    fields = [f"{inner}{json.dumps(name, ensure_ascii=False)}: {_text(field, inner)}" for name, field in value.items()]
    return "{\n" + ",\n".join(fields) + f"\n{indent}}}"


def _value(value: Any) -> JsonValue:
    if not isinstance(value, (float, int)):
        return [_value(number) for number in value.tolist()]
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
