"""Every section of the benchmarks runs and prints its table; no figure is judged."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks.comparison import Comparison, Standing
from benchmarks.grounds import Grounds, grounds
from benchmarks.measure import Effort
from benchmarks.options import Options
from benchmarks.plots import plot_comparison
from benchmarks.report import print_section, section_json
from benchmarks.standings import comparison_json, print_comparison


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    with grounds(tmp_path_factory.mktemp("grounds")) as found:
        yield found


@pytest.mark.parametrize("name", command.SECTIONS)
def test_a_section_measures_and_prints_its_table(name: str) -> None:
    section = command.run_section(name, Effort.SMOKE)
    assert section.name == name
    assert section.rows
    for row in section.rows:
        for spread in filter(None, (row.ours, row.peer)):
            assert 0 <= spread.low <= spread.median <= spread.high
    printed = io.StringIO()
    print_section(section, Console(file=printed, width=200))
    for row in section.rows:
        assert row.what in printed.getvalue()
    described = json.loads(json.dumps(section_json(section)))
    assert len(described["rows"]) == len(section.rows)


@pytest.fixture(scope="module")
def compared(places: Grounds) -> Callable[[str], Comparison]:
    """What each comparison measured; it is run when it is first asked for."""
    return functools.cache(lambda name: command.run_comparison(name, Options(places, Effort.SMOKE, runs=1)))


# These do what others do, with other sizes.
_LONG = ("frozen", "link", "listing", "models", "partial_restore", "replay", "small_files", "stall")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in _LONG)) for name in command.COMPARISONS]
)
def test_a_comparison_has_a_row_for_each_method_on_each_storage(
    name: str, compared: Callable[[str], Comparison], tmp_path: Path
) -> None:
    comparison = compared(name)
    assert comparison.name == name
    for rows in comparison.groups():
        assert any(row.is_ours for row in rows)
        assert len({row.method for row in rows}) == len(rows) > 1
        for row in rows:
            check(row, comparison)
    links = {"S3 server, 1 Gbit/s", "S3 server, 1 Gbit/s, 30 ms"}
    places = links if name == "link" else {"local folder", "S3 server"}
    assert {row.where for row in comparison.rows} == places
    printed = io.StringIO()
    print_comparison(comparison, Console(file=printed, width=250))
    assert all(row.method in printed.getvalue() for row in comparison.rows)
    described = json.loads(json.dumps(comparison_json(comparison)))
    assert len(described["rows"]) == len(comparison.rows)
    pictures = plot_comparison(comparison, tmp_path)
    assert len(pictures) == len({(row.workload, row.where) for row in comparison.rows})
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def check(row: Standing, comparison: Comparison) -> None:
    if row.problem:
        # The peers are an extra of the benchmarks. Nothing else may be missing, and nothing may fail.
        assert row.problem.startswith("not installed: ")
        assert not row.is_ours
        assert row.figures == {}
        return
    assert comparison.figure in row.figures
    for spread in row.figures.values():
        assert 0 <= spread.low <= spread.median <= spread.high
    if row.where == "S3 server" and comparison.figure == "seconds":
        assert row.figures["requests"].median >= 1
        assert row.figures["received_mb"].median > 0


@pytest.mark.long
def test_a_save_of_a_frozen_backbone_sends_little_more_than_the_head(compared: Callable[[str], Comparison]) -> None:
    # 0.3 MB frozen, 0.1 MB trained.
    sent = {
        row.method: row.figures["sent_mb"].median
        for row in compared("frozen").rows
        if row.action == "next save" and "sent_mb" in row.figures
    }
    assert sent["statevault"] < 0.15
    assert sent["statevault, incremental=False"] > 0.3
    assert sent["torch.save, s3fs"] > 0.4


def test_the_command_prints_the_head_and_the_sections_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Effort, "pick", lambda _self, _full, _quick, smoke: smoke)
    file = tmp_path / "figures.json"
    assert command.main(["collect", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "machine:" in printed
    assert "collect: samples collected per second" in printed
    figures = json.loads(file.read_text())
    assert [section["name"] for section in figures["sections"]] == ["collect"]
    assert figures["head"]["versions"].startswith("python 3")


@pytest.mark.long
def test_the_command_writes_a_comparison_and_its_plots_into_a_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Effort, "pick", lambda _self, _full, _quick, smoke: smoke)
    assert command.main(["--only", "listing", "--runs", "1", "--out", str(tmp_path / "out")]) == 0
    assert "listing: 20 states, S3 server, the newest" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [section["name"] for section in figures["sections"]] == ["listing"]
    assert figures["head"]["server"]
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


@pytest.mark.parametrize("arguments", [["no-such-section"], ["--only", "no-such-section"]])
def test_a_section_that_is_not_there_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        command.main(arguments)
    assert error.value.code == 2
    assert "no-such-section" in capsys.readouterr().err


def test_all_sections_are_in_one_of_two_groups() -> None:
    assert set(command.GROUPS["runtime"]) | set(command.GROUPS["storage"]) == set(command.GROUPS["all"])
    assert set(command.GROUPS["runtime"]).isdisjoint(command.GROUPS["storage"])
