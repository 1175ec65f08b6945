"""Comparisons as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.comparison import Comparison, Standing
from benchmarks.measure import Spread
from benchmarks.report import shown

__all__ = ["comparison_json", "print_comparison"]

_COLUMNS = {
    "seconds": "s",
    "gap_ms": "longest gap, ms",
    "gap_p99_ms": "gap p99, ms",
    "pause_ms": "pause of training, ms",
    "cpu_s": "CPU s",
    "peak_mb": "peak MB",
    "sent_mb": "sent MB",
    "received_mb": "received MB",
    "requests": "requests",
    "saves": "saves",
}
_SPREADS = ("seconds", "gap_ms", "gap_p99_ms", "pause_ms")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a table for each workload, storage and action: medians, the leading figures with their spread."""
    for rows in comparison.groups():
        first = rows[0]
        table = Table(title=f"{comparison.name}: {first.workload}, {first.where}, {first.action}", title_justify="left")
        table.add_column("method", overflow="fold")
        present = [name for name in _COLUMNS if any(name in row.figures for row in rows)]
        rated = any(row.mb_per_s for row in rows)
        headings = [_COLUMNS[name] for name in present] + ["MB/s"] * rated + ["x best peer", "x limit"]
        for heading in headings:
            table.add_column(heading, justify="right")
        table.add_column("guarantees")
        for row in rows:
            if row.problem:
                table.add_row(row.method, *[""] * (len(headings)), row.problem)
                continue
            cells = [_cell(row, name) for name in present]
            if rated:
                cells.append("" if row.mb_per_s is None else shown(row.mb_per_s.median))
            cells += [_ratio(comparison.against_best_peer(row)), _ratio(comparison.against_limit(row))]
            table.add_row(row.method, *cells, row.guarantees, style="bold" if row.is_ours else None)
        console.print(table)
    for note in comparison.notes:
        console.print(f"* {note}", highlight=False)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as a JSON object, with the ratios and rates of each row."""
    return {
        **asdict(comparison),
        "rows": [
            {
                **asdict(row),
                "mb_per_s": None if row.mb_per_s is None else asdict(row.mb_per_s),
                "against_best_peer": comparison.against_best_peer(row),
                "against_limit": comparison.against_limit(row),
            }
            for row in comparison.rows
        ],
    }


def _cell(row: Standing, name: str) -> str:
    spread = row.figures.get(name)
    if spread is None:
        return ""
    show: Callable[[float], str] = shown
    if name in _SPREADS and _is_spread(spread):
        return f"{show(spread.median)} ({show(spread.low)}..{show(spread.high)})"
    return show(spread.median)


def _is_spread(spread: Spread) -> bool:
    return spread.low != spread.high


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
