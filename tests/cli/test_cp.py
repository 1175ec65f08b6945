"""Copies between stores, on the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from statevault.state_persistence import StateStore
from tests.cli.run import invoked, make_unreadable, option_arguments, statevault
from tests.servers import Servers, free_port, target_names
from tests.state_persistence.components import Folder, some_files

NAMES = ["a.state", "b.state", "c.state"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    models = Folder()
    with StateStore(tmp_path / "states") as store:
        store.register("models", models)
        for seed, name in enumerate(NAMES):
            models.files = some_files(seed)
            store.save_state(name=name, metadata={"step": seed})
    return str(tmp_path / "states")


def damage(url: str) -> None:
    weights = Path(url) / "b.state" / "models" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")


@pytest.mark.skipif("juicefs" not in target_names(), reason="needs a server")
def test_states_go_to_a_server_and_back(url: str, servers: Servers, tmp_path: Path) -> None:
    target = servers.target("juicefs")
    options = option_arguments(target.storage_options)
    there = statevault("cp", url, target.url, "--json", *options)
    assert there.code == 0, there.err
    assert [(state["state"], state["outcome"]) for state in there.json] == [(name, "copied") for name in NAMES]
    for_source = ["--source-option" if argument == "-o" else argument for argument in options]
    back = statevault("cp", target.url, str(tmp_path / "back"), "latest", *for_source)
    assert back.code == 0, back.err
    assert back.out.splitlines()[-1].startswith("1 copied (")
    assert statevault("verify", str(tmp_path / "back"), "c.state").code == 0
    digests = [
        [file["digest"] for file in invoked("show", where, "c.state", "--json").json["tree"]]
        for where in (url, str(tmp_path / "back"))
    ]
    assert digests[0] == digests[1]


def test_a_copy_that_was_killed_goes_on(tmp_path: Path) -> None:
    models = Folder()
    with StateStore(tmp_path / "states") as store:
        store.register("models", models)
        for number in range(8):
            models.files = {f"{part}": os.urandom(500_000) for part in range(20)}
            store.save_state(name=f"{number}.state")
    command = [sys.executable, "-m", "statevault.cli", "cp", str(tmp_path / "states"), str(tmp_path / "to")]
    process = subprocess.Popen(command)
    while not list(tmp_path.glob("to/_vault/commits/*.1.state")):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    again = invoked("cp", str(tmp_path / "states"), str(tmp_path / "to"), "--json").json
    assert [state["outcome"] for state in again[:2]] == ["present", "present"]
    assert "copied" in [state["outcome"] for state in again]
    for unfinished in (tmp_path / "to").rglob(".tmp-*"):
        os.utime(unfinished, (0, 0))  # or it would be left alone for an hour
    assert invoked("gc", str(tmp_path / "to"), "--stale-after", "0s").code == 0
    assert invoked("verify", str(tmp_path / "to")).code == 0
    # An empty folder that was made just before the kill is nothing.
    with_files = {file.relative_to(tmp_path / "to").parts[0] for file in (tmp_path / "to").rglob("*") if file.is_file()}
    assert sorted(with_files) == [
        *sorted(state["target"] for state in again),
        "_vault",
    ]


def test_a_second_copy_says_that_all_is_there(url: str, tmp_path: Path) -> None:
    target = str(tmp_path / "to")
    first = invoked("cp", url, target)
    assert re.match(r"copied   a\.state  1\.1 MB, [\d.]+ kB uploaded\n", first.out)
    second = invoked("cp", url, target)
    assert (second.code, second.err) == (0, "")
    assert second.out.splitlines() == [
        *(f"present  {name}  1.1 MB" for name in NAMES),
        "0 copied (0 B uploaded), 3 there already, 0 not copied.",
    ]


def test_json_tells_what_became_of_each_state(url: str, tmp_path: Path) -> None:
    with StateStore(tmp_path / "to") as store:
        store.save_state(name="a.state")
    [first, *_] = invoked("cp", url, str(tmp_path / "to"), "--json").json
    assert first.keys() == {"state", "outcome", "target", "size", "uploaded", "error"}
    assert (first["state"], first["outcome"], first["target"], first["error"]) == (
        "a.state",
        "copied",
        "a-2.state",
        None,
    )
    assert "copied   b.state as b-2.state" not in invoked("cp", url, str(tmp_path / "to")).out


def test_a_new_name_is_shown(url: str, tmp_path: Path) -> None:
    with StateStore(tmp_path / "to") as store:
        store.save_state(name="a.state")
    assert "copied   a.state as a-2.state  " in invoked("cp", url, str(tmp_path / "to")).out


def test_damage_is_named_the_others_are_copied_and_the_exit_code_is_4(url: str, tmp_path: Path) -> None:
    damage(url)
    run = statevault("cp", url, str(tmp_path / "to"))
    assert run.code == 4
    assert re.search(r"DAMAGED  b\.state  .*models/weights\.bin", run.out)
    assert run.out.splitlines()[-1].startswith("2 copied (")
    assert run.out.endswith("0 there already, 1 not copied.\n")
    assert run.err == ""
    assert [state["name"] for state in invoked("ls", str(tmp_path / "to"), "--json").json] == ["a.state", "c.state"]


def test_a_state_that_is_named_and_damaged_keeps_no_other_from_being_copied(url: str, tmp_path: Path) -> None:
    marker = next(Path(url, "_vault", "commits").glob("*.b.state"))
    marker.write_bytes(b"garbage")
    run = invoked("cp", url, str(tmp_path / "to"), "a.state", "b.state", "c.state")
    assert run.code == 4
    assert "DAMAGED  b.state" in run.out
    assert [state["name"] for state in invoked("ls", str(tmp_path / "to"), "--json").json] == ["a.state", "c.state"]


def test_a_store_that_is_not_there_and_a_state_that_is_not(url: str, tmp_path: Path) -> None:
    run = invoked("cp", str(tmp_path / "typo"), str(tmp_path / "to"))
    assert (run.code, "no store at" in run.err) == (3, True)
    run = invoked("cp", url, str(tmp_path / "to"), "a.state", "typo.state")
    assert (run.code, "'typo.state'" in run.err, run.out) == (3, True, "")
    assert not (tmp_path / "to").exists()


def test_nor_is_it_through_a_link(url: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(url)
    for target, said in (("link", "the same store"), ("link/inside", "inside SRC")):
        run = invoked("cp", url, str(tmp_path / target))
        assert (run.code, said in run.err) == (2, True)
        run = invoked("cp", str(tmp_path / "link"), str(Path(url, target.removeprefix("link").lstrip("/"))))
        assert (run.code, said in run.err) == (2, True)


def test_a_store_is_not_copied_into_itself(url: str) -> None:
    run = invoked("cp", url, f"file://{url}/")
    assert run.code == 2
    assert "the same store" in run.err


def test_an_empty_store_has_nothing_to_copy(url: str, tmp_path: Path) -> None:
    with StateStore(url) as store:
        store.remove(NAMES)
    run = invoked("cp", url, str(tmp_path / "to"))
    assert (run.code, run.out) == (0, "No states.\n")
    assert not (tmp_path / "to").exists()


def test_a_copy_that_breaks_off_counts_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = tmp_path / "states"
    folder = Folder({"a.bin": b"1" * 100})
    with StateStore(states) as store:
        store.register("folder", folder)
        for number in range(3):
            folder.files = {"a.bin": bytes([number]) * 100}
            store.save_state(name=f"{number}.state")
    [data] = (states / "1.state" / "folder").iterdir()
    make_unreadable(f"1.state/folder/{data.name}", monkeypatch)
    run = invoked("cp", str(states), str(tmp_path / "copy"))
    assert run.code == 6
    assert re.search(r"1 copied \(.* uploaded\), 0 there already, 2 not copied\.", run.out)


def test_a_target_that_does_not_answer_is_one_line(url: str) -> None:
    endpoint = f"endpoint_url=http://127.0.0.1:{free_port()}"
    keys = ["--target-option", "key=a", "--target-option", "secret=b"]
    run = statevault("cp", url, "s3://bucket/to", "--target-option", endpoint, *keys, "--json")
    assert run.code == 6
    assert run.out == ""
    assert json.loads(run.err)["error"]["exit_code"] == 6
