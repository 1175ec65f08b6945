"""What the doctor says of a place, and that it leaves the place as it was."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from statevault.cli.findings import Finding, examine
from statevault.errors import StorageAccessError
from statevault.format.keys import MAX_SEQUENCE, commit_key, intent_key, session_key, tombstone_key
from statevault.format.records import CommitRecord, SessionRecord
from statevault.state_persistence import StateStore
from statevault.storage import Body, ObjectInfo, Storage, probe
from statevault.storage.access import check_access
from tests.cli.run import Run, in_a_terminal, invoked, option_arguments, statevault
from tests.servers import Servers, StorageTarget, free_port
from tests.state_persistence.components import Folder, some_files
from tests.state_persistence.storages import DictStorage

CHECKS = ["store", "access", "consistency", "create-only", "ranges", "latency", "large objects", "throughput", "clock"]


def fill(url: object, storage_options: object = None) -> None:
    with StateStore(url, storage_options=storage_options) as store:  # type: ignore[arg-type]
        store.register("models", Folder(some_files(1)))
        store.save_state(name="a.state")
        store.save_state(name="b.state")


def by_check(run: Run) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in run.json["findings"]}


def examined(storage: Storage) -> dict[str, Finding]:
    findings = examine(storage, size_bytes=1000, watch=lambda: nullcontext(lambda count: None))
    return {finding.check: finding for finding in findings}


def test_every_backend_is_well_and_stays_empty(target: StorageTarget) -> None:
    if target.name == "memory":
        pytest.skip("the memory of another process is its own")
    run = invoked("doctor", target.url, "--size", "1MB", "--json", *option_arguments(target.storage_options))
    assert run.code == 0, run.out
    findings = by_check(run)
    assert list(findings)[: len(CHECKS)] == CHECKS
    assert run.json["ok"] is True
    assert findings["store"]["found"] == "none yet"
    ignores = target.name in ("juicefs", "rclone")
    assert findings["create-only"]["verdict"] == ("note" if ignores else "ok")
    assert findings["access"]["found"] == "list, write, read, replace, delete"
    assert findings["throughput"]["measured"]["size"] == 1_000_000
    assert findings["latency"]["measured"]["put"]["worst_s"] >= findings["latency"]["measured"]["put"]["median_s"] > 0
    assert ("room" in findings) == (target.name == "local")
    assert target.raw.keys() == []


def test_a_local_place_is_left_as_it_was(tmp_path: Path) -> None:
    run = statevault("doctor", str(tmp_path / "deep" / "er"), "--size", "1kB")
    assert run.code == 0, run.out
    assert list(tmp_path.iterdir()) == []
    assert re.match(r"ok +store +none yet *\n +the first save makes one *\n", run.out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert invoked("doctor", str(empty), "--size", "1kB").code == 0
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("backend", ["local", "juicefs"])
def test_a_store_is_described_and_left_as_it_was(servers: Servers, backend: str) -> None:
    target = servers.target(backend)
    fill(target.url, target.storage_options)
    before = {key: target.raw.get(key) for key in target.raw.keys()}  # noqa: SIM118
    run = statevault("doctor", target.url, "--size", "17MiB", "--json", *option_arguments(target.storage_options))
    assert run.code == 0, run.out + run.err
    store = by_check(run)["store"]
    assert store["found"].startswith("format 1, 2 states, the newest b.state (")
    assert store["measured"] == {"states": 2, "damaged": 0}
    assert {key: target.raw.get(key) for key in target.raw.keys()} == before  # noqa: SIM118


def test_saves_under_way_and_debris_are_told(tmp_path: Path) -> None:
    fill(tmp_path)

    def begin(name: str, sequence: int, age: timedelta) -> None:
        begun = datetime.now(UTC) - age
        session = SessionRecord(state=name, sequence=sequence, writer="robot-7:1:00000000", started_at=begun)
        (tmp_path / session_key(name)).parent.mkdir(exist_ok=True)
        (tmp_path / session_key(name)).write_bytes(session.to_json())

    begin("running.state", 3, timedelta(minutes=5))
    run = invoked("doctor", str(tmp_path), "--size", "1kB", "--json")
    assert "robot-7:1:00000000" in by_check(run)["saves"]["found"]
    assert "debris" not in by_check(run)
    dict_storage = DictStorage()  # which tells no times, so that the writer's clock counts
    fill(dict_storage)
    begun = datetime.now(UTC) - timedelta(days=2)
    dead = SessionRecord(state="dead.state", sequence=3, writer="robot-8:1:00000000", started_at=begun)
    dict_storage.objects[session_key("dead.state")] = dead.to_json()
    findings = examined(dict_storage)
    assert findings["debris"].found.startswith("1 save that never ended")
    assert "statevault gc" in findings["debris"].means


def test_damaged_markers_and_newer_formats_fail(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / commit_key(2, "b.state")).write_bytes(b"{}")
    run = invoked("doctor", str(tmp_path), "--size", "1kB")
    assert run.code == 1
    assert re.search(r"fails +store +1 damaged commit marker: .*b\.state", run.out)
    assert run.out.endswith("Something fails that statevault needs.\n")
    (tmp_path / "_vault" / "format.json").write_text('{"format": "statevault", "version": 2}')
    run = invoked("doctor", str(tmp_path), "--size", "1kB", "--json")
    assert run.code == 1
    assert "version 2" in by_check(run)["store"]["found"]


def test_damaged_records_are_told_with_what_to_do() -> None:
    storage = DictStorage()
    fill(storage)
    with StateStore(storage) as store:
        store.remove(["a.state"])
    storage.objects[tombstone_key(1, "a.state")] = b"{"
    storage.objects[session_key("d.state")] = b"{"
    storage.objects[session_key("b.state")] = b"{"  # of a save that has ended well: a removal clears it
    storage.objects[session_key(".DS_Store")] = b"x"
    storage.objects[intent_key("0" * 16)] = b"{"
    storage.objects[commit_key(2, "b.state")] = b"{}"
    begun = datetime.now(UTC) - timedelta(days=2)
    dead = SessionRecord(state="dead.state", sequence=3, writer="w", started_at=begun)
    storage.objects[session_key("dead.state")] = dead.to_json()
    findings = examined(storage)
    assert {check for check, finding in findings.items() if finding.verdict == "fails"} == {"store", "intents", "saves"}
    assert "statevault rm dict:// b.state" in findings["store"].means
    assert "sessions/d.state" in findings["saves"].found
    assert "delete _vault/sessions/d.state by hand" in findings["saves"].means
    assert "the states stay removed" in findings["tombstones"].means
    assert "no state can be pinned" in findings["intents"].means
    assert "_vault/sessions/.DS_Store" in findings["strays"].found
    assert findings["debris"].means == "`statevault gc` clears it, once what fails above is mended"


class ReadOnly(DictStorage):
    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        raise StorageAccessError("read-only credentials")


class Forbidden(ReadOnly):
    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        raise StorageAccessError("nothing at all")


def test_what_is_not_allowed_is_named_with_what_it_means() -> None:
    storage = ReadOnly()
    fill(inner := DictStorage())
    storage.objects = inner.objects
    findings = list(examine(storage, size_bytes=1000, watch=lambda: nullcontext(lambda count: None)))
    refused, allowed = (finding for finding in findings if finding.check == "access")
    assert (refused.verdict, refused.found) == ("fails", "write: read-only credentials")
    assert refused.means == "nothing can be saved here"
    assert (allowed.verdict, allowed.found) == ("ok", "list, read")
    assert findings[0].found.startswith("format 1, 2 states")
    with pytest.raises(StorageAccessError, match="nothing at all"):
        list(examine(Forbidden(), size_bytes=1000, watch=lambda: nullcontext(lambda count: None)))


def test_a_store_without_delete_is_told_what_that_costs() -> None:
    class Keeping(DictStorage):
        @override
        def delete(self, keys: object) -> None:
            raise StorageAccessError("may not delete")

    finding = examined(Keeping())["access"]
    assert finding.check == "access"
    findings = list(examine(Keeping(), size_bytes=1000, watch=lambda: nullcontext(lambda count: None)))
    assert "go on taking room" in findings[1].means


@pytest.mark.parametrize(
    ("hours", "verdict", "words"),
    [(0, "ok", "the same as here"), (-2, "note", "behind this machine's"), (3, "note", "ahead of this machine's")],
)
def test_a_clock_that_is_off_is_said_in_words(hours: int, verdict: str, words: str) -> None:
    class Skewed(DictStorage):
        @override
        def head(self, key: str) -> ObjectInfo:
            return ObjectInfo(key, super().head(key).size, datetime.now(UTC) + timedelta(hours=hours))

    clock = examined(Skewed())["clock"]
    assert (clock.verdict, words in clock.found) == (verdict, True)
    assert examined(DictStorage())["clock"].verdict == "note"


def test_a_backend_that_is_not_consistent_fails() -> None:
    class Late(DictStorage):
        @override
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            return iter(())

    assert examined(Late())["consistency"].verdict == "fails"


def test_no_server_no_bucket_and_no_credentials_are_one_line(servers: Servers) -> None:
    target = servers.target("juicefs")
    run = statevault("doctor", "s3://b/p", "-o", f"endpoint_url=http://127.0.0.1:{free_port()}", "-o", "key=a",
                     "-o", "secret=b")  # fmt: skip
    assert (run.code, len(run.err.splitlines()), run.out) == (6, 1, "")
    wrong = option_arguments({**target.storage_options, "secret": "wrong"})
    assert invoked("doctor", target.url, *wrong).code == 5
    missing = invoked("doctor", "s3://no-such-bucket-here/p", *option_arguments(target.storage_options))
    assert (missing.code, "no-such-bucket-here" in missing.err) == (3, True)


@pytest.mark.parametrize("columns", [80, 140])
def test_the_report_fits_the_terminal(tmp_path: Path, columns: int) -> None:
    run = in_a_terminal("doctor", str(tmp_path / "x"), "--size", "1kB", columns=columns)
    assert run.code == 0
    lines = run.out.splitlines()
    assert all(len(line.rpartition("\r")[2]) <= columns for line in lines)
    assert "the smallest save takes about" in " ".join(run.out.split())


def test_an_object_that_would_fill_the_disk_is_not_put(tmp_path: Path) -> None:
    run = invoked("doctor", str(tmp_path / "x"), "--size", "99TB", "--json")
    assert run.code == 0
    finding = by_check(run)["throughput"]
    assert (finding["verdict"], finding["found"][:19]) == ("note", "not measured: 99.0 ")
    assert finding["measured"]["size"] == 99 * 10**12
    assert list(tmp_path.iterdir()) == []


def test_a_doctor_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    script = """
        import sys, time
        from statevault.cli import main
        from statevault.storage import measure

        real = measure._Noise._numbered

        def numbered(self, number):
            if number == 5:
                print("begun", file=sys.stderr, flush=True)
                time.sleep(60)
            return real(self, number)

        measure._Noise._numbered = numbered
        main()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "doctor", str(tmp_path / "x"), "--size", "20MB"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.readline() == b"begun\n"
        assert list(tmp_path.iterdir())
        process.terminate()
        assert process.wait(300) == 143
    assert list(tmp_path.iterdir()) == []


class Interrupting(DictStorage):
    """Ends in the middle of a probe, in the way of Ctrl-C."""

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        raise KeyboardInterrupt


def test_an_interrupted_probe_leaves_nothing() -> None:
    for look in (probe, check_access):
        storage = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            look(storage)
        assert storage.objects == {}


def test_a_size_that_is_none_is_bad_usage(tmp_path: Path) -> None:
    run = invoked("doctor", str(tmp_path), "--size", "huge")
    assert run.code == 2
    assert "'huge' is no size" in run.err


def test_numbers_to_which_no_saves_lead_are_told_with_what_to_do() -> None:
    storage = DictStorage()
    fill(storage)
    marker = CommitRecord.from_json(storage.objects[commit_key(2, "b.state")], where="b.state")
    assert "numbers" not in examined(storage)
    storage.objects[tombstone_key(MAX_SEQUENCE, "zzz")] = b"{}"
    assert "_vault/tombstones/999999999999.zzz" in examined(storage)["numbers"].found
    assert "statevault gc" in examined(storage)["numbers"].means
    del storage.objects[tombstone_key(MAX_SEQUENCE, "zzz")]
    absurd = marker.model_copy(update={"sequence": MAX_SEQUENCE, "state": "yyy"})
    storage.objects[commit_key(MAX_SEQUENCE, "yyy")] = absurd.to_json()
    assert "_vault/commits/999999999999.yyy" in examined(storage)["numbers"].found
    assert "statevault rm dict:// yyy" in examined(storage)["numbers"].means


def test_a_save_of_the_future_is_told() -> None:
    storage = DictStorage()
    fill(storage)
    begun = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    session = SessionRecord(state="late.state", sequence=3, writer="robot-8:1:00000000", started_at=begun)
    storage.objects[session_key("late.state")] = session.to_json()
    assert "_vault/sessions/late.state" in examined(storage)["saves"].found
    assert "by hand" in examined(storage)["saves"].means


def test_a_damaged_marker_beside_a_sound_one_of_its_name_need_not_cost_the_state() -> None:
    storage = DictStorage()
    fill(storage)
    storage.objects[commit_key(9, "b.state")] = b"{}"
    assert "delete the damaged marker by hand" in examined(storage)["store"].means
