"""Plots: what is drawn, and what is not."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from statevault.errors import MissingExtraError
from statevault.experiments.metrics import MetricsResult
from statevault.experiments.report.plots import can_plot, plot_metric
from tests.experiments.report.outcomes import measured

matplotlib = pytest.importorskip("matplotlib")

BLUE, RED = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)

CURVES = measured(
    {"loss": {"a": [np.geomspace(1, 1e-4, 50).tolist()] * 2, "b": [np.geomspace(1, 1e-6, 50).tolist()] * 2}}
)
NUMBERS = measured({"steps": {"a": [10, 12, 17], "b": [30, 34, 39]}})


def pixels(png: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """Colours of a picture, shape (height, width, 3), from 0 to 255."""
    from matplotlib.image import imread

    return (np.asarray(imread(io.BytesIO(png)))[..., :3] * 255).round().astype(int)


def places(png: bytes, colour: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[Any]]:
    """Rows and columns of the pixels that are of a colour, shape (n, 2)."""
    return np.argwhere((pixels(png) == colour).all(axis=-1))


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Callable[[MetricsResult], Any]:
    """Draws the first metric of a result, and gives the figure that was drawn."""
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig

    def watched(figure: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", watched)

    def draw(result: MetricsResult) -> Any:
        plot_metric(result, result.metrics[0])
        return drawn[-1]

    return draw


@pytest.mark.parametrize("result", [CURVES, NUMBERS], ids=["curves", "numbers"])
def test_the_same_values_give_the_same_bytes(result: MetricsResult) -> None:
    first = plot_metric(result, result.metrics[0])
    assert first.startswith(b"\x89PNG")
    assert plot_metric(result, result.metrics[0]) == first


def test_a_picture_says_neither_when_nor_by_what_it_was_made() -> None:
    png = plot_metric(CURVES, "loss")
    for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME"):
        assert chunk not in png


def test_both_algorithms_are_drawn_where_their_values_are() -> None:
    png = plot_metric(CURVES, "loss")
    blue, red = places(png, BLUE), places(png, RED)
    assert len(blue) > 500
    assert len(red) > 200  # dashed or covered at the beginning
    assert red[:, 0].max() > blue[:, 0].max() + 50  # lower values lie further down


def test_a_dot_is_drawn_for_each_trial(figure: Callable[[MetricsResult], Any]) -> None:
    (axes,) = figure(NUMBERS).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[10, 12, 17], [30, 34, 39]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    # The first is at the top, its trials above its mean.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert len(axes.containers) == 2


def test_a_line_is_the_mean_in_a_band_of_all_trials(figure: Callable[[MetricsResult], Any]) -> None:
    (axes,) = figure(measured({"loss": {"a": [[5, 1], [7, 2], [9, 6]]}})).axes
    assert axes.lines[0].get_ydata().tolist() == [7, 3]
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices
    assert {tuple(point) for point in heights.tolist()} >= {(0, 5), (1, 1), (0, 9), (1, 6)}


def test_a_single_trial_has_no_band(figure: Callable[[MetricsResult], Any]) -> None:
    assert len(figure(measured({"loss": {"a": [[5, 1]]}})).axes[0].collections) == 0


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 1e-2], "log"),
        ([1, 0.1], "linear"),
        ([1, 1e-5, -1e-9], "linear"),
        ([0, 0, 0], "linear"),
        ([1, 1e-5, math.nan, math.inf, -math.inf], "log"),
        ([math.nan, math.inf], "linear"),
        ([1e-140, 1, 1e100, 1.7e308], "log"),
    ],
)
def test_the_axis_is_logarithmic_where_that_helps(
    values: list[float], scale: str, figure: Callable[[MetricsResult], Any]
) -> None:
    assert figure(measured({"loss": {"a": [values]}})).axes[0].get_yscale() == scale
    assert figure(measured({"loss": {"a": values}})).axes[0].get_xscale() == scale


def test_a_zero_is_shown_as_a_curve_that_falls_and_as_a_dot(figure: Callable[[MetricsResult], Any]) -> None:
    axes = figure(measured({"loss": {"a": [[1, 1e-5, 0]]}})).axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 0
    axes = figure(measured({"loss": {"a": [1, 1e-5, 0]}})).axes[0]
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] < 0


def test_a_line_ends_where_a_trial_diverges(figure: Callable[[MetricsResult], Any]) -> None:
    result = measured({"loss": {"a": [[1, 2, 3, 4], [1, 2, math.inf, math.nan]]}})
    drawn = figure(result).axes[0].lines[0].get_ydata()
    assert drawn[:2].tolist() == [1, 2]
    assert np.isnan(drawn[2:]).all()


def test_trials_that_have_no_point_are_counted(figure: Callable[[MetricsResult], Any]) -> None:
    (axes,) = figure(measured({"steps": {"a": [1, math.inf, math.nan], "b": [1, 2, 3]}})).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a\n(2 of 3 not shown)", "b"]


@pytest.mark.parametrize("value", [1.0, [1.0, 0.01]], ids=["number", "curve"])
def test_names_are_written_as_they_are(value: Any, figure: Callable[[MetricsResult], Any]) -> None:
    names = ["_hidden", "$x", "$\\frac{$", "a" * 200, "50 %", "\\alpha"]
    drawn = figure(measured({"$loss_$^": {name: [value, value] for name in names}}))
    (axes,) = drawn.axes
    shown = drawn.legends[0].get_texts() if drawn.legends else axes.get_yticklabels()
    assert [text.get_text().replace("\n", "") for text in shown] == names
    assert "$loss_$^" in {axes.get_xlabel(), axes.get_ylabel()}


def test_long_curves_are_thinned_but_keep_their_ends(figure: Callable[[MetricsResult], Any]) -> None:
    line = figure(measured({"loss": {"a": [np.linspace(3, 1, 300_000).tolist()]}})).axes[0].lines[0]
    assert len(line.get_xdata()) == 2000
    assert line.get_xdata()[[0, -1]].tolist() == [0, 299_999]
    assert line.get_ydata()[[0, -1]].tolist() == [3, 1]


def test_many_algorithms_look_different(figure: Callable[[MetricsResult], Any]) -> None:
    drawn = figure(measured({"loss": {f"algorithm {number}": [[2, 1]] for number in range(30)}}))
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].lines}) == 30


def test_curves_of_one_iteration_are_visible() -> None:
    assert len(places(plot_metric(measured({"loss": {"a": [[1]]}}), "loss"), BLUE)) > 20


def test_a_metric_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="los"):
        plot_metric(CURVES, "los")


def test_no_state_of_pyplot_is_touched() -> None:
    code = (
        "import sys, tests.experiments.report.test_plots as t;"
        "t.plot_metric(t.CURVES, 'loss'); t.plot_metric(t.NUMBERS, 'steps');"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert result.stdout.strip() == "False"


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_plot()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'statevault\[plots\]'"):
        plot_metric(CURVES, "loss")


def test_a_broken_matplotlib_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise ModuleNotFoundError("No module named 'kiwisolver'", name="kiwisolver")

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "matplotlib.backends.backend_agg", raising=False)
    monkeypatch.setattr("builtins.__import__", broken)
    with pytest.raises(ModuleNotFoundError, match="kiwisolver") as caught:
        plot_metric(CURVES, "loss")
    assert not isinstance(caught.value, MissingExtraError)
