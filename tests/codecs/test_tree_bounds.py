"""Trees that are made to fill the memory or to hold up a load: both are bounded by the length of the file."""

from __future__ import annotations

import collections
import struct
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest

from statevault.codecs import decode_tree, encode_tree
from statevault.codecs.tree import encode
from statevault.codecs.tree.hashes import MAX_OF_ONE_HASH, crowded
from statevault.errors import FormatError, UnsupportedTypeError
from tests.codecs.forge import ext, forge, tagged
from tests.memory import peak_of

SIZE = 30_000
MOST_PER_BYTE = 200
"""What decoding may allocate for each byte of the structure. Measured: 156, for empty deques; 82 for all else."""
COLLIDING = 2**61 - 1
"""Python hashes all of its multiples to 0."""


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value)
    return data


def repeated(item: bytes) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(SIZE // len(item))
    return header + item * (SIZE // len(item))


SMALL = {
    "lists": b"\x90",
    "maps": b"\x80",
    "maps of one": b"\x81\xa0\xc0",
    "maps with numbers": b"\x81\x01\xc0",
    "tuples": tagged(16, b"\xc0"),
    "deques": tagged(17, b"\xc0"),
    "sets": tagged(18),
    "frozen sets": tagged(19),
    "dicts": tagged(20),
    "ordered dicts": tagged(21, b"\x01", b"\x01"),
    "default dicts": tagged(22, b"\xc0"),
    "counters": tagged(23),
    "datetimes": tagged(27, *[b"\x01"] * 7, b"\x00", b"\xc0"),
    "times with a zone": tagged(29, *[b"\x01"] * 4, b"\x00", packed([3_600_000_000, None])),
    "timedeltas": tagged(30, b"\x01", b"\x01", b"\x01"),
    "decimals": tagged(31, packed("1E999999999999999999")),
    "paths": tagged(32, packed("windows"), packed("a/b/c/d/e/f/g/h")),
    "scalars": tagged(33, packed("|u1"), packed(b"a")),
    "structured scalars": tagged(33, packed([["a"], ["|u1"], [0], 1, False]), packed(b"a")),
    "devices": tagged(34, packed("cpu")),
    "sizes": tagged(36, b"\x01"),
    "bytearrays": ext(3),
    "big numbers": ext(1),
    "complex numbers": ext(2, bytes(16)),
    "numbers": b"\xcd\x7f\xff",
    "texts": b"\xa2ab",
    "tags that are out of place": ext(18),
    "deep lists": b"\x91" * 200 + b"\x90",
}


@pytest.mark.parametrize("item", SMALL.values(), ids=SMALL.keys())
def test_memory_for_values_is_bounded_by_the_length_of_the_file(item: bytes) -> None:
    def read() -> None:
        with suppress(FormatError):
            decode_tree(hostile)

    with suppress(FormatError):
        decode_tree(forge(item))  # what is imported at the first use is not counted
    hostile = forge(repeated(item))
    assert peak_of(read) < MOST_PER_BYTE * len(hostile) + 100_000


LEAVES: dict[str, Callable[[int], tuple[list[Any], list[Any]]]] = {
    "arrays": lambda count: ([b""] * count, [["a", n, "|u1", [0], "C"] for n in range(count)]),
    "huge arrays of nothing": lambda count: ([b""] * count, [["a", n, "|u1", [2**40, 0], "C"] for n in range(count)]),
    "arrays of empty items": lambda count: ([b""] * count, [["a", n, "|V0", [2**40], "C"] for n in range(count)]),
    "bytearrays": lambda count: ([b""] * count, [["y", n] for n in range(count)]),
    "tensors of one block": lambda count: ([b"a"], [["t", 0, "int8", [], None, 0, 0, None]] * count),
    "huge tensors of one item": lambda count: ([b"a"], [["t", 0, "int8", [2**40], [0], 0, 0, None]] * count),
    "huge tensors of nothing": lambda count: ([b"a"], [["t", 0, "int8", [2**40, 0], None, 0, 0, None]] * count),
}


@pytest.mark.parametrize("make", LEAVES.values(), ids=LEAVES.keys())
def test_memory_for_leaves_is_bounded_by_the_length_of_the_file(
    make: Callable[[int], tuple[list[Any], list[Any]]],
) -> None:
    def read() -> None:
        with suppress(FormatError):
            decode_tree(hostile)

    with suppress(FormatError):
        decode_tree(forge(leaf_table=list(make(1))))
    hostile = forge(leaf_table=list(make(1000)))
    assert peak_of(read) < MOST_PER_BYTE * len(hostile) + 100_000


@pytest.mark.parametrize(
    "leaf",
    [
        ["a", 0, "|u1", [2**63 - 1] * 200_000, "C"],
        ["a", 0, "|u1", [1] * 65, "C"],
        ["t", 0, "int8", [2**62] * 200_000, None, 0, 0, None],
        ["a", 0, [["|u1", [2**31] * 60], [2**31] * 60], [1], "C"],
        ["a", 0, [[str(n) for n in range(20_000)], ["|u1"] * 20_000, list(range(20_000)), 20_000, False], [0], "C"],
    ],
    ids=["an array", "one dimension too many", "a tensor", "an item", "fields"],
)
def test_absurd_shapes_cost_no_time(leaf: list[Any]) -> None:
    """Of 200,000 dimensions the product alone would take minutes."""
    with suppress(FormatError):
        decode_tree(forge(leaf_table=[[b"a"], [leaf]]))


def big_int(number: int) -> bytes:
    return ext(1, number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def multiples(count: int) -> list[int]:
    return [number * COLLIDING for number in range(1, count + 1)]


def pairs(keys: list[bytes]) -> list[bytes]:
    return [part for key in keys for part in (key, b"\xc0")]


def forged(kind: str, keys: list[bytes]) -> bytes:
    if kind == "map":
        header: bytes = msgpack.Packer().pack_map_header(len(keys))
        return forge(header + b"".join(pairs(keys)))
    code, items = {
        "set": (18, keys),
        "frozen set": (19, keys),
        "dict": (20, pairs(keys)),
        "ordered dict": (21, pairs(keys)),
        "default dict": (22, [b"\xc0", *pairs(keys)]),
        "counter": (23, pairs(keys)),
    }[kind]
    return forge(tagged(code, *items))


KEYS: dict[str, Callable[[int], bytes]] = {
    "numbers": big_int,
    "tuples": lambda number: tagged(16, big_int(number)),
    "frozen sets": lambda number: tagged(19, big_int(number)),
    "tuples of tuples": lambda number: tagged(16, tagged(16, b"\x01", big_int(number)), b"\x02"),
    "decimals": lambda number: tagged(31, packed(str(number))),
}


@pytest.mark.parametrize("kind", ["map", "set", "frozen set", "dict", "ordered dict", "default dict", "counter"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_keys_of_one_hash_are_refused_before_they_are_compared(kind: str, key: Callable[[int], bytes]) -> None:
    """200,000 of them took hours."""
    with pytest.raises(FormatError, match="same hash"):
        decode_tree(forged(kind, [key(number) for number in multiples(MAX_OF_ONE_HASH + 1)]))
    decode_tree(forged(kind, [key(number) for number in multiples(MAX_OF_ONE_HASH)]))


def test_colliding_complex_numbers_are_refused_as_well() -> None:
    def complex_of_hash_0(imaginary: int) -> bytes:
        real = (-1_000_003 * imaginary) % COLLIDING
        return ext(2, struct.pack("<dd", float(real), float(imaginary)))

    keys = [complex_of_hash_0(-number) for number in range(1, 300)]
    with pytest.raises(FormatError, match="same hash"):
        decode_tree(forged("map", keys))


VALUES: dict[str, Callable[[list[int]], object]] = {
    "set": set,
    "frozen set": frozenset,
    "dict": dict.fromkeys,
    "dict with tuples": lambda keys: {(key,): None for key in keys},
    "ordered dict": collections.OrderedDict.fromkeys,
    "counter": collections.Counter,
    "default dict": lambda keys: collections.defaultdict(int, dict.fromkeys(keys, 1)),
    "inside": lambda keys: {"a": [{"b": set(keys)}]},
    "NumPy scalars": lambda keys: {(np.int64(1), key) for key in keys},
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES.keys())
def test_what_would_not_be_read_again_is_not_written(make: Callable[[list[int]], object]) -> None:
    with pytest.raises(UnsupportedTypeError, match="same hash.*store a list"):
        encode_tree(make(multiples(MAX_OF_ONE_HASH + 1)))
    kept = make(multiples(MAX_OF_ONE_HASH))
    assert decode_tree(b"".join(encode_tree(kept))) == kept


def test_what_is_written_when_nobody_looks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "crowded", lambda keys: False)
    for make in VALUES.values():
        with pytest.raises(FormatError, match="same hash"):
            decode_tree(b"".join(encode_tree(make(multiples(1000)))))


@pytest.mark.parametrize(
    "keys",
    [
        range(-5000, 5000),
        [float(number) / 7 for number in range(5000)],
        [float("nan") for _ in range(500)],
        [np.float64("nan") for _ in range(500)],
        [str(number) for number in range(5000)],
        [(number, number) for number in range(5000)],
        [number * 2**32 for number in range(5000)],
        [complex(number, -number) for number in range(2000)],
    ],
)
def test_usual_keys_are_no_crowd(keys: list[Hashable]) -> None:
    assert not crowded(keys)
    kept = dict.fromkeys(keys, 1)
    assert len(decode_tree(b"".join(encode_tree(kept)))) == len(kept)


def test_a_field_of_a_dataclass_has_a_name() -> None:
    keys = [big_int(number) for number in multiples(500)]
    with pytest.raises(FormatError, match="without a name"):
        decode_tree(forge(tagged(26, packed("tests.codecs.corpus"), packed("Point"), *pairs(keys))))
