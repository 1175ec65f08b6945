"""The results as pictures, one for each metric. Needs matplotlib: the extra ``plots``.

Everything is drawn on a canvas of its own, without ``pyplot``: no window, and no state that the caller's own plots
share.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from statevault.errors import MissingExtraError
from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.intervals import mean_interval
from statevault.experiments.report.names import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["can_plot", "plot_metric"]

# Eight colours that people with any kind of colour vision tell apart: M. Okabe, K. Ito, Color Universal Design (2008).
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
_DASHES = ["-", "--", ":", "-."]
_WIDTH = 6.4
_LINE_HEIGHT = 0.2
_NAME_COLUMNS = 26
_METRIC_COLUMNS = 48
_LEGEND_COLUMNS = 3
_MOST_POINTS = 2000
_DECADES_FOR_LOG = 2.0
_SCALE_ENDS = 1e150  # short of where matplotlib's own arithmetic overflows


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot_metric(result: MetricsResult, metric: str, *, dpi: int = 150) -> bytes:
    """Draw a metric.

    Of curves: a line for the mean over the trials, in a band from the lowest to the highest trial. Of numbers: a point
    for each trial, above the mean with its 95 % confidence interval. The axis is logarithmic where values are positive
    and spread over two powers of ten or more; a curve that comes to exactly zero falls out of it. What is not finite,
    or beyond 1e150, is not drawn: a line ends where a trial diverges, and a label says how many trials have no point.

    Args:
        result: What was measured.
        metric: Which metric.
        dpi: Dots of the picture per inch; it is 6.4 inches wide.

    Returns:
        A PNG file. The same result gives the same bytes, with one version of matplotlib and its settings.

    Raises:
        KeyError: There is no metric of that name.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise MissingExtraError("matplotlib is not installed: pip install 'statevault[plots]'") from error
    is_curve = result.is_curve(metric)
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    height = _draw_curves(figure, axes, result, metric) if is_curve else _draw_numbers(axes, result, metric)
    figure.set_size_inches(_WIDTH, height)
    axes.grid(visible=True, axis="both" if is_curve else "x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    return png.getvalue()


def _draw_curves(figure: Figure, axes: Axes, result: MetricsResult, metric: str) -> float:
    """Draw a metric of curves; the height of the picture that this takes, in inches."""
    import numpy as np  # noqa: PLC0415 - heavy

    values = [_drawable(np.stack(list(trials.values()))) for trials in result.values[metric].values()]
    if _spans_decades(values):
        axes.set_yscale("log", nonpositive="clip")
    lines = []
    for number, all_points in enumerate(values):
        # More points than pixels only cost time.
        shown = np.unique(np.linspace(0, all_points.shape[1] - 1, _MOST_POINTS).round().astype(int))
        curves = all_points[:, shown]
        mean = curves.mean(axis=0)  # nan where a single trial is
        colour, dash = _style(number)
        # A curve of one point is a point.
        marker = "o" if len(shown) == 1 else None
        lines += axes.plot(shown, mean, color=colour, linestyle=dash, linewidth=1.5, marker=marker)
        if len(curves) > 1:
            axes.fill_between(shown, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("iteration")
    _write(axes.set_ylabel(""), _wrapped(metric, _METRIC_COLUMNS))
    # A label that begins with "_" would be left out: names come in when the legend is there.
    labels = list(map(str, range(len(lines))))
    legend = figure.legend(lines, labels, loc="outside upper center", ncols=_LEGEND_COLUMNS, frameon=False)
    names = [_wrapped(name, _NAME_COLUMNS) for name in result.algorithms]
    for text, name in zip(legend.get_texts(), names, strict=True):
        _write(text, name)
    rows = math.ceil(len(names) / _LEGEND_COLUMNS)
    return 3.6 + _LINE_HEIGHT * rows * max(name.count("\n") + 1 for name in names)


def _draw_numbers(axes: Axes, result: MetricsResult, metric: str) -> float:
    """Draw a metric of numbers; the height of the picture that this takes, in inches."""
    import numpy as np  # noqa: PLC0415 - heavy

    values = [_drawable(np.array(list(trials.values()))) for trials in result.values[metric].values()]
    # A dot at zero would be nowhere on a logarithmic axis.
    if _spans_decades(values) and all(of_trials.all() for of_trials in values):
        axes.set_xscale("log", nonpositive="clip")
    labels = []
    for number, (name, of_trials) in enumerate(zip(result.algorithms, values, strict=True)):
        drawn = of_trials[~np.isnan(of_trials)]
        missing = len(of_trials) - len(drawn)
        label = _wrapped(name, _NAME_COLUMNS)
        labels.append(f"{label}\n({missing} of {len(of_trials)} not shown)" if missing else label)
        colour, _ = _style(number)
        axes.plot(drawn, [number - 0.12] * len(drawn), "o", color=colour, markersize=4, alpha=0.5, markeredgewidth=0)
        interval = mean_interval(of_trials.tolist())
        if math.isfinite(interval.half_width):
            axes.errorbar(
                interval.mean, number + 0.12, xerr=interval.half_width, fmt="D", color=colour, markersize=4, capsize=3
            )
    axes.set_yticks(range(len(labels)), labels)
    for text, label in zip(axes.get_yticklabels(), labels, strict=True):
        _write(text, label)
    axes.set_ylim(len(labels) - 0.5, -0.5)  # the first algorithm is at the top
    below = _wrapped(metric, _METRIC_COLUMNS)
    _write(axes.set_xlabel(""), below)
    return (
        0.8
        + _LINE_HEIGHT * (below.count("\n") + 1)
        + len(labels) * max(0.4, _LINE_HEIGHT * max(label.count("\n") + 1 for label in labels))
    )


def _drawable(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values as they are drawn: nan for those that are not, zero for those that are too close to it."""
    import numpy as np  # noqa: PLC0415 - heavy

    sizes = np.abs(values)
    return np.where(sizes > _SCALE_ENDS, np.nan, np.where(sizes < 1 / _SCALE_ENDS, 0.0, values))


def _spans_decades(values: Sequence[npt.NDArray[np.float64]]) -> bool:
    """Whether no value is negative, and the positive ones spread over some powers of ten."""
    low, high = math.inf, 0.0
    for array in values:
        if (array < 0).any():
            return False
        positive = array[array > 0]
        if positive.size:
            low, high = min(low, float(positive.min())), max(high, float(positive.max()))
    return low < high and math.log10(high / low) >= _DECADES_FOR_LOG


def _style(number: int) -> tuple[str, str]:
    return _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]


def _wrapped(name: str, columns: int) -> str:
    return textwrap.fill(printable(name), columns)


def _write(text: Any, content: str) -> None:
    """Write a name as it is: a dollar sign begins no formula, whatever the caller's matplotlib is set to."""
    text.set_usetex(False)
    text.set_parse_math(False)
    text.set_text(content)
