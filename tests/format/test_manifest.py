from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statevault.errors import FormatError, UnsupportedVersionError
from statevault.format.manifest import Chunk, DirectoryEntry, FileEntry, Manifest, ObjectEntry

DIGEST = bytes(range(32))


def a_manifest() -> Manifest:
    return Manifest(
        state="b.state",
        sequence=2,
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
        writer="host:1:abcd",
        base="a.state",
        components=["models", "time"],
        directories=[DirectoryEntry(0, "models/cache")],
        objects=[ObjectEntry("b.state/models/p.zst", 150), ObjectEntry("a.state/models/p", 4000)],
        files=[
            FileEntry(0, "models/p", 350, 1, [Chunk(0, 0, 50, 100, DIGEST, 1), Chunk(1, 750, 250, 250, DIGEST, 0)]),
            FileEntry(1, "time.tree", 0, 0, []),
        ],
    )


def test_a_manifest_comes_back_as_it_was() -> None:
    manifest = a_manifest()
    again = Manifest.unpack(manifest.pack(), where="here")
    assert again == manifest
    assert again.size == 350
    assert again.files[0].holds_pickle
    assert not again.files[1].holds_pickle
    assert again.files[0].stored_size == 300


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = msgpack.unpackb(a_manifest().pack())
    change(fields)
    packed: bytes = msgpack.packb(fields)
    return packed


def set_chunk(position: int, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda fields: fields["files"][0][4][0].__setitem__(position, value)


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a path that escapes": lambda m: m["files"][0].__setitem__(1, "../../etc/passwd"),
    "an absolute path": lambda m: m["files"][0].__setitem__(1, "/etc/passwd"),
    "a folder that escapes": lambda m: m["directories"][0].__setitem__(1, "a/../.."),
    "a path twice": lambda m: m["files"][1].__setitem__(1, "models/p"),
    "a file that is a folder": lambda m: m["files"][1].__setitem__(1, "models/p/q"),
    "a folder that is a file": lambda m: m["directories"][0].__setitem__(1, "models/p"),
    "a folder below a file": lambda m: m["directories"][0].__setitem__(1, "models/p/cache"),
    "an object outside the store": lambda m: m["objects"][0].__setitem__(0, "../secret"),
    "an object of the protocol": lambda m: m["objects"][0].__setitem__(0, "_vault/format.json"),
    "an object twice": lambda m: m["objects"].append(m["objects"][0]),
    "an object with a key that no storage takes": lambda m: m["objects"][0].__setitem__(
        0, "b.state/" + "k/" * 600 + "k"
    ),
    "an object with a name that no disk takes": lambda m: m["objects"][0].__setitem__(0, "b.state/" + "k" * 256),
    "an object that is hidden": lambda m: m["objects"][0].__setitem__(0, "b.state/.tmp-1-2"),
    "a path of many folders": lambda m: m["files"][0].__setitem__(1, "d/" * 1500 + "f"),
    "a long path": lambda m: m["files"][0].__setitem__(1, "/".join(["d" * 255] * 9)),
    "a folder in many folders": lambda m: m["directories"][0].__setitem__(1, "d/" * 64 + "d"),
    "a chunk that takes much more than it holds": lambda m: (
        m["objects"][0].__setitem__(1, 10**6),
        set_chunk(2, 10**6)(m),
    ),
    "an object that is not listed": set_chunk(0, 7),
    "a negative object": set_chunk(0, -1),
    "bytes behind the end": set_chunk(1, 149),
    "an absurd offset": set_chunk(1, 2**63),
    "an absurd chunk": set_chunk(3, 2**40),
    "an empty chunk": set_chunk(3, 0),
    "a short digest": set_chunk(4, b"x"),
    "a digest of text": set_chunk(4, "x" * 32),
    "an unknown encoding": set_chunk(5, 9),
    "a size that does not add up": lambda m: m["files"][0].__setitem__(2, 351),
    "an absurd file": lambda m: m["files"][0].__setitem__(2, 2**62),
    "unknown flags": lambda m: m["files"][0].__setitem__(3, 8),
    "a component that is not listed": lambda m: m["files"][0].__setitem__(0, 5),
    "a component twice": lambda m: m.__setitem__("components", ["models", "models"]),
    "a component with a slash": lambda m: m.__setitem__("components", ["a/b", "c"]),
    "a state with a slash": lambda m: m.__setitem__("state", "a/b"),
    "sequence 0": lambda m: m.__setitem__("sequence", 0),
    "a sequence of text": lambda m: m.__setitem__("sequence", "2"),
    "a time that is none": lambda m: m.__setitem__("created_at", "yesterday"),
    "a time without a zone": lambda m: m.__setitem__("created_at", "2026-01-01T00:00:00"),
    "another format": lambda m: m.__setitem__("format", "zip"),
    "no version": lambda m: m.pop("version"),
    "version true": lambda m: m.__setitem__("version", True),
    "no files": lambda m: m.pop("files"),
    "a short entry": lambda m: m["files"][0].pop(),
    "files of another kind": lambda m: m.__setitem__("files", 3),
    "another state's objects without a base": lambda m: m.__setitem__("base", None),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_manifest_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(FormatError, match="the manifest here"):
        Manifest.unpack(changed(change), where="here")


def test_a_newer_manifest_is_refused_with_its_version_and_the_remedy() -> None:
    with pytest.raises(UnsupportedVersionError, match=r"version 2.*upgrade"):
        Manifest.unpack(changed(lambda fields: fields.__setitem__("version", 2)), where="here")


def test_fields_of_later_minor_versions_are_ignored() -> None:
    packed = changed(lambda fields: fields.__setitem__("comment", "hello"))
    assert Manifest.unpack(packed, where="here") == a_manifest()


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Manifest.unpack(data, where="here")


@given(st.data())
def test_damaged_bytes_give_a_format_error_or_a_consistent_manifest(data: st.DataObject) -> None:
    packed = bytearray(a_manifest().pack())
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        manifest = Manifest.unpack(bytes(packed), where="here")
    except FormatError:
        return
    assert Manifest.unpack(manifest.pack(), where="here") == manifest
