"""The files below results/, on every storage."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from upath import UPath

from statevault.errors import MissingExtraError
from statevault.experiments.manager import CheckpointManager
from statevault.experiments.metrics import compute_metrics
from statevault.experiments.report.write import write_results
from tests.experiments.report.outcomes import experiment, measured
from tests.servers import StorageTarget

RESULT = measured({"loss": {"a": [[3, 1], [5, 3]], "b": [[2, 9], [5, 9]]}, "rate": {"a": [0, 1], "b": [1, 1]}})


def opened(target: StorageTarget) -> CheckpointManager:
    return CheckpointManager(target.url, storage_options=target.storage_options)


def test_all_results_lie_in_the_folder(target: StorageTarget) -> None:
    pytest.importorskip("matplotlib")
    with opened(target) as manager:
        paths = write_results(manager, RESULT, better={"rate": "max"})
        assert [path.name for path in paths] == ["table.txt", "table.tex", "metrics.json", "loss.png", "rate.png"]
        assert {path.name for path in manager.get_results_path().iterdir()} == {path.name for path in paths}
        assert "loss, last" in paths[0].read_text(encoding="utf-8")
        assert paths[1].read_text(encoding="utf-8").endswith("\\end{tabular}\n")
        assert json.loads(paths[2].read_bytes())["rate"]["best"] == ["b"]
        assert paths[3].read_bytes().startswith(b"\x89PNG")


def test_results_written_twice_are_the_same_bytes(target: StorageTarget) -> None:
    with opened(target) as manager:
        first = [path.read_bytes() for path in write_results(manager, RESULT)]
        # As another process would have them.
        again = pickle.loads(pickle.dumps(RESULT))
        assert [path.read_bytes() for path in write_results(manager, again)] == first


def test_metrics_can_be_kept_with_the_experiment(target: StorageTarget) -> None:
    with opened(target) as manager:
        manager.initialize([_Algorithm("a"), _Algorithm("b")], "problem", 2)
        manager.save_metrics_result(RESULT)
        assert manager.are_metrics_computed()
        assert manager.load_metrics_result() == RESULT


def test_plots_are_left_out_where_they_are_not_wanted(tmp_path: Path) -> None:
    paths = write_results(CheckpointManager(tmp_path), RESULT, plots=False)
    assert [path.name for path in paths] == ["table.txt", "table.tex", "metrics.json"]


def test_without_matplotlib_there_are_tables_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statevault.experiments.report.plots.find_spec", lambda _: None)
    assert len(write_results(CheckpointManager(tmp_path), RESULT)) == 3
    with pytest.raises(MissingExtraError, match=r"pip install 'statevault\[plots\]'"):
        write_results(CheckpointManager(tmp_path / "none"), RESULT, plots=True)
    assert not (tmp_path / "none" / "results").exists()


def test_a_wrong_direction_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nothing'"):
        write_results(CheckpointManager(tmp_path), RESULT, better={"nothing": "min"})
    assert not (tmp_path / "results").exists()


def test_names_of_metrics_become_names_of_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = ["loss", "Loss", "f(x) - f*", "f[x] - f+", "../../up", "a/b", ".", "größe", "x" * 300, "f_x_-_f"]
    result = measured({name: {"a": [1, 2]} for name in names})
    paths = write_results(CheckpointManager(tmp_path), result)[3:]
    assert [path.name for path in paths] == [
        *("loss.png", "Loss-2.png", "f_x_-_f.png", "f_x_-_f+.png", "up.png", "a_b.png", "metric.png", "größe.png"),
        *("x" * 80 + ".png", "f_x_-_f-2.png"),
    ]
    assert len({path.name.casefold() for path in paths}) == len(names)
    assert {path.parent for path in paths} == {UPath(tmp_path / "results")}


def test_an_unpaired_surrogate_in_a_name_can_be_written(tmp_path: Path) -> None:
    result = compute_metrics(experiment(**{"\ud800": [1.0]}), {"\udcff": lambda trial: trial.network})
    assert len(write_results(CheckpointManager(tmp_path), result, plots=False)) == 3


def test_importing_the_reports_loads_nothing_heavy() -> None:
    heavy = ["matplotlib", "rich", "torch"]
    code = f"import sys, statevault.experiments.report; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert result.stdout.strip() == "[]"


class _Algorithm:
    def __init__(self, name: str) -> None:
        self.name = name
        self.iterations = 2
