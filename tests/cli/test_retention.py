"""Commands that remove states, and those that keep them."""

from __future__ import annotations

import json
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from statevault.format.keys import session_key
from statevault.format.records import SessionRecord
from statevault.state_persistence import StateStore
from statevault.storage import Body, LocalStorage
from tests.cli.run import in_a_terminal, invoked, option_arguments, statevault
from tests.servers import Servers, StorageTarget, target_names
from tests.state_persistence.components import Folder, some_files

NAMES = [f"{letter}.state" for letter in "abcde"]
REWARDS = [3.0, 9.0, 1.0, 4.0, 2.0]


def fill(url: object, storage_options: object = None) -> None:
    models = Folder()
    with StateStore(url, storage_options=storage_options) as store:  # type: ignore[arg-type]
        store.register("models", models)
        for seed, (name, reward) in enumerate(zip(NAMES, REWARDS, strict=True)):
            models.files = some_files(seed, size=50_000)
            store.save_state(name=name, metadata={"eval": {"reward": reward}})


@pytest.fixture
def url(tmp_path: Path) -> str:
    fill(tmp_path / "states")
    return str(tmp_path / "states")


@pytest.fixture(params=[name for name in ("local", "juicefs") if name in target_names()])
def filled(request: pytest.FixtureRequest, servers: Servers) -> StorageTarget:
    target = servers.target(request.param)
    fill(target.url, target.storage_options)
    return target


def names(url: str) -> list[str]:
    with StateStore(url) as store:
        return store.names()


def test_prune_keeps_what_any_rule_keeps_and_frees_what_it_says(filled: StorageTarget) -> None:
    options = option_arguments(filled.storage_options)
    arguments = ["prune", filled.url, "--keep-last", "2", "--keep-best", "1", "--metric", "eval.reward", *options]
    plan = statevault(*arguments, "--dry-run", "--json").json
    assert [state["keep"] for state in plan["states"]] == [False, True, False, True, True]
    assert plan["states"][1]["reasons"] == ["eval.reward 9.0 is the highest"]
    assert plan["states"][0]["reasons"] == ["no rule keeps it"]
    assert plan["removed"] == []
    before = {key: len(filled.raw.get(key)) for key in filled.raw.keys() if ".state/" in key}  # noqa: SIM118
    done = statevault(*arguments, "--yes", "--json").json
    assert done["removed"] == ["a.state", "c.state"]
    assert done["freed"] == done["frees"] == plan["frees"] == sum(state["frees"] for state in plan["states"])
    gone = before.keys() - set(filled.raw.keys())
    assert sum(before[key] for key in gone) == done["freed"]
    assert statevault("verify", filled.url, *options).code == 0


def test_a_dry_run_is_a_table_and_removes_nothing(url: str) -> None:
    run = invoked("prune", url, "--keep-last", "1", "-n")
    lines = run.out.splitlines()
    assert lines[0].split() == ["state", "saved", "(UTC)", "size", "frees", "why"]
    assert re.match(
        r"goes +a\.state +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +[\d.]+ .?B +[\d.]+ .?B +no rule keeps it", lines[1]
    )
    assert re.match(r"stays +e\.state .* the newest", lines[5])
    assert re.fullmatch(r"1 stay, 4 go, which frees [\d.]+ kB\.", lines[6])
    assert (run.code, run.err, names(url)) == (0, "", NAMES)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--keep-last", "3"], "cde"),
        (["--keep-daily", "2"], "e"),
        (["--keep-hourly", "1", "--keep-last", "2"], "de"),
        (["--keep-weekly", "1", "--keep-monthly", "1", "--keep-yearly", "1"], "e"),
        (["--keep-within", "1h"], "abcde"),
        (["--keep-best", "2", "--metric", "eval.reward"], "bde"),
        (["--keep-best", "1", "--metric", "eval.reward", "--lower-is-better"], "ce"),
        (["--max-size", "1GiB"], "abcde"),
        (["--max-size", "1kB"], "e"),
        (["--keep-last", "4", "--max-size", "1B"], "e"),
        (["--keep-last", "1", "--pattern", "[a-c]*"], "cde"),
    ],
    ids=" ".join,
)
def test_each_option_of_prune(url: str, options: list[str], kept: str) -> None:
    run = invoked("prune", url, *options, "--yes")
    assert run.code == 0, run.err
    assert names(url) == [f"{letter}.state" for letter in kept]


def test_a_limit_bounds_what_the_rules_keep_and_says_so(url: str) -> None:
    with StateStore(url) as store:
        # Of what the rules keep, b, d and e, the two newest fit.
        limit = sum(info.new_size for info in store.states()[3:]) + 20_000
    rules = ["--keep-last", "2", "--keep-best", "1", "--metric", "eval.reward"]
    plan = invoked("prune", url, *rules, "--max-size", str(limit), "-n", "--json").json
    assert [state["keep"] for state in plan["states"]] == [False, False, False, True, True]
    assert plan["states"][0]["reasons"] == ["no rule keeps it"]
    assert "does not fit into" in plan["states"][1]["reasons"][0]


def test_prune_without_a_rule_says_which_there_are(url: str) -> None:
    run = invoked("prune", url, "--yes")
    assert run.code == 2
    assert "--keep-last" in run.err
    assert "--max-size" in run.err
    assert names(url) == NAMES


@pytest.mark.parametrize(
    "options",
    [
        ["--keep-best", "1"],
        ["--metric", "reward"],
        ["--keep-last", "1", "--lower-is-better"],
        ["--keep-last", "0"],
        ["--max-size", "big"],
        ["--keep-within", "soon"],
        ["--max-size", "99999999999PB"],
        ["--keep-last", str(2**63)],
        ["--keep-within", "0d"],
        ["--keep-best", "1", "--metric", "a..b"],
    ],
    ids=" ".join,
)
def test_rules_that_make_no_sense_are_bad_usage(url: str, options: list[str]) -> None:
    run = invoked("prune", url, *options, "--yes")
    assert run.code == 2, run.out
    assert "Traceback" not in run.err
    assert names(url) == NAMES


@pytest.mark.parametrize(
    "more", [["--yes"], ["-n"], ["-n", "--json"], ["--keep-last", "1", "--max-size", "1B", "--yes"]]
)
def test_a_metric_that_no_state_has_is_bad_usage(url: str, more: list[str]) -> None:
    run = invoked("prune", url, "--keep-best", "2", "--metric", "eval.rewrd", *more)
    assert run.code == 2
    assert run.out == ""
    message = json.loads(run.err)["error"]["message"] if "--json" in more else run.err
    assert "--metric: no state has a finite number in its metadata at 'eval.rewrd'" in message
    assert "Did you mean 'eval.reward'? Numbers are at 'eval.reward'" in message
    assert names(url) == NAMES


def test_a_metric_is_looked_for_in_the_states_that_match(url: str) -> None:
    with StateStore(url) as store:
        store.save_state(name="special.keep", metadata={"score": 1})
    assert invoked("prune", url, "--keep-best", "1", "--metric", "score", "--yes").code == 2
    assert invoked("prune", url, "--keep-best", "1", "--metric", "score", "--pattern", "*", "--yes").code == 0
    assert names(url) == ["e.state", "special.keep"]


def test_a_result_that_is_text_is_shown_without_what_drives_a_terminal(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        store.save_state(name="a.state", metadata={"reward": "\x1b[31m231.5", "\x1b[32m": 1})
    run = invoked("prune", str(tmp_path), "--keep-best", "1", "--metric", "reward", "-n")
    assert run.code == 2
    assert "it is '\\x1b[31m231.5', no finite number" in run.err
    assert "\x1b" not in run.err


@pytest.mark.parametrize("pattern", ["nope*", "", "A.STATE", "*.sate"])
def test_a_pattern_that_no_name_matches_is_bad_usage(url: str, pattern: str) -> None:
    run = invoked("prune", url, "--keep-last", "1", "--pattern", pattern, "--yes")
    assert run.code == 2
    assert f"--pattern: no state has a name like {pattern!r}; the newest is 'e.state'" in run.err
    assert names(url) == NAMES


def test_a_pattern_may_match_a_damaged_state_alone(url: str) -> None:
    (marker,) = (Path(url) / "_vault" / "commits").glob("*.a.state")
    marker.write_bytes(b"nonsense")
    assert invoked("prune", url, "--keep-last", "1", "--pattern", "a*", "-n").code == 0


def test_an_empty_store_has_no_metric_and_no_pattern_to_be_wrong(url: str) -> None:
    invoked("rm", url, *NAMES, "--yes")
    run = invoked("prune", url, "--keep-best", "1", "--metric", "rewrd", "--pattern", "nope*", "--yes")
    assert (run.code, run.out, run.err) == (0, "No states.\n", "")


def stamp(url: str, time: str) -> None:
    for marker in (Path(url) / "_vault" / "commits").iterdir():
        marker.write_text(re.sub(r'"created_at": "[^"]*"', f'"created_at": "{time}"', marker.read_text()))


@pytest.mark.parametrize(
    ("time", "why"),
    [
        ("1970-01-01T00:00:07Z", "its clock said 1970-01-01 00:00 UTC, since it was not set"),
        ("2999-01-01T00:00:00Z", "its clock said 2999-01-01 00:00 UTC, which is yet to come"),
        ("9999-12-31T23:59:59-12:00", "its clock said 9999-12-31 23:59 UTC, which is yet to come"),
    ],
)
def test_states_of_an_unknown_age_stay_within_the_limit_and_that_is_said(url: str, time: str, why: str) -> None:
    stamp(url, time)
    rules = ["--keep-within", "1d", "--keep-daily", "1"]
    run = invoked("prune", url, *rules, "-n")
    assert run.code == 0
    assert run.err == "statevault: the age of no state is known: all of their clocks were ahead of now, or not set\n"
    assert run.out.count(why) == 5
    assert "Nothing to remove" in run.out
    plan = invoked("prune", url, *rules, "--max-size", "120kB", "--json", "--yes").json
    assert plan["removed"] == ["a.state", "b.state", "c.state"]


@pytest.mark.parametrize("command", [["prune", "--keep-last", "1"], ["rm", "a.state"]], ids=lambda command: command[0])
def test_where_nobody_can_be_asked_nothing_goes_without_yes(url: str, command: list[str]) -> None:
    verb, *rest = command
    run = invoked(verb, url, *rest)
    assert run.code == 2
    assert "--yes" in run.err
    assert names(url) == NAMES


@pytest.mark.parametrize("command", [["prune", "--keep-last", "4"], ["rm", "a.state"]], ids=lambda command: command[0])
@pytest.mark.parametrize("answer", ["y", "n"])
def test_in_a_terminal_somebody_is_asked(url: str, command: list[str], answer: str) -> None:
    verb, *rest = command
    run = in_a_terminal(verb, url, *rest, answer=f"{answer}\n")
    assert "Remove" in run.out
    assert "[y/N]" in run.out
    if answer == "y":
        assert (run.code, names(url)) == (0, NAMES[1:])
        assert re.search(r"1 state removed, [\d.]+ kB freed\.", run.out)
    else:
        assert (run.code, names(url)) == (1, NAMES)
        assert "Nothing was removed." in run.out


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_fits_the_terminal_without_cut_names(url: str, columns: int) -> None:
    run = in_a_terminal("prune", url, "--keep-last", "2", "--keep-daily", "7", "-n", columns=columns)
    assert all(len(line) <= columns for line in run.out.splitlines())
    assert all(name in run.out for name in NAMES)
    assert "newest of the day" in " ".join(run.out.split())


def test_nothing_to_remove_needs_no_answer(url: str) -> None:
    run = in_a_terminal("prune", url, "--keep-last", "5")
    assert run.code == 0
    assert "Nothing to remove: all 5 states stay." in run.out


def test_rm_removes_what_is_named_also_the_newest(filled: StorageTarget) -> None:
    options = option_arguments(filled.storage_options)
    done = statevault("rm", filled.url, "latest", "b.state", "--yes", "--json", *options).json
    assert done["removed"] == ["b.state", "e.state"]
    assert done["freed"] > 0
    left = statevault("ls", filled.url, "--json", *options).json
    assert [state["name"] for state in left] == ["a.state", "c.state", "d.state"]
    assert statevault("verify", filled.url, *options).code == 0


def test_rm_removes_all_that_is_named_or_nothing(url: str) -> None:
    run = invoked("rm", url, "a.state", "typo.state", "--yes")
    assert run.code == 3
    assert "'typo.state'" in run.err
    invoked("pin", url, "b.state", "paper")
    run = invoked("rm", url, "a.state", "b.state", "--yes")
    assert run.code == 1
    assert "'b.state' is pinned (paper)" in run.err
    assert names(url) == NAMES
    invoked("rm", url, "a.state", "--yes")
    run = invoked("rm", url, "a.state", "--yes")
    assert run.code == 3
    assert "was removed" in run.err


def test_rm_removes_a_damaged_state(url: str) -> None:
    (Path(url) / "b.state" / "manifest.msgpack.zst").write_bytes(b"nonsense")
    assert invoked("rm", url, "b.state", "--yes").code == 0
    (marker,) = (Path(url) / "_vault" / "commits").glob("*.c.state")
    marker.write_bytes(b"nonsense")
    assert invoked("rm", url, "c.state", "--yes").code == 0
    assert names(url) == ["a.state", "d.state", "e.state"]


@pytest.mark.parametrize(
    "command",
    [["rm", "{url}", "a.state", "--yes"], ["prune", "{url}", "--keep-last", "1", "--yes"]],
    ids=["rm", "prune"],
)
def test_a_damaged_marker_beside_it_makes_a_removal_remove_nothing(url: str, command: list[str]) -> None:
    (marker,) = (Path(url) / "_vault" / "commits").glob("*.e.state")
    marker.write_bytes(marker.read_bytes()[:20])
    run = invoked(*(part.format(url=url) for part in command))
    assert run.code == 4
    assert "nothing was removed" in run.err
    assert "`statevault rm STORE e.state`" in run.err
    assert names(url) == NAMES
    assert invoked("rm", url, "e.state", "--yes").code == 0
    assert invoked(*(part.format(url=url) for part in command)).code == 0


def test_states_that_are_gone_when_a_removal_fails_are_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = LocalStorage.put

    def spoil(storage: LocalStorage, key: str, body: Body, *, create_only: bool = False) -> int:
        if key.startswith("_vault/tombstones/"):
            put(storage, "_vault/sessions/z.state", b"{")
        return put(storage, key, body, create_only=create_only)

    monkeypatch.setattr(LocalStorage, "put", spoil)
    run = invoked("rm", url, "a.state", "--yes")
    assert run.code == 7
    assert "Removed already: a.state." in run.err
    assert "no data was deleted" in run.err
    assert names(url) == NAMES[1:]


def test_the_times_of_prune_are_those_of_its_reasons(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        run = invoked("prune", url, "--keep-daily", "1", "-n")
    finally:
        monkeypatch.undo()
        time.tzset()
    saved, day = re.findall(r"\d{4}-\d\d-\d\d", run.out.splitlines()[-2])
    assert saved == day


def test_show_says_who_removed_a_state_and_why(url: str) -> None:
    invoked("rm", url, "a.state", "--yes")
    run = invoked("show", url, "a.state")
    assert run.code == 3
    assert re.search(r"'a\.state' was removed from .* by .* UTC: removed by the command line", run.err)


def test_a_pinned_state_is_kept_and_shown(filled: StorageTarget) -> None:
    options = option_arguments(filled.storage_options)
    assert invoked("pin", filled.url, "a.state", "paper", *options).out == "a.state is pinned (paper).\n"
    assert invoked("pin", filled.url, "a.state", "--json", *options).json == {"state": "a.state", "pin": "pin"}
    listed = invoked("ls", filled.url, "--json", *options).json
    assert [state["pins"] for state in listed] == [["paper", "pin"], [], [], [], []]
    assert invoked("show", filled.url, "a.state", "--json", *options).json["pins"] == ["paper", "pin"]
    done = invoked("prune", filled.url, "--keep-last", "1", "--yes", "--json", *options).json
    assert done["states"][0]["reasons"] == ["pinned as 'paper'", "pinned as 'pin'"]
    assert done["removed"] == ["b.state", "c.state", "d.state"]
    taken_off = invoked("unpin", filled.url, "a.state", "paper", "--json", *options).json
    assert taken_off == {"state": "a.state", "pin": "paper", "removed": 1}
    assert "1 pin taken off" in invoked("unpin", filled.url, "a.state", *options).out
    assert invoked("unpin", filled.url, "a.state", *options).code == 3
    done = invoked("prune", filled.url, "--keep-last", "1", "--yes", "--json", *options).json
    assert done["removed"] == ["a.state"]


def test_ls_has_a_column_of_pins_only_where_there_are_any(url: str) -> None:
    assert "pins" not in invoked("ls", url).out
    invoked("pin", url, "b.state", "paper")
    lines = invoked("ls", url).out.splitlines()
    assert "pins" in lines[0].split()
    assert "paper" in lines[2].split()
    assert "paper" not in lines[1].split()
    assert re.search(r"pins +paper", invoked("show", url, "b.state").out)
    narrow = in_a_terminal("ls", url)
    assert all(len(line) <= 80 for line in narrow.out.splitlines())
    assert "paper" in narrow.out


def test_what_can_not_be_pinned(url: str) -> None:
    assert invoked("pin", url, "typo.state").code == 3
    assert invoked("pin", url, "a.state", "no/name").code == 2
    assert invoked("unpin", url, "typo.state").code == 3


def test_gc_clears_what_a_crashed_save_left(filled: StorageTarget) -> None:
    options = option_arguments(filled.storage_options)
    begun = datetime.now(UTC) - timedelta(days=3)
    session = SessionRecord(state="dead.state", sequence=6, writer="robot:1:00000000", started_at=begun)
    filled.raw.put(session_key("dead.state"), session.to_json())
    filled.raw.put("dead.state/models/x", b"12345")
    young = invoked("gc", filled.url, "--json", *options).json
    assert (young["given_up"], young["objects"]) == ([], 0)  # by the backend's clock it has just begun
    rehearsed = invoked("gc", filled.url, "--stale-after", "0s", "--dry-run", *options)
    assert "dead.state: its save did not end, and would be given up." in rehearsed.out
    assert "Would delete 1 object of 5 B, 0 old records. Nothing was changed" in rehearsed.out
    assert {"dead.state/models/x", session_key("dead.state")} <= set(filled.raw.keys())
    done = invoked("gc", filled.url, "--stale-after", "0s", "--json", *options).json
    assert (done["given_up"], done["objects"], done["freed"]) == (["dead.state"], 1, 5)
    assert "dead.state/models/x" not in filled.raw.keys()  # noqa: SIM118
    again = invoked("gc", filled.url, *options)
    assert (again.code, again.err) == (0, "")
    assert again.out == "Deleted 0 objects of 0 B, 0 old records; ended 0 unfinished uploads.\n"
    assert invoked("verify", filled.url, *options).code == 0


@pytest.mark.parametrize("verb", ["prune", "rm", "pin", "unpin", "gc"])
def test_a_store_that_is_not_there_is_an_error_and_is_not_made(verb: str, tmp_path: Path) -> None:
    more = {
        "prune": ["--keep-last", "1", "--yes"],
        "rm": ["a.state", "--yes"],
        "pin": ["a.state"],
        "unpin": ["a.state"],
    }
    run = invoked(verb, str(tmp_path / "typo"), *more.get(verb, []), "--json")
    assert run.code == 3
    assert json.loads(run.err)["error"]["kind"] == "StoreNotFoundError"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["rm", "--yes"], ["pin"], ["unpin"]])
def test_the_path_of_a_state_of_another_store_is_not_taken_for_its_name(
    url: str, command: list[str], tmp_path: Path
) -> None:
    shutil.copytree(url, tmp_path / "other")
    state = names(url)[0]
    result = invoked(command[0], url, f"{tmp_path}/other/{state}", *command[1:])
    assert result.code == 3
    assert "is not in" in result.err
    assert names(url) == names(str(tmp_path / "other"))
    assert invoked("rm", url, f"{url}/{state}", "--yes").code == 0
    assert state not in names(url)
