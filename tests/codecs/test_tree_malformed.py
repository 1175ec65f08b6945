"""Nasty tree files, made by hand: each is refused with one of four errors, at no cost."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgpack
import pytest

from statevault.codecs import decode_tree, encode_tree, read_tree, segment_boundaries
from statevault.errors import CorruptStateError, FormatError, PickleNotAllowedError, UnsupportedVersionError
from tests.codecs.corpus import training_state
from tests.codecs.forge import ext, forge, tagged

pack = msgpack.packb
LEAF_0 = ext(0, b"\0\0\0\0")
SEGMENT = bytes(1000)


def tensor_leaf(**changes: Any) -> list[Any]:
    leaf = {
        "kind": "t",
        "block": 0,
        "dtype": "float32",
        "shape": [250],
        "strides": None,
        "offset": 0,
        "flags": 0,
        "device": None,
    }
    return list((leaf | changes).values())


def one_leaf(leaf: list[Any]) -> bytes:
    return forge(LEAF_0, leaf_table=[[None], [leaf]], segments=(SEGMENT,))


def test_the_forge_makes_good_files_too() -> None:
    assert decode_tree(forge()) is None
    assert decode_tree(one_leaf(tensor_leaf())).shape == (250,)
    assert decode_tree(one_leaf(["a", 0, "<f4", [10, 25], "F"])).shape == (10, 25)
    assert decode_tree(forge(tagged(16, b"\x01", b"\x02"))) == (1, 2)


@pytest.mark.parametrize(
    "leaf",
    [
        tensor_leaf(block=1),
        tensor_leaf(block=-1),
        tensor_leaf(block=True),
        tensor_leaf(block=None),
        tensor_leaf(shape=[251]),
        tensor_leaf(offset=1),
        tensor_leaf(offset=-1),
        tensor_leaf(offset=2**63),
        tensor_leaf(shape=[-1]),
        tensor_leaf(shape=[2**60]),
        tensor_leaf(shape=[2**62, 4]),
        tensor_leaf(shape=[1] * 100),
        tensor_leaf(shape=250),
        tensor_leaf(shape=["250"]),
        tensor_leaf(shape=[250], strides=[-1]),
        tensor_leaf(shape=[250], strides=[2]),
        tensor_leaf(shape=[250], strides=[1, 1]),
        tensor_leaf(shape=[2, 2], strides=[2**61, 2**61]),
        tensor_leaf(shape=[0], offset=251),
        tensor_leaf(dtype="Tensor"),
        tensor_leaf(dtype="qint8", shape=[1001]),
        tensor_leaf(dtype="nn"),
        tensor_leaf(dtype=7),
        tensor_leaf(dtype="int32", shape=[3], flags=3),
        tensor_leaf(dtype="int64", shape=[3], flags=1),
        tensor_leaf()[:-1],
        [*tensor_leaf(), 1],
        ["a", 0, "<f4", [251], "C"],
        ["a", 0, "<f4", [-250], "C"],
        ["a", 0, "<f4", [2**62, 2**62], "C"],
        ["a", 0, "<f4", [250], "K"],
        ["a", 0, "|O", [125], "C"],
        ["a", 0, "O", [125], "C"],
        ["a", 0, "f4,f4", [125], "C"],
        ["a", 0, "<f3", [250], "C"],
        ["a", 0, "<U2000000000", [1], "C"],
        ["a", 0, "<U9999999999", [1], "C"],
        ["a", 0, "<M8[generic/7]", [125], "C"],
        ["a", 0, ["<f4", [2**40]], [1], "C"],
        ["a", 0, ["|O", [1]], [125], "C"],
        ["a", 0, [["x"], ["|O"], [0], 8, False], [125], "C"],
        ["a", 0, [["x"], ["<f8"], [-4], 8, False], [125], "C"],
        ["a", 0, [["x"], ["<f8"], [4], 8, False], [125], "C"],
        ["a", 0, [["x"], ["<f8"], [0], 2**63, False], [125], "C"],
        ["a", 0, [["x", "x"], ["<f4", "<f4"], [0, 4], 8, False], [125], "C"],
        ["a", 0, [["x"], ["<f4"], [0], 4, False, "recarray"], [250], "C"],
        ["a", 0, [["x"], ["<f4"], [0], 4, False, "record", "record"], [250], "C"],
        ["a", 0, [["x"], ["|O"], [0], 8, False, "record"], [125], "C"],
        ["a", 0, None, [250], "C"],
        ["a", 0],
        ["b"],
        ["b", 0, 0],
        ["?", 0],
        [],
        ["p", 0],
    ],
    ids=repr,
)
def test_malformed_leaf(leaf: list[Any]) -> None:
    with pytest.raises(FormatError):
        decode_tree(one_leaf(leaf))


def test_deeply_nested_dtype() -> None:
    dtype: Any = "<f4"
    for _ in range(300):
        dtype = [dtype, [1]]
    with pytest.raises(FormatError):
        decode_tree(one_leaf(["a", 0, dtype, [250], "C"]))


@pytest.mark.parametrize(
    "leaf_table",
    [
        b"",
        b"\xc1",
        b"\xc0",
        pack([]),
        pack([[None]]),
        pack([[None], 5]),
        pack([[], []]),
        pack([[None, None], []]),
        pack([[0], []]),
        pack([["text"], []]),
        pack([[None], [["b", 0]], 0]),
        pack([[None], [["b", 0]]]) + b"\xc0",
        pack([[None], [["b", 0], ["b", 0]]]),
        pack([[None], [["b", 0], ["a", 0, "|u1", [1000], "C"]]]),
        pack([[None], [["b", 0], tensor_leaf()]]),
        pack([[None], [tensor_leaf(), ["b", 0]]]),
        pack([[None], [5]]),
        pack([[None], [{"b": 0}]]),
        b"\xdd\xff\xff\xff\xff" * 100,
    ],
    ids=lambda data: data[:20].hex(),
)
def test_malformed_leaf_table(leaf_table: bytes) -> None:
    with pytest.raises(FormatError):
        decode_tree(forge(LEAF_0, leaf_table=leaf_table, segments=(SEGMENT,)))


@pytest.mark.parametrize(
    "values",
    [
        b"",
        b"\xc1",
        b"\x01\x02",
        b"\xa2\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\x90\x01",
        b"\x81\x80\x01",
        LEAF_0,
        ext(0, b""),
        ext(0, bytes(5)),
        ext(2, b"123"),
        ext(9, b""),
        ext(15, b""),
        ext(16),
        ext(99),
        b"\xc7\x00\xfb",
        ext(16, b"x"),
        b"\x91" + b"\x92\x01" + ext(16),
        b"\x81\xa1a" + ext(16),
        b"\x81" + ext(16) + b"\x01",
        tagged(16, ext(17)),
        tagged(17),
        tagged(17, b"\x00", b"\x01"),
        tagged(17, pack(-1)),
        tagged(17, pack("1")),
        tagged(17, pack(2**64 - 1)),
        tagged(18, b"\x90"),
        tagged(19, b"\x80"),
        tagged(20, b"\x01"),
        tagged(20, b"\x01", b"\x01", b"\x01", b"\x02"),
        tagged(20, b"\x90", b"\x01"),
        tagged(22),
        tagged(22, pack("eval")),
        tagged(22, pack([1])),
        tagged(24),
        tagged(24, pack("os"), pack("system")),
        tagged(24, pack("os"), pack("stat_result"), b"\x01"),
        tagged(24, pack("builtins"), pack("tuple")),
        tagged(24, pack("no_such_module"), pack("C")),
        tagged(25, pack("os"), pack("system"), pack("x")),
        tagged(25, pack("enum"), pack("Enum"), pack("x")),
        tagged(25, pack("http"), pack("HTTPStatus"), b"\x90"),
        tagged(25, pack("http"), pack("HTTPStatus.__class__"), pack("OK")),
        tagged(25, b"\x01", b"\x02", b"\x03"),
        tagged(26, pack("subprocess"), pack("Popen"), pack("args"), pack("true")),
        tagged(26, pack("builtins"), pack("object")),
        tagged(26, pack("tests.codecs.corpus"), pack("Point"), pack("x")),
        tagged(26, pack("tests.codecs.corpus"), pack("Point"), pack("x"), b"\x01"),
        tagged(27),
        tagged(27, *[pack(99999)] * 8, b"\xc0"),
        tagged(27, *[b"\x01"] * 7, b"\x00", pack("../../etc/passwd")),
        tagged(27, *[b"\x01"] * 7, b"\x00", pack("/etc/passwd")),
        tagged(27, *[b"\x01"] * 7, b"\x00", pack([10**15, None])),
        tagged(27, *[b"\x01"] * 7, b"\x00", b"\x05"),
        tagged(28, pack("x")),
        tagged(29, b"\x63", b"\x63", b"\x63", b"\x00", b"\x00", b"\xc0"),
        tagged(30, pack(10**18), b"\x00", b"\x00"),
        tagged(31, pack("x")),
        tagged(31, b"\x01"),
        tagged(32, pack("path"), b"\x01"),
        tagged(33, pack("|O"), bytes(8)),
        tagged(33, pack("<f4"), pack(b"123")),
        tagged(33, pack("U"), pack(b"1")),
        tagged(33, pack("<f4"), pack([0, 0, 0, 0])),
        tagged(33, pack("|V0"), pack(b"1")),
        tagged(33, pack("|V4"), pack(b"1234"), pack(False)),
        tagged(33, pack("|V4"), pack(b"1234"), pack(True), pack(True)),
        tagged(33, pack("U"), pack("x"), pack(True)),
        tagged(33, pack(["<f4", [1]]), pack(b"1234")),
        tagged(34, pack("nowhere")),
        tagged(35),
        tagged(36, pack("x")),
        b"\x91" * 10_000 + b"\xc0",
        b"\xdd\x00\x00\xff\xff" * 900 + b"\xc0" * 70_000,
        (b"\x92" + ext(16)) * 2000 + b"\xc0",
    ],
    ids=lambda data: data[:20].hex(),
)
def test_malformed_values(values: bytes) -> None:
    with pytest.raises(FormatError):
        decode_tree(forge(values))


def test_damage_to_the_frame() -> None:
    good = b"".join(encode_tree(training_state()))
    for data, error in [
        (b"", FormatError),
        (b"\x89", CorruptStateError),
        (good[:63], CorruptStateError),
        (good[:100], CorruptStateError),
        (good[:-1], CorruptStateError),
        (good + b"\0", CorruptStateError),
        (good + good, CorruptStateError),
        (b"\x88" + good[1:], FormatError),
        (b"not a tree file at all", FormatError),
        (good[:8] + b"\x02\x00" + good[10:], UnsupportedVersionError),
        (good[:8] + b"\x00\x00" + good[10:], FormatError),
    ]:
        with pytest.raises(error):
            decode_tree(data)


def test_every_flipped_bit_of_the_structure_is_detected() -> None:
    good = b"".join(encode_tree({"a": [1, 2.5, "x"], "t": bytes(600)}))
    structure = struct.unpack_from("<IQQ", good, 12)
    for position in range(64 + 8 * structure[0] + structure[1] + structure[2]):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            with pytest.raises((CorruptStateError, FormatError)):
                decode_tree(bad)


def test_claims_of_enormous_lengths_allocate_nothing(tmp_path: Any) -> None:
    claims = [
        struct.pack("<8sHHIQQ", b"\x89SVTREE\n", 1, 0, count, table, values) + bytes(32)
        for count, table, values in [(2**32 - 1, 0, 0), (0, 2**60, 0), (0, 0, 2**64 - 1), (1, 2**63, 2**63)]
    ]
    segment_claim = forge(segments=(b"x" * 100,), leaf_table=[[None], []])
    inflated = bytearray(segment_claim)
    inflated[64:72] = struct.pack("<Q", 2**60)
    from tests.codecs.forge import reseal

    claims += [
        reseal(inflated),
        forge(b"\xdd\x0f\xff\xff\xff"),
        forge((b"\xdd\x00\x07\xa1\x20" * 250) + b"\xc0" * 500_000),
        forge(b"\xdb\x7f\xff\xff\xff"),
        one_leaf(["a", 0, "<f4", [2**60], "C"]),
        one_leaf(tensor_leaf(shape=[2**60])),
    ]
    tracemalloc.start()
    try:
        for data in claims:
            (tmp_path / "x").write_bytes(data)
            tracemalloc.reset_peak()
            with pytest.raises((CorruptStateError, FormatError)):
                decode_tree(data)
            with pytest.raises((CorruptStateError, FormatError)):
                read_tree(tmp_path / "x")
            segment_boundaries(tmp_path / "x")
            segment_boundaries(data)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_unknown_flags_and_hidden_pickles() -> None:
    table = [[b"cos\nsystem\n(S'false'\ntR."], [["p", 0]]]
    with pytest.raises(FormatError, match="flags"):
        decode_tree(forge(flags=2))
    with pytest.raises(PickleNotAllowedError):
        decode_tree(forge(LEAF_0, leaf_table=table, flags=1))
    with pytest.raises(FormatError, match="unknown kind"):
        decode_tree(forge(LEAF_0, leaf_table=table), allow_pickle=True)
