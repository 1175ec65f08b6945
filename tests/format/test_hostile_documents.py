"""Manifests, marker packs and records that are made to fill the memory: it is bounded by their length."""

from __future__ import annotations

import json
import os
import random
import secrets
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import msgpack
import pytest

from statevault.errors import FormatError
from statevault.format.bounded_msgpack import unpack_bounded
from statevault.format.manifest import Manifest
from statevault.format.marker_pack import MarkerPack, PackedMarker
from statevault.format.records import CommitRecord, ManifestRef
from tests.format.test_manifest import DIGEST, a_manifest
from tests.memory import peak_of

SIZE = 60_000
MOST_PER_BYTE = 64
"""What decoding may allocate for each byte. Measured: 56."""


def array(count: int, items: bytes) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(count)
    return header + items


def repeated(item: bytes) -> bytes:
    count = SIZE // len(item)
    return array(count, item * count)


def nested(depth: int) -> bytes:
    return b"\x92" * depth + b"\xc0" + b"\xc0" * depth


FILLINGS = {
    "empty lists": repeated(b"\x90"),
    "empty maps": repeated(b"\x80"),
    "lists of one": repeated(b"\x91\xc0"),
    "lists of two": repeated(b"\x92\xc0\xc0"),
    "maps of one": repeated(b"\x81\xa0\xc0"),
    "maps with other keys": repeated(b"\x81\x01\xc0"),
    "nothing": repeated(b"\xc0"),
    "numbers": repeated(b"\xcd\x7f\xff"),
    "short texts": repeated(b"\xa2ab"),
    "empty extensions": repeated(b"\xc7\x00\x05"),
    "timestamps": repeated(b"\xd6\xff\x00\x00\x00\x00"),
    "lists in lists": repeated(nested(500)),
    "too deep": nested(5_000),
    "a claim": b"\xdd\xff\xff\xff\xff",
    "a claim in a claim": b"\xdd\xff\xff\xff\xff" * 500,
    "a map's claim": b"\xdf\xff\xff\xff\xff",
    "a text's claim": b"\xdb\xff\xff\xff\xffab",
    "one long text": b"\xdb" + SIZE.to_bytes(4, "big") + b"x" * SIZE,
    "short entries": repeated(b"\x92\x00\xa0"),
    "short files": repeated(b"\x95\x00\xa2ab\x00\x00\x90"),
    "short chunks": repeated(b"\x95\x00\xa2ab\x00\x00\x91\x96\x00\x00\x01\x01\xc4\x00\x00"),
    "entries of a pack": repeated(b"\x95\x01\xa1a\x01\x00\xc4\x00"),
}


def with_field(packed: bytes, field: str, value: bytes) -> bytes:
    fields = {name: content for name, content in msgpack.unpackb(packed).items() if name != field}
    rest: bytes = msgpack.packb(fields)
    name: bytes = msgpack.packb(field)
    return bytes([rest[0] + 1]) + rest[1:] + name + value


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS.keys())
@pytest.mark.parametrize("field", ["unknown", "files", "objects", "directories", "components", "writer"])
def test_memory_for_a_manifest_is_bounded_by_its_length(field: str, filling: bytes) -> None:
    def read() -> None:
        with suppress(FormatError):
            Manifest.unpack(hostile, where="here")

    hostile = with_field(a_manifest().pack(), field, filling)
    assert peak_of(read) < MOST_PER_BYTE * len(hostile) + 200_000


@pytest.mark.parametrize("filling", FILLINGS.values(), ids=FILLINGS.keys())
@pytest.mark.parametrize("field", ["unknown", "markers", "format"])
def test_memory_for_a_marker_pack_is_bounded_by_its_length(field: str, filling: bytes) -> None:
    def read() -> None:
        with suppress(FormatError):
            MarkerPack.unpack(hostile, where="here")

    hostile = with_field(MarkerPack(markers=[]).pack(), field, filling)
    assert peak_of(read) < MOST_PER_BYTE * len(hostile) + 200_000


def test_what_a_later_version_may_add_is_ignored() -> None:
    values: list[object] = [[], {}, [[], []], [["a", 1], ["b", 2]], {"a": {"b": [1]}}, b"x" * 1000, ["text"] * 1000]
    for value in values:
        packed = with_field(a_manifest().pack(), "later", msgpack.packb(value))
        assert Manifest.unpack(packed, where="here") == a_manifest()


@pytest.mark.parametrize("data", [b"", b"\x90\x90", b"\x90" + b"\xc0" * 100, b"\xc1"])
def test_only_one_whole_document_is_one(data: bytes) -> None:
    with pytest.raises((ValueError, msgpack.exceptions.UnpackException)):
        unpack_bounded(data)


MANY_WRONG: dict[str, Callable[[int], bytes]] = {
    "chunks": lambda count: msgpack.packb([[0, "a", count, 0, [[0, 0, 1, 1, b"", 0]] * count]]),
    "files": lambda count: msgpack.packb([[0, "a", 0, 9, []]] * count),
    "digests": lambda count: msgpack.packb([[0, "a", count, 0, [[0, 0, 1, 1, DIGEST.decode("latin-1"), 0]] * count]]),
}


@pytest.mark.parametrize("kind", MANY_WRONG)
def test_many_wrong_entries_cost_no_more_than_one(kind: str) -> None:
    """Not an error object for each."""

    def read() -> None:
        with pytest.raises(FormatError, match="malformed"):
            Manifest.unpack(hostile, where="here")

    hostile = with_field(a_manifest().pack(), "files", MANY_WRONG[kind](20_000))
    assert peak_of(read) < MOST_PER_BYTE * len(hostile) + 200_000


def json_array(item: str) -> str:
    return f"[{','.join([item] * (SIZE // (len(item) + 1)))}]"


JSON = {
    "empty lists": json_array("[]"),
    "empty objects": json_array("{}"),
    "objects of one": json_array('{"":0}'),
    "texts": json_array('"ab"'),
    "halves of characters": json_array('"\\ud800"'),
    "numbers": json_array("1000"),
    "long numbers": json_array("9" * 4000),
    "a number without end": "9" * SIZE,
    "infinities": json_array("1e999"),
    "deep lists": json_array("[" * 150 + "]" * 150),
    "too deep": "[" * SIZE + "]" * SIZE,
    "open lists": "[" * SIZE,
}


@pytest.mark.parametrize("filling", JSON.values(), ids=JSON.keys())
@pytest.mark.parametrize("field", ["metadata", "reuses", "writer", "later"])
def test_memory_for_a_record_is_bounded_by_its_length(field: str, filling: str) -> None:
    """A record is not compressed: its length is what is stored."""

    def read() -> None:
        with suppress(FormatError):
            CommitRecord.from_json(hostile, where="here")

    fields = json.loads(a_marker().to_json()) | {field: "@"}
    hostile = json.dumps(fields).replace('"@"', f'{{"a": {filling}}}' if field == "metadata" else filling).encode()
    assert peak_of(read) < 100 * len(hostile) + 200_000


def a_marker() -> CommitRecord:
    return CommitRecord(
        state="b.state",
        sequence=2,
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
        writer="host:1:abcd",
        base="a.state",
        reuses=["a.state"],
        files=2,
        size=350,
        stored_size=300,
        new_size=50,
        components=["models", "time"],
        metadata={"step": 1, "note": [1.5, None, {"a": "b"}]},
        manifest=ManifestRef(length=100, size=200, digest="0" * 64),
    )


DECODERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "manifest": (a_manifest().pack(), lambda data: Manifest.unpack(data, where="here")),
    "marker pack": (
        MarkerPack(markers=[PackedMarker(1, "a.state", 4, 5, b"text")] * 3).pack(),
        lambda data: MarkerPack.unpack(data, where="here"),
    ),
    "commit marker": (a_marker().to_json(), lambda data: CommitRecord.from_json(data, where="here")),
}


def fuzz(kind: str, rounds: int) -> tuple[float, dict[str, int]]:
    """Damage a document at random; gives the most memory that a byte of it took, and how often what happened."""
    seed = int(os.environ.get("STATEVAULT_FUZZ_SEED") or secrets.randbits(32))
    rng = random.Random(seed)
    good, decode = DECODERS[kind]
    pieces = [*FILLINGS.values(), *(text.encode() for text in JSON.values())]

    def long_piece(rng: random.Random) -> bytes:
        return rng.choice(pieces)[: rng.choice([20, 2000, SIZE])]

    most, outcomes = 0.0, {"decoded": 0, "refused": 0}
    decode(good)
    tracemalloc.start()
    try:
        for number in range(rounds):
            data = bytearray(good)
            for _ in range(rng.choice([1, 1, 2, 4])):
                place = rng.randrange(len(data) + 1)
                cut = rng.choice([0, 1, 1, 4, 64])
                data[place : place + cut] = rng.choice([rng.randbytes(cut), long_piece(rng), bytes(cut), b""])
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                decode(bytes(data))
                outcomes["decoded"] += 1
            except FormatError:
                outcomes["refused"] += 1
            except BaseException as error:
                raise AssertionError(f"seed {seed}, round {number}: {error!r} from {bytes(data).hex()}") from error
            most = max(most, (tracemalloc.get_traced_memory()[1] - before - 200_000) / max(1, len(data)))
    finally:
        tracemalloc.stop()
    return most, outcomes


@pytest.mark.parametrize("kind", DECODERS)
def test_random_damage_is_refused_within_bounded_memory(kind: str) -> None:
    most, outcomes = fuzz(kind, 500)
    assert most < 100, most
    assert outcomes["refused"] > 100, outcomes


@pytest.mark.long
@pytest.mark.parametrize("kind", DECODERS)
def test_random_damage_is_refused_within_bounded_memory_for_long(kind: str) -> None:
    most, _ = fuzz(kind, 50_000)
    assert most < 100, most
