"""What came out of an experiment, as tables, plots and JSON.

Of each metric and algorithm: the mean over the trials and its 95 % confidence interval. Everything is deterministic:
the same values give the same bytes.
"""

from statevault.experiments.report.intervals import MeanInterval, mean_interval
from statevault.experiments.report.latex import latex_table
from statevault.experiments.report.plots import plot_metric
from statevault.experiments.report.record import metrics_json
from statevault.experiments.report.summary import Better, MetricSummary, summarize
from statevault.experiments.report.table import text_table
from statevault.experiments.report.write import write_results

__all__ = [
    "Better",
    "MeanInterval",
    "MetricSummary",
    "latex_table",
    "mean_interval",
    "metrics_json",
    "plot_metric",
    "summarize",
    "text_table",
    "write_results",
]
