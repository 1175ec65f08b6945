"""Every section of the benchmarks runs and prints its table; no figure is judged."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks.measure import Effort
from benchmarks.report import as_json, head, print_section


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
    described = json.loads(json.dumps(as_json([section], head())))
    assert len(described["sections"][0]["rows"]) == len(section.rows)


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


def test_a_section_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        command.main(["no-such-section"])
    assert error.value.code == 2
    assert "no-such-section" in capsys.readouterr().err


def test_the_group_of_the_runtime_needs_no_storage_servers() -> None:
    assert set(command.GROUPS["runtime"]) == set(command.SECTIONS) - {"tensors"}
