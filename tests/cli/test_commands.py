"""Each verb, run as a user runs it."""

from __future__ import annotations

import base64
import errno
import json
import os
import pty
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from statevault.state_persistence import StateStore
from statevault.state_persistence.restore.download import StateReader
from tests.cli.run import in_a_terminal, invoked, make_unreadable, option_arguments, statevault
from tests.servers import StorageTarget
from tests.state_persistence.components import Folder, some_files

OLD, NEW = some_files(1), some_files(2)


def fill(url: object, storage_options: object = None) -> None:
    models = Folder(OLD)
    with StateStore(url, storage_options=storage_options) as store:  # type: ignore[arg-type]
        store.register("models", models)
        store.register("data", Folder({"x.bin": bytes(100)}))
        store.save_state(name="old.state", metadata={"reward": 1.25})
        models.files = dict(NEW)
        store.save_state(name="new.state", metadata={"reward": 231.5, "step": 40_000})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fill(tmp_path / "states")
    return tmp_path / "states"


def test_every_verb_works_on_every_backend(target: StorageTarget, tmp_path: Path) -> None:
    if target.name == "memory":
        pytest.skip("the memory of another process is its own")
    fill(target.url, target.storage_options)
    options = option_arguments(target.storage_options)
    assert [state["name"] for state in statevault("ls", target.url, "--json", *options).json] == [
        "old.state",
        "new.state",
    ]
    assert statevault("show", target.url, "latest", "--json", *options).json["metadata"]["step"] == 40_000
    assert [result["error"] for result in statevault("verify", target.url, "--json", *options).json] == [None, None]
    assert statevault("cat", target.url, "new.state", "models/notes.txt", *options).out.encode() == NEW["notes.txt"]
    done = statevault("export", target.url, "old.state", str(tmp_path / "out"), *options)
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "models" / "weights.bin").read_bytes() == OLD["weights.bin"]


def test_ls_prints_a_line_for_each_state(store: Path) -> None:
    run = statevault("ls", str(store))
    lines = run.out.splitlines()
    assert lines[0].split() == ["seq", "state", "saved", "files", "size", "stored", "uploaded", "metadata"]
    assert lines[1].split()[:2] == ["1", "old.state"]
    assert "reward=231.5 step=40000" in lines[2]
    assert (run.code, run.err) == (0, "")


def test_ls_json_tells_all_that_a_state_info_holds(store: Path) -> None:
    (_, newest) = statevault("ls", str(store), "--json").json
    assert newest.keys() == {
        "name", "sequence", "created_at", "writer", "files", "size", "stored_size", "new_size", "base", "components",
        "metadata", "pins",
    }  # fmt: skip
    assert newest["metadata"] == {"reward": 231.5, "step": 40_000}


def test_show_prints_the_layout_as_a_tree(store: Path) -> None:
    run = statevault("show", str(store), "new.state")
    assert re.search(
        r"├── models/\n│   ├── deep/\n│   │   └── er/\n│   │       └── step.txt  1 byte  none  [0-9a-f]{16}", run.out
    )
    assert re.search(r"notes.txt  4\.2 kB  zstd \d+ B", run.out)
    assert "metadata.step" in run.out


def test_show_json_lists_every_file_with_size_digest_and_compression(store: Path) -> None:
    tree = statevault("show", str(store), "new.state", "--json").json["tree"]
    notes = next(file for file in tree if file["path"] == "models/notes.txt")
    assert notes["size"] == len(NEW["notes.txt"])
    assert notes["compression"] == "zstd"
    assert notes["stored_size"] < notes["size"]
    assert len(notes["digest"]) == 64
    assert notes["objects"] == ["new.state/models/notes.txt.zst"]


def test_a_compressed_file_of_a_store_is_a_standard_zst_file(store: Path) -> None:
    packed = store / "new.state" / "models" / "notes.txt.zst"
    done = subprocess.run(["zstd", "-dc", str(packed)], capture_output=True, check=True)
    assert done.stdout == NEW["notes.txt"]


def test_verify_names_what_is_damaged_and_exits_with_4(store: Path) -> None:
    weights = store / "old.state" / "models" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    run = statevault("verify", str(store))
    assert run.code == 4
    assert re.search(r"DAMAGED +old.state .*models/weights.bin", run.out)
    assert re.search(r"ok +new.state", run.out)
    assert "2 states checked, 1 damaged." in run.out
    assert statevault("verify", str(store), "new.state").code == 0
    assert statevault("verify", str(store), "latest").code == 0
    assert statevault("verify", str(store), "old.state", "--json").json[0]["error"].count("weights.bin") >= 1


def test_a_state_of_another_store_is_refused_by_all(store: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other")
    there, here = str(tmp_path / "other" / "old.state"), str(store / "old.state")
    out = str(tmp_path / "out")
    for arguments in (
        ["show", str(store), there],
        ["verify", str(store), there],
        ["cat", str(store), there, "models/notes.txt"],
        ["export", str(store), there, out],
        ["rm", str(store), there, "--yes"],
        ["pin", str(store), there],
        ["cp", str(store), str(tmp_path / "copy"), there],
    ):
        run = invoked(*arguments)
        assert (run.code, run.out) == (3, "")
        assert run.err == f"statevault: {there} is not in file://{store}: name that store instead\n"
    for arguments in (["show", str(store), here], ["verify", str(store), here], ["export", str(store), here, out]):
        assert invoked(*arguments).code == 0


def test_verify_goes_on_after_what_can_not_be_read(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_unreadable("old.state/models/weights.bin", monkeypatch)
    run = invoked("verify", str(store))
    assert run.code == 6
    assert re.search(r"FAILED +old.state .*the disk is broken", run.out)
    assert re.search(r"ok +new.state", run.out)
    assert "2 states checked, 0 damaged, 1 could not be read." in run.out
    assert run.err.startswith("statevault: ")
    assert len(run.err.splitlines()) == 1
    run = invoked("verify", str(store), "--json")
    assert [(result["state"], result["outcome"]) for result in run.json] == [
        ("old.state", "failed"),
        ("new.state", "ok"),
    ]
    assert run.code == 6
    (store / "new.state" / "models" / "weights.bin").write_bytes(b"!")
    assert invoked("verify", str(store)).code == 4


def test_what_is_in_the_way_of_an_export_is_named(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for where in (tmp_path / "file", tmp_path / "file" / "deep" / "er"):
        run = invoked("export", str(store), "latest", str(where))
        assert run.code == 1
        assert run.err.startswith(f"statevault: {tmp_path / 'file'} is ")
    run = invoked("export", str(store), "latest", "/proc/out")
    assert run.code in (5, 6)
    assert "Can't write /proc/out: " in run.err
    assert "Errno" not in run.err


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, 5), (errno.ENOSPC, 8)])
def test_what_the_system_says_of_an_export_names_its_folder(
    store: Path, tmp_path: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / ".out.abcdefgh" / "internal"))

    monkeypatch.setattr(StateReader, "restore", fail)
    run = invoked("export", str(store), "latest", str(tmp_path / "out"))
    assert run.code == code
    assert f"Can't write {tmp_path / 'out'}: {os.strerror(number)}" in run.err
    assert "internal" not in run.err
    assert not list(tmp_path.glob(".out*"))


def test_an_export_that_is_terminated_leaves_nothing(store: Path, tmp_path: Path) -> None:
    script = """
        import time
        from statevault.cli import main
        from statevault.state_persistence.restore.download import StateReader

        def restore(*_, **__):
            print("begun", flush=True)
            time.sleep(60)

        StateReader.restore = restore
        main()
    """
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "put"
    command = [sys.executable, "-c", textwrap.dedent(script), "export", str(store), "latest", str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"begun\n"
        assert len(list(target.parent.iterdir())) == 1
        process.terminate()
        assert process.wait(300) == 143
    assert list(target.parent.iterdir()) == []


def test_cat_never_prints_bytes_that_do_not_verify(store: Path) -> None:
    weights = store / "new.state" / "models" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    run = statevault("cat", str(store), "new.state", "models/weights.bin")
    assert (run.code, run.out) == (4, "")


def test_cat_json_holds_the_content_in_base64(store: Path) -> None:
    answer = statevault("cat", str(store), "latest", "models/weights.bin", "--json").json
    assert base64.b64decode(answer["base64"]) == NEW["weights.bin"]


def test_cat_of_a_file_that_is_not_there_suggests_one(store: Path) -> None:
    run = statevault("cat", str(store), "latest", "notes.txt")
    assert run.code == 3
    assert "did you mean 'models/notes.txt'?" in run.err


def test_export_writes_a_plain_folder_and_never_over_something(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert statevault("export", str(store), "latest", str(out), "--json").json["files"] == len(NEW) + 1
    assert (out / "models" / "deep" / "er" / "step.txt").read_bytes() == NEW["deep/er/step.txt"]
    assert (out / "data" / "x.bin").read_bytes() == bytes(100)
    assert statevault("export", str(store), "latest", str(out)).code == 1
    only = tmp_path / "only"
    assert statevault("export", str(store), "latest", str(only), "-c", "data").code == 0
    assert [path.name for path in only.iterdir()] == ["data"]
    assert statevault("export", str(store), "latest", str(tmp_path / "x"), "-c", "nope").code == 3
    elsewhere = statevault("export", str(store), "latest", "s3://bucket/out")
    assert elsewhere.code == 2
    assert "s3://bucket/out is not" in elsewhere.err


def test_a_pipe_that_closes_early_is_no_error(store: Path) -> None:
    big = Folder({"big": os.urandom(3_000_000)})
    with StateStore(store) as opened:
        opened.register("big", big)
        opened.save_state(name="big.state")
    command = f"{sys.executable} -m statevault.cli cat {store} big.state big/big | head -c 10 | wc -c"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "10"
    assert done.stderr == ""


def test_a_terminal_gets_a_table_of_its_width_without_cut_names(store: Path) -> None:
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "statevault.cli", "ls", str(store)], stdout=child, stderr=child, env=environment
    )
    assert process.wait(300) == 0
    os.close(child)
    text = os.read(parent, 10_000).decode()
    os.close(parent)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "new.state" in plain
    assert all(len(line.rstrip("\r")) <= 80 for line in plain.splitlines())


def test_version_and_help() -> None:
    assert statevault("--version").out.startswith("statevault ")
    help_text = statevault("--help").out
    for verb in ("ls", "show", "verify", "cat", "export", "cp", "prune", "rm", "pin", "gc", "doctor", "demo"):
        assert verb in help_text


def test_what_stands_in_metadata_cannot_drive_the_terminal_or_break_the_list(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        store.save_state(name="a.state", metadata={"note": "in [/data/run1] [red]x", "\x1b[2J": "\x1b]0;title\x07"})
    for verb in ("ls", "show"):
        run = statevault(verb, str(tmp_path))
        assert run.code == 0, run.err
        assert "[/data/run1] [red]x" in run.out
        assert "\x1b" not in run.out
        assert "\\x1b[2J" in run.out


_HOSTILE = "\x1b[2J\x9b31m\x7f\u202etxt.exe\u2066\u200b\u200e\u061c\u2028\u2029\ufeff"


def not_json(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


def hostile_store(tmp_path: Path) -> str:
    """A store with a marker that somebody has written by hand."""
    with StateStore(tmp_path / "states") as store:
        store.register("notes", Folder({f"a\x9b\u202e\u2028b{number}": b"x" for number in range(2)}))
        store.save_state(name="a.state")
    (marker,) = (tmp_path / "states" / "_vault" / "commits").iterdir()
    record = json.loads(marker.read_bytes())
    record["writer"] = _HOSTILE
    record["metadata"] = {_HOSTILE: _HOSTILE, "loss": float("nan"), "best": [float("inf"), {"worst": -float("inf")}]}
    marker.write_text(json.dumps(record, ensure_ascii=False))
    return str(tmp_path / "states")


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "STORE"],
        ["show", "STORE"],
        ["verify", "STORE"],
        ["cp", "STORE", "COPY"],
        ["prune", "STORE", "--keep-last", "1", "--dry-run"],
        ["prune", "STORE", "--keep-best", "1", "--metric", "loss", "--dry-run"],
        ["gc", "STORE", "--dry-run"],
        ["doctor", "STORE"],
        ["cat", "STORE", "a.state", _HOSTILE],
        ["export", "STORE", "a.state", "OUT"],
        ["export", "STORE", "a.state", "OUT", "-c", _HOSTILE],
        ["rm", "STORE", _HOSTILE, "--yes"],
        ["pin", "STORE", "a.state", "--name", _HOSTILE],
        ["ls", "s3://bucket/" + _HOSTILE.replace("\x1b", "")],
        ["ls", "STORE" + _HOSTILE],
    ],
    ids=lambda arguments: ascii(" ".join(arguments)),
)
def test_nothing_in_a_store_drives_a_terminal_and_json_is_json(tmp_path: Path, arguments: list[str]) -> None:
    url = hostile_store(tmp_path)
    places = {"STORE": url, "COPY": str(tmp_path / f"copy{_HOSTILE}"), "OUT": str(tmp_path / f"out{_HOSTILE}")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    for run in (invoked(*arguments), invoked(*arguments, "--json")):
        for text in (run.out, run.err):
            assert text.replace("\n", "").replace("\u2192", "").isprintable(), ascii(text)
    if run.out:
        json.loads(run.out, parse_constant=not_json)
    if run.err:
        assert set(json.loads(run.err, parse_constant=not_json)) == {"error"}


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    (state,) = invoked("ls", hostile_store(tmp_path), "--json").json
    assert state["metadata"] == {_HOSTILE: _HOSTILE, "loss": None, "best": [None, {"worst": None}]}
    assert state["writer"] == _HOSTILE


def test_in_a_terminal_nothing_is_hidden_either(tmp_path: Path) -> None:
    shown = in_a_terminal("show", hostile_store(tmp_path), columns=200).out
    assert shown.replace("\n", "").isprintable()
    assert "a\\x9b\\u202e\\u2028b1" in shown
    assert "\\x1b[2J\\x9b31m\\x7f\\u202etxt.exe\\u2066\\u200b\\u200e\\u061c\\u2028\\u2029\\ufeff" in shown


def test_a_damaged_state_leaves_no_partial_export(store: Path, tmp_path: Path) -> None:
    weights = store / "new.state" / "models" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert statevault("export", str(store), "new.state", str(tmp_path / "out [x]")).code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["states"]
    assert statevault("export", str(store), "old.state", str(tmp_path / "out [x]")).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls", "--json"],
        ["ls", "x", "--json", "--nonsense"],
        ["ls", "x", "-o", "novalue", "--json"],
        ["nonsense", "--json"],
        ["cp", "x", "x", "--json"],
        ["prune", "x", "--json", "--keep-last", "many"],
        ["doctor", "x", "--size", "huge", "--json"],
    ],
)
def test_what_is_wrong_with_a_command_is_told_in_json_where_that_was_asked_for(arguments: list[str]) -> None:
    run = invoked(*arguments)
    assert (run.code, run.out) == (2, "")
    error = json.loads(run.err)["error"]
    assert (error["kind"], error["exit_code"]) == ("UsageError", 2)
    assert error["message"]


def test_json_keeps_exit_codes(store: Path, tmp_path: Path) -> None:
    assert invoked("ls", str(tmp_path / "typo"), "--json").code == 3
    assert invoked("ls", str(store), "--json").code == 0
    assert invoked("ls", "--json", "--help").code == 0


def test_show_does_not_cut_long_names(tmp_path: Path) -> None:
    name = "x" * 250
    with StateStore(tmp_path) as store:
        store.register("deep", Folder({f"er/{name}": b"1"}))
        store.save_state(name="a.state")
    digest = invoked("show", str(tmp_path), "--json").json["tree"][0]["digest"]
    assert re.search(rf"└── {name}  1 byte  none  {digest[:16]}\n", invoked("show", str(tmp_path)).out)


def test_a_file_is_no_folder_to_import(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("x")
    run = invoked("import", str(tmp_path / "afile"), str(tmp_path / "states"))
    assert (run.code, "afile is a file" in run.err) == (3, True)


def test_options_that_contradict_each_other_are_bad_usage(store: Path) -> None:
    run = statevault("ls", str(store), "-o", "a=1", "-o", "a.b=2")
    assert run.code == 2
    assert "Traceback" not in run.err
