r"""The results as a LaTeX table, to be read by a paper with ``\input``."""

from __future__ import annotations

import re

from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.intervals import MeanInterval
from statevault.experiments.report.names import printable
from statevault.experiments.report.rounding import rounded
from statevault.experiments.report.summary import Better, MetricSummary, summarize

__all__ = ["latex_table"]

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "--": r"-{}-",  # not a dash
    "\N{REPLACEMENT CHARACTER}": "?",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    # A row that begins with one of these would be read as an argument of the end of the row before.
    **{char: f"{{{char}}}" for char in "[]*"},
}
_TO_ESCAPE = re.compile("|".join(map(re.escape, _ESCAPES)))
_NAMES_OF_NUMBERS = {"inf": r"\infty", "-inf": r"-\infty", "nan": r"\mathrm{nan}"}


def latex_table(result: MetricsResult, *, better: Better | None = None) -> str:
    r"""Write the results as a ``tabular`` with the rules of the package ``booktabs``.

    A cell is the mean over the trials, plus or minus half the width of its 95 % confidence interval (Student's t). Of
    curves it is that of their last values. The best means are bold. What characters outside ASCII in names need,
    LuaLaTeX or ``\DeclareUnicodeCharacter``, is the document's business.

    Args:
        result: What was measured.
        better: Which direction is good, for the metrics for which that is known.

    Returns:
        Lines, each with its newline.

    Raises:
        ValueError: `better` names a metric that is not there, or says something else than ``"min"`` or ``"max"``.
    """
    summaries = summarize(result, better=better)
    rows = [
        [_escaped(name), *(_cell(summary, name) for summary in summaries), str(len(trials))]
        for name, trials in result.trials.items()
    ]
    lines = [
        r"% Needs \usepackage{booktabs}. Mean and half the 95 % confidence interval (Student's t) over the trials.",
        rf"\begin{{tabular}}{{l{'r' * (len(summaries) + 1)}}}",
        r"\toprule",
        _row(["", *map(_heading, summaries), "trials"]),
        r"\midrule",
        *map(_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return rf"{' & '.join(cells)} \\".lstrip()


def _heading(summary: MetricSummary) -> str:
    arrow = {"min": r" $\downarrow$", "max": r" $\uparrow$", None: ""}[summary.better]
    return f"{_escaped(summary.metric)}{', last' if summary.of_curve else ''}{arrow}"


def _cell(summary: MetricSummary, name: str) -> str:
    number = _number(summary.intervals[name])
    return rf"$\mathbf{{{number}}}$" if name in summary.best else f"${number}$"


def _number(interval: MeanInterval) -> str:
    number = rounded(interval)
    mean = _NAMES_OF_NUMBERS.get(number.mean, number.mean)
    if not number.half_width:
        return f"{mean}{_power(number.exponent)}"
    both = rf"{mean} \pm {number.half_width}{_power(number.half_exponent)}"
    return f"({both}){_power(number.exponent)}" if number.exponent else both


def _power(exponent: int) -> str:
    return rf" \times 10^{{{exponent}}}" if exponent else ""


def _escaped(name: str) -> str:
    """A name in which no character has a meaning."""
    return _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], printable(name))
