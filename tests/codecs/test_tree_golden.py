"""Files that released versions wrote: they still load, and the same value still makes the same bytes.

``python -m tests.codecs.test_tree_golden`` writes the file of a new version; existing ones must not change.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import pathlib
import struct
import zoneinfo
from typing import Any

import numpy as np
import torch

from statevault.codecs import decode_tree, encode_tree
from tests.codecs.corpus import Color, Point, Stats, Transition, nan_with_payload
from tests.codecs.same import assert_same

GOLDEN = pathlib.Path(__file__).parent / "golden" / "v1.tree"


def golden_value() -> dict[Any, Any]:
    """One value of every kind, the same on every machine."""
    floats = torch.arange(600, dtype=torch.float32)
    return {
        "atoms": [None, True, False, 0, -1, 2**63, 2**64, -(2**200), 0.5, -0.0, nan_with_payload(0x8000000000123)],
        "text": ["", "日本語", "\udc80"],
        "bytes": [b"", b"small", b"large" * 200, bytearray(b"small"), bytearray(b"large" * 200)],
        "complex": complex(1, -2),
        "containers": [[], (), (1, (2,)), {1, 2}, frozenset({"a"}), collections.deque([1], maxlen=3)],
        "dicts": [
            {},
            {1: 2, "a": None},
            {(1, "x"): 1, b"k": 2},
            collections.OrderedDict(b=1, a=2),
            collections.defaultdict(list, x=[1]),
            collections.Counter(a=2),
        ],
        "dates": [
            datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
            datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
            datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2), "X")),
            datetime.date(2024, 1, 1),
            datetime.time(1, 2, 3, 4),
            datetime.timedelta(days=-1, microseconds=1),
        ],
        "others": [decimal.Decimal("0.10"), pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("a\\b")],
        "classes": [Color.RED, Transition(1, 2), Stats("s", [1.0]), Point(1, 2)],
        "arrays": [
            np.arange(6, dtype="<i4").reshape(2, 3),
            np.arange(600, dtype=">f8").reshape(20, 30),
            np.asfortranarray(np.arange(600, dtype="<i8").reshape(20, 30)),
            np.array(["2024-01-01"], dtype="<M8[s]"),
            np.array(["x", "yz"], dtype="<U2"),
            np.ones(2, dtype=[("a", "<i4"), ("b", "<f8", (2,))]),
            np.float32(1.5),
            np.str_("x\x00"),
        ],
        "tensors": [
            torch.tensor(1.5),
            torch.arange(300, dtype=torch.bfloat16),
            torch.nn.Parameter(floats.clone()),
            floats,
            floats[10:20],
            floats.reshape(20, 30).t(),
            torch.zeros(0, 3),
            torch.float8_e4m3fn,
            torch.Size([1, 2]),
            torch.device("cuda:1"),
        ],
    }


def test_the_golden_file_loads() -> None:
    assert_same(decode_tree(GOLDEN.read_bytes()), golden_value())


def test_the_golden_value_makes_the_golden_file() -> None:
    assert b"".join(encode_tree(golden_value())) == GOLDEN.read_bytes()


def test_the_golden_file_has_the_specified_layout() -> None:
    data = GOLDEN.read_bytes()
    magic, version, flags, count, leaves, values = struct.unpack_from("<8sHHIQQ", data)
    assert (magic, version, flags) == (b"\x89SVTREE\n", 1, 0)
    lengths = struct.unpack_from(f"<{count}Q", data, 64)
    size = -(-(64 + 8 * count + leaves + values) // 64) * 64 + sum(-(-length // 64) * 64 for length in lengths)
    assert size == len(data)


if __name__ == "__main__":
    if GOLDEN.exists():
        raise SystemExit(f"{GOLDEN} exists; a released format does not change")
    GOLDEN.write_bytes(b"".join(encode_tree(golden_value())))
