"""Bad input: one readable line, an exit code by kind, within a bounded time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from statevault.cli.options import parsed_storage_options
from statevault.errors import FormatError, StateVaultError, StorageError
from statevault.state_persistence import StateStore
from tests.cli.run import Run, invoked, option_arguments, statevault
from tests.servers import Servers, free_port
from tests.state_persistence.components import Folder


def one_line(run: Run) -> str:
    """The one line on stderr; a traceback would have more."""
    assert run.err.startswith("statevault: "), run.err
    assert len(run.err.splitlines()) == 1, run.err
    return run.err


@pytest.mark.parametrize("verb", ["ls", "show", "verify"])
def test_a_store_that_is_not_there(verb: str, tmp_path: Path) -> None:
    run = statevault(verb, str(tmp_path / "typo"))
    assert run.code == 3
    assert "no store at" in one_line(run)


def test_a_state_that_is_not_there(tmp_path: Path) -> None:
    with StateStore(tmp_path) as store:
        store.save_state(name="a.state")
    run = statevault("show", str(tmp_path), "b.state")
    assert run.code == 3
    assert "'b.state'" in one_line(run)
    assert "'a.state'" in run.err


def test_errors_as_json(tmp_path: Path) -> None:
    run = statevault("ls", str(tmp_path / "typo"), "--json")
    error = json.loads(run.err)["error"]
    assert (error["kind"], error["exit_code"], run.code) == ("StoreNotFoundError", 3, 3)
    assert "typo" in error["message"]


def test_a_newer_store(tmp_path: Path) -> None:
    (tmp_path / "_vault").mkdir()
    (tmp_path / "_vault" / "format.json").write_text('{"format": "statevault", "version": 2}')
    run = statevault("ls", str(tmp_path))
    assert run.code == 7
    assert "version 2" in one_line(run)


def test_a_store_that_has_lost_its_description(tmp_path: Path) -> None:
    states = str(tmp_path / "states")
    with StateStore(states) as store:
        store.register("folder", Folder({"a": b"1"}))
        store.save_state(name="a.state")
    description = tmp_path / "states" / "_vault" / "format.json"
    description.unlink()
    for arguments in (
        ["ls", states],
        ["show", states],
        ["verify", states],
        ["cat", states, "latest", "folder/a"],
        ["export", states, "latest", str(tmp_path / "out")],
        ["gc", states],
        ["gc", states, "--dry-run"],
        ["rm", states, "a.state", "--yes"],
        ["prune", states, "--keep-last", "1", "--yes"],
        ["pin", states, "a.state"],
        ["unpin", states, "a.state"],
        ["cp", states, str(tmp_path / "copy")],
    ):
        run = invoked(*arguments)
        assert run.code == 7, arguments
        assert "has states but has lost _vault/format.json" in one_line(run)
    doctor = invoked("doctor", states, "--size", "1kB", "--json")
    finding = doctor.json["findings"][0]
    assert (doctor.code, finding["check"], finding["verdict"]) == (1, "store", "fails")
    description.write_text(finding["found"].partition("save a state: ")[2])
    assert invoked("ls", states).code == 0


def test_an_unknown_scheme() -> None:
    run = statevault("ls", "s4://bucket/prefix")
    assert run.code == 2
    assert "s4" in one_line(run)


@pytest.mark.parametrize("url", ["s3://AKIA:MYSECRET@bucket/x", "gs://k:MYSECRET@b/x", "file://k:MYSECRET@b/x"])
def test_credentials_in_a_url_are_not_printed(url: str, tmp_path: Path) -> None:
    for arguments in (
        ["ls", url],
        ["ls", url, "--json"],
        ["cp", url, str(tmp_path)],
        ["doctor", url],
        ["cp", url, url],
    ):
        run = invoked(*arguments)
        assert run.code == 2
        assert "SECRET" not in run.err + run.out


@pytest.mark.parametrize("url", ["~nosuchuser/x", "s3:/bucket/x", "s3:bucket"])
def test_a_mistyped_url(url: str) -> None:
    run = invoked("ls", url)
    assert run.code == 2
    one_line(run)


def test_output_never_fails_for_its_encoding(tmp_path: Path) -> None:
    folder = tmp_path / "here \u2192 there"
    folder.mkdir()
    (folder / "n\u2192e.txt").write_text("x")
    states = str(tmp_path / "states")
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = statevault("import", str(folder), states, "--name", "a.state", env=ascii_only)
    assert (done.code, done.err) == (0, "")
    for environment in (
        ascii_only,
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ):
        shown = statevault("show", states, env=environment)
        assert (shown.code, shown.err) == (0, "")
        assert r"n\u2192e.txt" in shown.out
        shown = statevault("show", states, "--json", env=environment)
        assert shown.json["tree"][0]["path"] == "n\u2192e.txt"
        missing = statevault("show", states, "\u2192.state", env=environment)
        assert (missing.code, "no state" in one_line(missing)) == (3, True)


@pytest.mark.parametrize(
    ("scheme", "option", "words"),
    [
        ("s3", "endpont_url=http://x", "there is no storage option 'endpont_url'; did you mean 'endpoint_url'?"),
        ("s3", "endpoint_url=127.0.0.1:9000", "write http://127.0.0.1:9000"),
        ("s3", "endpoint_url=me:SECRET@host", "write http://***@host"),
        ("s3", "client_kwargs.endpoint_url=host:9000", "client_kwargs.endpoint_url of s3://bkt/x"),
        ("s3", "client_kwargs=abc", "-o client_kwargs.NAME=VALUE"),
        ("s3", "config_kwargs=3", "-o config_kwargs.NAME=VALUE"),
        ("s3", "client_kwargs.regionname=x", "did you mean 'client_kwargs.region_name'?"),
        ("s3", "client_kwargs.region_name=eu;1", "client_kwargs.region_name of s3://bkt/x can't be a region"),
        ("s3", "config_kwargs.foo=1", "there is no storage option 'config_kwargs.foo'"),
        ("s3", "config_kwargs.connect_timeout=abc", "connect"),
        ("gs", "endpoint_url=127.0.0.1:9000", "write http://127.0.0.1:9000"),
        ("gs", "timeout=abc", "timeout"),
        ("gs", "tokn=abc", "there is no storage option 'tokn'; did you mean 'token'?"),
    ],
)
def test_an_option_that_cannot_be_used(scheme: str, option: str, words: str) -> None:
    others = ["-o", "key=5", "-o", "secret=6e7"] if scheme == "s3" else []
    for verb in ("ls", "doctor"):
        run = invoked(verb, f"{scheme}://bkt/x", *others, "-o", option)
        assert run.code == 2, run.err
        assert words in one_line(run)
        assert len(run.err) < 250
        assert "SECRET" not in run.err


def test_an_endpoint_of_the_environment_that_cannot_be_used() -> None:
    run = statevault("ls", "s3://bkt/x", env={"AWS_ENDPOINT_URL": "127.0.0.1:9000"})
    assert (run.code, "AWS_ENDPOINT_URL of s3://bkt/x" in one_line(run)) == (2, True)


def test_a_key_of_digits_is_text() -> None:
    given = ["key=5", "secret=6e7", "token=null", 'token_of.token={"a": 1}', "anon=true", "client_kwargs.region_name=1"]
    assert parsed_storage_options(given) == {
        "key": "5",
        "secret": "6e7",
        "token": "null",
        "token_of": {"token": {"a": 1}},
        "anon": True,
        "client_kwargs": {"region_name": "1"},
    }


def test_a_server_of_another_protocol_that_is_not_there() -> None:
    run = statevault("ls", f"ftp://127.0.0.1:{free_port()}/x")
    assert run.code == 6
    assert "refused" in one_line(run)


def test_a_file_in_place_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = statevault("ls", str(tmp_path / "file"))
    assert run.code == 3
    assert "is a file" in one_line(run)


def test_a_missing_extra_names_the_command_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['gcsfs'] = None")
    run = statevault("ls", "gs://bucket/prefix", env={"PYTHONPATH": str(tmp_path)})
    assert run.code == 1
    assert 'pip install "statevault[gcs]"' in one_line(run)


def test_an_endpoint_where_nobody_listens() -> None:
    run = statevault("ls", "s3://bucket/prefix", "-o", f"endpoint_url=http://127.0.0.1:{free_port()}",
                     "-o", "key=a", "-o", "secret=b")  # fmt: skip
    assert run.code == 6
    assert "127.0.0.1" in one_line(run)


def test_wrong_credentials(servers: Servers) -> None:
    target = servers.target("juicefs")
    options = option_arguments({**target.storage_options, "secret": "wrong"})
    run = statevault("ls", target.url, *options)
    assert run.code == 5
    assert "AWS_" in one_line(run)
    assert "-o key=" in run.err


def test_a_bucket_that_does_not_exist(servers: Servers) -> None:
    target = servers.target("moto")
    run = statevault("ls", "s3://no-such-bucket-here/prefix", *option_arguments(target.storage_options))
    assert run.code == 3
    assert "no-such-bucket-here" in one_line(run)


def test_no_credentials_at_all(servers: Servers, tmp_path: Path) -> None:
    target = servers.target("juicefs")
    environment = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "")
    environment |= {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    run = statevault("ls", target.url, "-o", f"endpoint_url={target.storage_options['endpoint_url']}", env=environment)
    assert run.code == 5
    assert "AWS_" in one_line(run)


def test_bad_usage() -> None:
    assert statevault("ls").code == 2
    assert statevault("nonsense").code == 2
    assert statevault("ls", "x", "-o", "novalue").code == 2


def test_a_saving_store_that_cannot_be_written_keeps_the_old_states(tmp_path: Path) -> None:
    """Not read-only by permission, which root passes: a file lies where the folder of sessions should be."""
    root = tmp_path / "states"
    folder = Folder({"a": b"1"})
    with StateStore(root) as store:
        store.register("folder", folder)
        store.save_state(name="a.state")
        sessions = root / "_vault" / "sessions"
        if sessions.exists():
            sessions.rmdir()
        sessions.write_text("in the way")
        with pytest.raises((StorageError, FormatError)) as caught:
            store.save_state(name="b.state")
        assert isinstance(caught.value, StateVaultError)
        sessions.unlink()
        store.save_state(name="c.state")
        assert [info.name for info in store.states()] == ["a.state", "c.state"]
