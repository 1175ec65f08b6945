"""From paths and URLs to storages."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from upath import UPath

from benchmarks.idlers import Idler, Nowhere
from statevault import LaunchConfig, launch
from statevault.errors import InvalidNameError, MissingExtraError, StateVaultError, StoreNotFoundError
from statevault.interaction import Interaction
from statevault.state_persistence import StateStore
from statevault.storage import (
    FsspecStorage,
    LocalStorage,
    RetryingStorage,
    join_url,
    local_folder,
    normalized_url,
    open_storage,
    parent_and_name,
)
from statevault.storage.buckets import bucket_and_prefix
from statevault.storage.redaction import redacted
from statevault.storage.s3.storage import S3Storage


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://localhost{}", "local://{}", "{}/../store"])
def test_each_spelling_of_a_local_path_is_the_same_place(tmp_path: Path, form: str) -> None:
    storage = open_storage(form.format(tmp_path / "store"))
    assert isinstance(storage, LocalStorage)
    assert storage.root == tmp_path / "store"
    assert storage.url == f"file://{tmp_path}/store"


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("s3a://bucket/x/", "s3://bucket/x"),
        ("GCS://bucket/x//", "gs://bucket/x"),
        ("memory:///place", "memory://place"),
        ("memory:////place/a/", "memory://place/a"),
        ("//var/states", "/var/states"),
        ("file:////var//states/.", "/var/states"),
        ("s3://bucket/..a/b../...", "s3://bucket/..a/b../..."),
        ("hdfs:///path", "hdfs:///path"),
    ],
)
def test_each_place_has_one_spelling(url: str, same: str) -> None:
    assert normalized_url(url) == same


@pytest.mark.parametrize("url", ["s3://b/a//b", "s3://b//a", "s3://b/a\\b", "s3://./a", "gs://b/..", "sftp://h/a/../b"])
def test_what_may_be_another_spelling_of_a_url_is_refused(url: str) -> None:
    for use in (normalized_url, parent_and_name, open_storage, StateStore, StateStore("memory://here").open_state):
        with pytest.raises(InvalidNameError, match="single forward slashes"):
            use(url)


def test_what_is_refused_of_a_url_does_not_show_its_password() -> None:
    with pytest.raises(InvalidNameError, match="single forward slashes") as caught:
        open_storage("sftp://user:se\\cret@host/a")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["a\0b", "file:///a\0b", "s3://bucket/a\0b"])
def test_a_nul_is_part_of_no_place(url: str) -> None:
    with pytest.raises(InvalidNameError, match="NUL"):
        open_storage(url)


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
        ("sftp://user:se@cret@host/path", "sftp://***@host/path"),
        ("https://h/k?X-Amz-Signature=abc&part=1", "https://h/k?X-Amz-Signature=***&part=1"),
        ("https://h/k?part=1&X-Amz-Credential=abc%2F", "https://h/k?part=1&X-Amz-Credential=***"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:MYSECRET@bucket/x",
        "s3://AKIA:MY/SECRET@bucket/x",
        "s3://AKIA:MYSECRET@host:9000/x",
        "s3://AKIAMYMYMYMYMYMYMYMY:MYSECRET/x",
        "s3://MYTENANT:MYSECRET@bucket/x",
        "s3://arn:aws:MYSECRET@bucket/x",
        "s3://arn:MY/SECRET@bucket/x",
        "gs://k:MYSECRET@b/x",
        "gcs://k:MYSECRET@b/x",
        "file://k:MYSECRET@b/x",
        "s3:/k:MYSECRET@b/x",
        "s4://k:MYSECRET@b/x",
    ],
)
def test_credentials_in_a_url_are_refused_and_stay_out_of_messages(url: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        open_storage(url)
    assert "SECRET" not in str(caught.value)
    assert "MY" not in str(caught.value)
    with pytest.raises(InvalidNameError) as caught:
        launch(Interaction(Idler(), Nowhere()), config=LaunchConfig(states_dir=url, web_api_address=None))
    assert "MY" not in str(caught.value)


ACCESS_POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint"


@pytest.mark.parametrize(
    "bucket",
    [
        f"{ACCESS_POINT}/name",
        f"{ACCESS_POINT}:name",
        "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
        "arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/name",
        "arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/name",
        "arn:aws:s3-outposts:eu-west-1:123456789012:outpost/op-01/accesspoint/name",
        "arn:aws:s3-outposts:eu-west-1:123456789012:outpost:op-01:accesspoint:name",
        "tenant:bucket",
        "tenant_2:my.bucket-1",
        "tenant:123456",
        ":bucket",
    ],
)
def test_access_points_and_buckets_of_tenants_are_buckets(bucket: str) -> None:
    assert bucket_and_prefix(f"s3://{bucket}") == (bucket, "")
    assert bucket_and_prefix(f"s3a://{bucket}/") == (bucket, "")
    assert bucket_and_prefix(f"s3://{bucket}/some/prefix/") == (bucket, "some/prefix/")
    assert open_storage(f"s3://{bucket}/prefix", {"key": "k", "secret": "s"}).url == f"s3://{bucket}/prefix"
    with pytest.raises(InvalidNameError, match="holds credentials"):
        bucket_and_prefix(f"gs://{bucket}/prefix")


@pytest.mark.parametrize("prefix", ["me@home", "a:b@c"])
def test_an_access_point_has_prefixes_like_any_bucket(prefix: str) -> None:
    assert bucket_and_prefix(f"s3://{ACCESS_POINT}/name/{prefix}") == (f"{ACCESS_POINT}/name", f"{prefix}/")


@pytest.mark.parametrize(
    ("url", "names"),
    [
        (f"s3://{ACCESS_POINT}", "not the ARN of an access point"),
        (f"s3://{ACCESS_POINT}/name\n", "control character"),
        ("s3://arn:aws:s3:::bucket/prefix", "not the ARN of an access point, .*: write s3://bucket/prefix"),
        ("s3://arn:aws:iam::123456789012:role/name", "not the ARN of an access point"),
        ("s3://minio:9000/bucket", "a host with its port"),
        ("s3://10.0.0.1:9000/bucket", "a host with its port"),
        ("s3://[::1]:9000/bucket", "a host with its port"),
        ("s3://tenant:/x", "holds credentials"),
        ("s3://a:b:c/x", "holds credentials"),
    ],
)
def test_what_only_looks_like_one_of_them_is_refused(url: str, names: str) -> None:
    with pytest.raises(InvalidNameError, match=names):
        open_storage(url)


@pytest.mark.parametrize("bucket", ["a bucket", "b\u00fccher", "x" * 300])
def test_what_can_be_no_bucket_is_refused_in_a_line(bucket: str) -> None:
    with pytest.raises(InvalidNameError, match="can't be the name of a bucket") as caught:
        open_storage(f"s3://{bucket}/x")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "url", ["s3:/bucket/x", "s3:bucket", "S3:bucket", "gs:/b", "file:/x", "memory:x", Path("s3://b/x"), "az:/c"]
)
def test_what_is_only_nearly_a_url_is_no_local_folder(url: str | Path) -> None:
    with pytest.raises(InvalidNameError, match="two slashes"):
        open_storage(url)


@pytest.mark.parametrize("path", ["./s3:/x", "a/s3:/x", "c:/x", "12:30", "run:1"])
def test_a_local_path_may_have_colons(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = open_storage(path)
    assert isinstance(storage, LocalStorage)
    assert storage.root == tmp_path / path


def test_the_home_of_nobody_is_no_place() -> None:
    with pytest.raises(InvalidNameError, match="~nosuchuser is the home folder of nobody here"):
        open_storage("~nosuchuser/x")


def test_importing_the_package_loads_no_cloud_library() -> None:
    script = """
        import sys
        import statevault.storage

        statevault.storage.open_storage("memory://place").put("key", b"x")
        heavy = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google.auth", "numpy", "s3fs"} & set(sys.modules)
        sys.exit(f"loaded: {heavy}" if heavy else 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def test_opening_s3_needs_no_gcs_library_and_no_network() -> None:
    script = """
        import sys
        import statevault.storage

        statevault.storage.open_storage("s3://bucket")
        sys.exit("gcsfs is loaded" if "gcsfs" in sys.modules else 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "gs://bucket", "memory://x"])
def test_what_has_to_be_a_local_folder_is_no_url(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (
        lambda: StateStore(tmp_path / "states", staging_dir=url),
        lambda: StateStore(tmp_path / "states", spool=url),
        lambda: local_folder(url, "what is meant"),
    ):
        with pytest.raises(InvalidNameError, match=r"is a folder of a local disk, which \w+://") as caught:
            use()
        assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert local_folder("here", "what is meant") == tmp_path / "here"
