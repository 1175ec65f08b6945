import string
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statevault.errors import FormatError, InvalidNameError
from statevault.format.keys import check_object_key, manifest_key, object_key, parse_state_keys, state_prefix
from statevault.format.names import (
    check_component_name,
    check_distinct_paths,
    check_logical_path,
    check_state_name,
)


@pytest.mark.parametrize("name", ["a", "2026-11-21_10-00-00,123456.state", "A" * 200, "run=3:x@y~z+w.state"])
def test_usual_state_names_are_accepted(name: str) -> None:
    assert check_state_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "_vault", "a/b", "a\\b", "a b", "a\n", "é", "a" * 201, "-x", "a\0", "%2e", "a*"],
)
def test_state_names_that_could_leave_their_place_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="state"):
        check_state_name(name)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "a/../b",
        "..",
        ".",
        "a//b",
        "a/",
        "a/./b",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x7f",
        "x" * 256,
        "\ud800",
    ],
)
def test_logical_paths_that_escape_or_confuse_are_refused(path: str) -> None:
    with pytest.raises(InvalidNameError):
        check_logical_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b/c.txt", ".hidden", "with space", "ünïcode/漢字", "a..b", "x" * 255, "*?[#%"]
)
def test_whatever_people_call_files_is_accepted(path: str) -> None:
    assert check_logical_path(path) == path


def test_a_component_name_is_one_segment() -> None:
    with pytest.raises(InvalidNameError, match="'/'"):
        check_component_name("a/b")


@pytest.mark.parametrize(
    "paths", [["a", "a"], ["a", "a/b"], ["x/y/z", "x"], ["a", "a!", "a/b"], ["a", "a.b", "a/b/c"], ["a/b", "a", "a b"]]
)
def test_paths_that_cannot_all_be_files_are_refused(paths: list[str]) -> None:
    with pytest.raises(FormatError):
        check_distinct_paths(paths)


@pytest.mark.parametrize(("files", "folders"), [(["a"], ["a"]), (["a"], ["a/b", "a!"]), (["a", "b"], ["b/c/d"])])
def test_a_file_is_no_folder(files: list[str], folders: list[str]) -> None:
    with pytest.raises(FormatError):
        check_distinct_paths(files, folders)


small_paths = st.lists(st.sampled_from(["a", "b", "a.", "a!", "b~"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(small_paths, max_size=6), st.lists(small_paths, max_size=4))
def test_paths_are_refused_if_and_only_if_a_disk_could_not_hold_them(files: list[str], folders: list[str]) -> None:
    above = {parent for path in files + folders for parent in accumulate(path.split("/"), "{}/{}".format)}
    parents = {path.rpartition("/")[0] for path in above} | set(folders)
    fits = len(set(files)) == len(files) and parents.isdisjoint(files)
    try:
        check_distinct_paths(files, folders)
    except FormatError:
        assert not fits
    else:
        assert fits


segments = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)


def acceptable(path: str) -> bool:
    try:
        check_logical_path(path)
    except InvalidNameError:
        return False
    return True


logical_paths = st.lists(segments, min_size=1, max_size=12).map("/".join).filter(acceptable)


@given(logical_paths, st.booleans())
def test_object_keys_are_portable_and_stay_in_their_state(path: str, compressed: bool) -> None:
    key = object_key("s.state", path, compressed=compressed)
    assert check_object_key(key) == key
    assert key.startswith(state_prefix("s.state"))
    assert len(key) <= 1000
    assert set(key) <= set(string.ascii_letters + string.digits + "._,+=@~-%/")
    assert all(len(segment) <= 190 and not segment.startswith(".") for segment in key.split("/"))
    assert key != manifest_key("s.state")


@given(st.sets(logical_paths, min_size=2, max_size=8))
def test_different_files_have_different_keys(paths: set[str]) -> None:
    assert len({object_key("s", path, compressed=False) for path in paths}) == len(paths)


def test_a_file_cannot_take_the_place_of_the_manifest() -> None:
    assert object_key("s", "manifest.msgpack.zst", compressed=False) != manifest_key("s")
    assert object_key("s", "manifest.msgpack", compressed=True) != manifest_key("s")


@pytest.mark.parametrize("key", ["_vault/commits/x", "../x", "a/../../x", "/a", "a", "a/", "a//b", "a/\n", "a/é"])
def test_a_manifest_may_not_name_objects_outside_of_states(key: str) -> None:
    with pytest.raises(FormatError):
        check_object_key(key)


def test_foreign_objects_among_the_markers_are_left_out() -> None:
    keys = [
        "_vault/commits/000000000002.b.state",
        "_vault/commits/000000000001.a.state",
        "_vault/commits/README",
        "_vault/commits/12.short",
        "_vault/commits/000000000003.bad name",
        "_vault/commits/٠٠٠٠٠٠٠٠٠٠٠٣.digits",
        "_vault/tombstones/000000000001.a.state",
    ]
    assert [key.state for key in parse_state_keys(keys, "_vault/commits/")] == ["a.state", "b.state"]
