"""The results as text, for terminals and mails: one row for each algorithm."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.intervals import MeanInterval
from statevault.experiments.report.names import printable
from statevault.experiments.report.rounding import rounded
from statevault.experiments.report.summary import Better, MetricSummary, summarize

__all__ = ["text_table"]

_GAP = "   "
_LONGEST_NAME = 28
_NARROWEST_HEADING = 16


def text_table(result: MetricsResult, *, better: Better | None = None, width: int = 80) -> str:
    """Write the results as a table of text.

    A cell is the mean over the trials, plus or minus half the width of its 95 % confidence interval (Student's t). Of
    curves it is that of their last values. Metrics that do not fit beside each other are put below each other.

    Args:
        result: What was measured.
        better: Which direction is good, for the metrics for which that is known; their best means are marked.
        width: Columns of the terminal. A single metric is never split, even if it is wider.

    Returns:
        Lines, each with its newline.

    Raises:
        ValueError: `better` names a metric that is not there, or says something else than ``"min"`` or ``"max"``.
    """
    summaries = summarize(result, better=better)
    names = _Column.of_names(result)
    blocks = [_block([names, *columns]) for columns in _side_by_side(names, map(_Column.of_metric, summaries), width)]
    notes = textwrap.wrap("; ".join(_notes(result, summaries)) + ".", width)
    return "\n\n".join([*blocks, "\n".join(notes)]) + "\n"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: its heading, and its cells, all as lines of one width."""

    width: int
    heading: list[str]
    cells: list[list[str]]

    @staticmethod
    def of_names(result: MetricsResult) -> _Column:
        cells = [_wrapped(printable(name), _LONGEST_NAME) for name in result.algorithms]
        width = max(_width(line) for lines in cells for line in lines)
        return _Column(width, [""], [[_left(line, width) for line in lines] for lines in cells])

    @staticmethod
    def of_metric(summary: MetricSummary) -> _Column:
        means, halves = zip(*map(_parts, summary.intervals.values()), strict=True)
        left, right = max(map(len, means)), max(map(len, halves))
        marks = ["" if summary.better is None else " *" if name in summary.best else "  " for name in summary.intervals]
        cells = [f"{mean:>{left}}{half:<{right}}{mark}" for mean, half, mark in zip(means, halves, marks, strict=True)]
        heading = _wrapped(_heading(summary), max(len(cells[0]), _NARROWEST_HEADING))
        heading = [line.replace("\N{NO-BREAK SPACE}", " ") for line in heading]
        width = max(len(cells[0]), *map(_width, heading))
        return _Column(width, [_right(line, width) for line in heading], [[f"{cell:>{width}}"] for cell in cells])


def _parts(interval: MeanInterval) -> tuple[str, str]:
    """A cell: what stands before ``±``, and the rest."""
    number = rounded(interval)
    if not number.half_width:
        return f"{number.mean}{_power(number.exponent)}", ""
    half = f"{number.half_width}{_power(number.half_exponent)}"
    if number.exponent:
        return f"({number.mean}", f" ± {half}){_power(number.exponent)}"
    return number.mean, f" ± {half}"


def _power(exponent: int) -> str:
    return f"e{exponent}" if exponent else ""


def _heading(summary: MetricSummary) -> str:
    # Not broken before the arrow.
    arrow = {"min": "\N{NO-BREAK SPACE}↓", "max": "\N{NO-BREAK SPACE}↑", None: ""}[summary.better]
    return f"{printable(summary.metric)}{', last' if summary.of_curve else ''}{arrow}"


def _side_by_side(names: _Column, columns: Iterator[_Column], width: int) -> Iterator[list[_Column]]:
    """Distribute columns over as many blocks as it takes."""
    block: list[_Column] = []
    used = names.width
    for column in columns:
        if block and used + len(_GAP) + column.width > width:
            yield block
            block, used = [], names.width
        block.append(column)
        used += len(_GAP) + column.width
    yield block


def _block(columns: Sequence[_Column]) -> str:
    height = max(len(column.heading) for column in columns)
    headings = [[" " * column.width] * (height - len(column.heading)) + column.heading for column in columns]
    lines = [_GAP.join(parts) for parts in zip(*headings, strict=True)]
    lines[-1] = _GAP.join([" " * columns[0].width, *(heading[-1] for heading in headings[1:])])
    lines.append("─" * (sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)))
    for row in zip(*(column.cells for column in columns), strict=True):
        for number in range(max(map(len, row))):
            parts = [
                cell[number] if number < len(cell) else " " * column.width
                for cell, column in zip(row, columns, strict=True)
            ]
            lines.append(_GAP.join(parts))
    return "\n".join(line.rstrip() for line in lines)


def _notes(result: MetricsResult, summaries: Sequence[MetricSummary]) -> Iterator[str]:
    counts = {len(trials) for trials in result.trials.values()}
    if counts == {1}:
        yield "One trial"
    elif len(counts) == 1:
        yield f"Mean ± half the 95 % confidence interval (Student's t) over {counts.pop()} trials"
    else:
        each = ", ".join(f"{len(trials)} of {printable(name)}" for name, trials in result.trials.items())
        yield f"Mean ± half the 95 % confidence interval (Student's t) over the trials, {each}"
    if any(summary.of_curve for summary in summaries):
        yield "last: after the last iteration"
    directions = {summary.better for summary in summaries}
    if "min" in directions:
        yield "↓ lower is better"
    if "max" in directions:
        yield "↑ higher is better"
    if any(summary.best for summary in summaries):
        yield "* best mean"


def _wrapped(text: str, width: int) -> list[str]:
    # Wide characters, as Chinese ones, take two columns, which textwrap does not know.
    return textwrap.wrap(text, width if _width(text) == len(text) else max(1, width // 2)) or [""]


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
        for char in text
    )


def _left(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _right(text: str, width: int) -> str:
    return " " * (width - _width(text)) + text
