"""Writes the results of an experiment into its folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Protocol

from upath import UPath

from statevault.errors import MissingExtraError
from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.latex import latex_table
from statevault.experiments.report.plots import can_plot, plot_metric
from statevault.experiments.report.record import metrics_json
from statevault.experiments.report.summary import Better
from statevault.experiments.report.table import text_table

__all__ = ["ResultsFolder", "write_results"]

_LOGGER = logging.getLogger(__name__)
_NOT_IN_A_FILE_NAME = re.compile(r"[^\w.+-]+")
_LONGEST_FILE_NAME = 80


class ResultsFolder(Protocol):
    """Where results go: a :class:`~statevault.experiments.manager.CheckpointManager`."""

    def put_result(self, name: str, data: bytes) -> UPath:
        """Store a file under a name, atomically, in the place of what lies there; return where it lies."""


def write_results(
    manager: ResultsFolder, metrics_result: MetricsResult, *, plots: bool | None = None, better: Better | None = None
) -> list[UPath]:
    """Write tables, plots and all values into the folder ``results/`` of an experiment.

    ``table.txt`` is for people, ``table.tex`` for papers, ``metrics.json`` for other programs, and ``<metric>.png`` the
    plot of a metric, with characters in its name that file names should not have replaced by ``_``. The same results
    give the same bytes. Files of the same names are replaced; others, as of metrics that are no longer computed, stay.

    Args:
        manager: The experiment.
        metrics_result: What was measured.
        plots: Whether to draw plots; None: if matplotlib is installed.
        better: Whether low or high values of a metric are good, by the metric's name: ``{"loss": "min"}``. The best
            means of these are marked in the tables.

    Returns:
        Where the files lie.

    Raises:
        ValueError: `better` names a metric that is not there, or says something else than ``"min"`` or ``"max"``.
        MissingExtraError: `plots` is True, and matplotlib is not installed.
        StorageError: The storage failed.
    """
    if plots is None:
        plots = can_plot()
    elif plots and not can_plot():
        raise MissingExtraError("matplotlib, which plots need, is not installed: pip install 'statevault[plots]'")
    files = {
        "table.txt": text_table(metrics_result, better=better).encode(errors="replace"),
        "table.tex": latex_table(metrics_result, better=better).encode(errors="replace"),
        "metrics.json": metrics_json(metrics_result, better=better),
    }
    if plots:
        for name, metric in zip(_file_names(metrics_result.metrics), metrics_result.metrics, strict=True):
            files[f"{name}.png"] = plot_metric(metrics_result, metric)
    paths = [manager.put_result(name, data) for name, data in files.items()]
    _LOGGER.info("wrote %d files of results, %d bytes", len(files), sum(map(len, files.values())))
    return paths


def _file_names(metrics: Iterable[str]) -> list[str]:
    """Names of files that all systems take, and that differ also where upper and lower case do not."""
    names: list[str] = []
    taken: set[str] = set()
    for metric in metrics:
        # A leading dot would hide the file.
        plain = _NOT_IN_A_FILE_NAME.sub("_", metric).strip("._")[:_LONGEST_FILE_NAME] or "metric"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names
