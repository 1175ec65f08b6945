"""Comparisons as pictures: a bar for each method, one PNG for each workload and storage."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.comparison import Comparison, Standing

__all__ = ["plot_comparison"]

_OURS, _PEER, _LIMIT = "#0b6e4f", "#8d99ae", "#e0c068"
_LABELS = {"seconds": "seconds", "gap_ms": "longest gap of the acting loop, ms"}


def plot_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw a comparison.

    Args:
        comparison: What to draw.
        folder: Where the pictures go.

    Returns:
        Their paths; none if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - the extra `plots`
    except ImportError:
        return []
    pictures: dict[tuple[str, str], list[list[Standing]]] = {}
    for rows in comparison.groups():
        measured = [row for row in rows if comparison.figure in row.figures]
        if measured:
            pictures.setdefault((measured[0].workload, measured[0].where), []).append(measured)
    paths = []
    for (workload, where), actions in pictures.items():
        tallest = max(len(rows) for rows in actions)
        figure = Figure(figsize=(5.5 * len(actions), 1.2 + 0.36 * tallest), layout="constrained")
        for axes, rows in zip(figure.subplots(1, len(actions), squeeze=False)[0], actions, strict=True):
            spreads = [row.figures[comparison.figure] for row in rows]
            axes.barh(
                [row.method for row in rows],
                [spread.median for spread in spreads],
                xerr=[
                    [spread.median - spread.low for spread in spreads],
                    [spread.high - spread.median for spread in spreads],
                ],
                color=[_OURS if row.is_ours else _LIMIT if row.is_limit else _PEER for row in rows],
                error_kw={"elinewidth": 1},
            )
            axes.invert_yaxis()
            axes.set_title(rows[0].action)
            axes.set_xlabel(_LABELS.get(comparison.figure, comparison.figure))
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(f"{workload}, {where}")
        path = folder / f"{_slug(f'{comparison.name}-{workload}-{where}')}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
