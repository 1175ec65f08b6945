"""From paths and URLs to storages."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from upath import UPath

from statevault.errors import InvalidNameError, MissingExtraError, StateVaultError, StoreNotFoundError
from statevault.storage import (
    FsspecStorage,
    LocalStorage,
    RetryingStorage,
    join_url,
    normalized_url,
    open_storage,
    parent_and_name,
)
from statevault.storage.redaction import redacted
from statevault.storage.s3.storage import S3Storage


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://localhost{}", "local://{}", "{}/../store"])
def test_each_spelling_of_a_local_path_is_the_same_place(tmp_path: Path, form: str) -> None:
    storage = open_storage(form.format(tmp_path / "store"))
    assert isinstance(storage, LocalStorage)
    assert storage.root == tmp_path / "store"
    assert storage.url == f"file://{tmp_path}/store"


def test_a_path_object_is_a_path(tmp_path: Path) -> None:
    for path in (tmp_path, UPath(tmp_path), UPath(f"file://{tmp_path}")):
        assert open_storage(path).url == f"file://{tmp_path}"


def test_a_tilde_is_the_home_folder_and_a_relative_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert open_storage("~/store").url == f"file://{tmp_path}/home/store"
    assert open_storage("store").url == f"file://{tmp_path}/store"


@pytest.mark.parametrize("name", ["with space", "100%20", "q?a#b", "[1]*"])
def test_a_local_path_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    storage = open_storage(f"file://{tmp_path}/{name}")
    storage.put("key", b"x")
    assert (tmp_path / name / "key").read_bytes() == b"x"
    assert open_storage(storage.url).get("key") == b"x"


def test_a_path_of_a_remote_store_brings_its_options() -> None:
    path = UPath("s3://bucket/root", endpoint_url="http://127.0.0.1:1", key="k", secret="s")
    storage = open_storage(path, retry=None)
    assert isinstance(storage, S3Storage)
    assert storage.url == "s3://bucket/root"
    assert storage.path("a").storage_options["endpoint_url"] == "http://127.0.0.1:1"


def test_remote_storages_are_tried_again_and_near_ones_are_not(tmp_path: Path) -> None:
    assert isinstance(open_storage("s3://bucket"), RetryingStorage)
    assert isinstance(open_storage("s3://bucket", retry=None), S3Storage)
    assert isinstance(open_storage("memory://place"), FsspecStorage)
    assert isinstance(open_storage(tmp_path), LocalStorage)


def test_an_unknown_protocol_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidNameError, match=r"'s4'.*s3://bucket.*not known.*memory") as caught:
        open_storage("s4://user:password@s3://bucket")
    assert isinstance(caught.value, StateVaultError)
    assert "password" not in str(caught.value)


def test_an_empty_url_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="needs a path"):
        open_storage("")


def test_a_file_url_with_a_host_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="three slashes"):
        open_storage("file://server/share")


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreNotFoundError):
        open_storage(tmp_path / "file")


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(sys.modules, "gcsfs.core", raising=False)
    with pytest.raises(MissingExtraError, match=r'pip install "statevault\[gcs\]"'):
        open_storage("gs://bucket")


def test_a_protocol_whose_package_is_missing_says_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paramiko", None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.sftp", raising=False)
    with pytest.raises(MissingExtraError, match="sftp"):
        open_storage("sftp://host/path")


@pytest.mark.parametrize(
    ("url", "root", "name"),
    [
        ("s3://bucket/agents/a.state", "s3://bucket/agents", "a.state"),
        ("s3://bucket/agents/a.state/", "s3://bucket/agents", "a.state"),
        ("S3://bucket/a.state", "s3://bucket", "a.state"),
        ("/data/states/a.state/", "/data/states", "a.state"),
        ("file:///data/states/a.state", "/data/states", "a.state"),
        ("/a.state", "/", "a.state"),
        ("memory://place/a.state", "memory://place", "a.state"),
    ],
)
def test_the_url_of_a_state_is_split_into_root_and_name(url: str, root: str, name: str) -> None:
    assert parent_and_name(url) == (root, name)
    assert normalized_url(join_url(root, name)) == normalized_url(url)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://", "memory://place/", "/"])
def test_a_url_without_a_part_above_its_name_can_not_be_split(url: str) -> None:
    with pytest.raises(InvalidNameError, match="not a path below a store"):
        parent_and_name(url)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sftp://user:secret@host/path", "sftp://***@host/path"),
        ("at https://key:secret@host:9000/b: no", "at https://***@host:9000/b: no"),
        ("s3://bucket/me@home", "s3://bucket/me@home"),
        ("https://h/k?X-Amz-Signature=abc&part=1", "https://h/k?X-Amz-Signature=***&part=1"),
        ("https://h/k?part=1&X-Amz-Credential=abc%2F", "https://h/k?part=1&X-Amz-Credential=***"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_credentials_in_a_url_stay_out_of_messages() -> None:
    storage = open_storage("s3://key:secret@bucket/root", retry=None)
    assert "secret" not in storage.url


def test_importing_the_package_loads_no_cloud_library() -> None:
    script = """
        import sys
        import statevault.storage

        statevault.storage.open_storage("memory://place").put("key", b"x")
        heavy = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google.auth", "numpy", "s3fs"} & set(sys.modules)
        sys.exit(f"loaded: {heavy}" if heavy else 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_opening_s3_needs_no_gcs_library_and_no_network() -> None:
    script = """
        import sys
        import statevault.storage

        statevault.storage.open_storage("s3://bucket")
        sys.exit("gcsfs is loaded" if "gcsfs" in sys.modules else 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
