"""The guide to the command line is complete, and its JSON is what the commands print."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from statevault import StateStore
from statevault.cli.app import app
from statevault.cli.failures import EXIT_CODES
from tests.docs.examples import ROOT

GUIDE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined] # a group has them

VOLATILE = {"created_at", "writer", "stored_size", "new_size", "uploaded", "frees", "freed"}
"""What differs from run to run, or with the release of zstd."""


def documented(command: str) -> Any:
    """The JSON of a command as the guide shows it."""
    found = re.search(rf"^```json {command}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/cli.md has no block `json {command}`"
    return json.loads(found[1])


def shape(value: Any) -> Any:
    """The keys and types of a JSON value; of a list, those of its first element."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


class Notes:
    """A component that writes one file."""

    def save_state(self, path: Path) -> None:
        path.mkdir()
        (path / "today.txt").write_text("all quiet\n" * 100, encoding="utf-8")

    def load_state(self, path: Path) -> None:
        raise NotImplementedError


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The store of the guide's examples."""
    with StateStore(tmp_path / "states", incremental=False) as store:
        store.register("notes", Notes())
        store.save_state(name="first.state", metadata={"step": 1})
        store.save_state(name="second.state", metadata={"step": 2})
    return str(tmp_path / "states")


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs a command in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    assert f"\n## {command}\n" in GUIDE
    section = GUIDE.partition(f"\n## {command}\n")[2].partition("\n## ")[0] + GUIDE.partition("## ls")[0]
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option":
            names = [name for name in parameter.opts if name not in {"--help", "-h"}]
        else:
            names = [parameter.metavar.strip("[]")]
        # In code: `--component NAME`, `STATE`.
        assert [name for name in names if not re.search(rf"`{name}[` ]", section)] == [], command


def test_the_guide_has_no_command_that_is_not_there() -> None:
    headings = set(re.findall(r"^## ([a-z]+)$", GUIDE, flags=re.MULTILINE))
    assert headings == set(COMMANDS)


def test_exit_codes_are_documented() -> None:
    table = GUIDE.partition("## Exit codes")[2]
    assert {int(code): text for code, text in re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE)} == EXIT_CODES


def test_ls_prints_what_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    printed = json.loads(run("ls", url, "--json").stdout)
    assert shape(printed) == shape(documented("ls"))
    assert [state["name"] for state in printed] == ["first.state", "second.state"]
    expected = {key: value for key, value in documented("ls")[0].items() if key not in VOLATILE}
    assert {key: value for key, value in printed[0].items() if key not in VOLATILE} == expected


def test_show_prints_what_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    printed = json.loads(run("show", url, "first.state", "--json").stdout)
    assert shape(printed) == shape(documented("show"))
    volatile = VOLATILE | {"tree"}
    expected = {key: value for key, value in documented("show").items() if key not in volatile}
    assert {key: value for key, value in printed.items() if key not in volatile} == expected
    [file], [expected_file] = printed["tree"], documented("show")["tree"]
    assert len(bytes.fromhex(file["digest"])) == 32
    volatile |= {"digest"}
    expected = {key: value for key, value in expected_file.items() if key not in volatile}
    assert {key: value for key, value in file.items() if key not in volatile} == expected


def test_verify_prints_what_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    result = run("verify", url, "--json")
    assert json.loads(result.stdout) == documented("verify")
    assert result.exit_code == 0


def test_verify_prints_what_the_guide_says_of_damage(url: str, run: Callable[..., Result]) -> None:
    with StateStore(url) as store:
        second = store.open_state("second.state").manifest
    (file,) = (file for file in second.files if file.path == "notes/today.txt")
    (Path(url) / second.objects[file.chunks[0].object].key).write_bytes(b"damage")
    result = run("verify", url, "--json")
    sound, damaged = json.loads(result.stdout)
    assert result.exit_code == 4
    assert sound == documented("verify")[0]
    assert damaged.keys() == sound.keys()
    assert damaged["files"] is None
    assert damaged["size"] is None
    assert "second.state" in damaged["error"]


def test_cat_prints_what_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    printed = json.loads(run("cat", url, "latest", "notes/today.txt", "--json").stdout)
    content = base64.b64decode(printed.pop("base64"))
    expected = documented("cat")
    assert content == b"all quiet\n" * 100
    assert base64.b64encode(content).decode().startswith(expected.pop("base64").rstrip("…"))
    assert printed == expected


def test_export_prints_what_the_guide_says(
    url: str, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = json.loads(run("export", url, "latest", "./exported-again", "-c", "notes", "--json").stdout)
    assert printed == documented("export")
    assert (tmp_path / "exported-again" / "notes" / "today.txt").read_text().startswith("all quiet")


def test_import_prints_what_the_guide_says(url: str, run: Callable[..., Result], tmp_path: Path) -> None:
    run("export", url, "latest", tmp_path / "exported")
    printed = json.loads(run("import", tmp_path / "exported", url, "--name", "third-hand.state", "--json").stdout)
    assert printed == documented("import")
    [*_, imported] = json.loads(run("ls", url, "--json").stdout)
    assert imported["metadata"] == {"imported_from": "exported"}


def steady(value: Any) -> Any:
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


def test_cp_prints_what_the_guide_says(url: str, run: Callable[..., Result], tmp_path: Path) -> None:
    printed = json.loads(run("cp", url, tmp_path / "backup", "--json").stdout)
    assert shape(printed) == shape(documented("cp"))
    assert steady(printed) == steady(documented("cp"))
    assert printed[1]["uploaded"] == documented("cp")[1]["uploaded"]


def test_prune_and_rm_print_what_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    printed = json.loads(run("prune", url, "--keep-last", "1", "-n", "--json").stdout)
    assert shape(printed) == shape(documented("prune"))
    assert steady(printed) == steady(documented("prune"))
    printed = json.loads(run("rm", url, "first.state", "--yes", "--json").stdout)
    assert shape(printed) == shape(documented("rm"))
    assert steady(printed) == steady(documented("rm"))


def test_pins_are_printed_as_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    assert json.loads(run("pin", url, "first.state", "paper", "--json").stdout) == documented("pin")
    assert json.loads(run("unpin", url, "first.state", "paper", "--json").stdout) == documented("unpin")


def test_gc_prints_what_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    assert json.loads(run("gc", url, "--json").stdout) == documented("gc")


def test_the_doctor_prints_what_the_guide_says(url: str, run: Callable[..., Result]) -> None:
    result = run("doctor", url, "--size", "1kB", "--json")
    printed, expected = json.loads(result.stdout), documented("doctor")
    assert result.exit_code == 0
    assert shape(printed) == shape(expected)
    [first, *_], [expected_first] = printed["findings"], expected["findings"]
    assert {**first, "found": ""} == {**expected_first, "found": ""}
    said = GUIDE.partition("\n## doctor\n")[2].partition("```text\n")[2].partition("```")[0]
    assert {line[7:20].strip() for line in said.splitlines()} - {""} <= {
        finding["check"] for finding in printed["findings"]
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "third.state"),
        ("verify", "third.state"),
        ("cat", "third.state", "x"),
        ("export", "third.state", "x"),
        ("rm", "third.state", "--yes"),
        ("pin", "third.state"),
        ("unpin", "third.state"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_error_is_json_on_stderr_as_the_guide_says(
    arguments: tuple[str, ...], url: str, run: Callable[..., Result]
) -> None:
    command, *rest = arguments
    result = run(command, url, *rest, "--json")
    assert result.stdout == ""
    printed, expected = json.loads(result.stderr), documented("error")
    assert shape(printed) == shape(expected)
    assert printed["error"]["message"].startswith(expected["error"].pop("message").partition("…")[0])
    del printed["error"]["message"]
    assert printed == expected
    assert result.exit_code == 3


def test_an_error_is_one_line_on_stderr(url: str, run: Callable[..., Result]) -> None:
    result = run("show", url, "third.state")
    assert result.stdout == ""
    assert re.fullmatch(r"statevault: .*third\.state.*\n", result.stderr)
