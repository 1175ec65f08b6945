"""Classes and values that several codec tests use. Golden files name these classes: they must not move."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import random
import struct
import zoneinfo
from typing import Any, NamedTuple

import numpy as np
import torch


class Color(enum.Enum):
    RED = 1
    GREEN = "g"


class Mode(enum.IntFlag):
    READ = 1
    WRITE = 2


class Transition(NamedTuple):
    observation: Any
    action: int
    reward: float = 0.0


@dataclasses.dataclass
class Stats:
    name: str
    values: list[float]
    best: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


def nan_with_payload(payload: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000000 | payload))[0]
    return value


PLAIN_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    3**4000,
    -(7**999),
    0.0,
    -0.0,
    5e-324,
    math.inf,
    -math.inf,
    nan_with_payload(0x8000000000000),
    nan_with_payload(0x8000000000123),
    nan_with_payload(1),  # a signalling NaN
    1j,
    complex(-0.0, nan_with_payload(0x8000000000007)),
    "",
    "text",
    "日本語 🎉",
    "\udc80 lone \ud800 surrogates",
    "x" * 70_000,
    b"",
    b"\x00\xff",
    b"big" * 50_000,
    bytearray(b"small"),
    bytearray(b"large" * 1000),
    [],
    [1, [2, [3, []]]],
    (),
    (1,),
    ((1, 2), [(3,)], {"k": (4,)}),
    set(),
    {1, 2.5, "x", None, (1, 2), frozenset({3})},
    frozenset(),
    frozenset({"a", "b"}),
    {},
    {"z": 1, "a": 2, "m": {"y": [1.5]}},
    {1: "int", "1": "str", None: 0, (1, (2,)): "tuple", 2.5: "float", b"b": "bytes", frozenset({1}): 1},
    {2**80: 1, -(2**90): [2], "s": 3},
    {True: 1, 2: False},
    collections.OrderedDict([("b", 1), ("a", [2])]),
    collections.defaultdict(list, {"a": [1]}),
    collections.defaultdict(None, {1: 2}),
    collections.Counter("abracadabra"),
    collections.deque([1, [2], 3]),
    collections.deque([1, 2], maxlen=2),
    collections.deque(maxlen=0),
    datetime.datetime(2024, 2, 29, 23, 59, 59, 999_999),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, seconds=1), "here")),
    datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    datetime.datetime.min,
    datetime.date(1, 1, 1),
    datetime.time(12, 30, 1, 5, tzinfo=datetime.UTC),
    datetime.timedelta(days=-5, microseconds=3),
    datetime.timedelta.max,
    decimal.Decimal("0.10"),
    decimal.Decimal("-NaN123"),
    decimal.Decimal("1E+400"),
    pathlib.Path("a/b.txt"),
    pathlib.PurePosixPath("/x"),
    pathlib.PureWindowsPath("C:\\x"),
    Color.RED,
    Color.GREEN,
    Mode.WRITE,
    {Color.RED: [Color.GREEN]},
    Transition([1, 2], 3, 0.5),
    [Transition(np.arange(3), 1)],
    Stats("s", [1.0, 2.0], best=Stats("t", [])),
    Point(1, -2),
    {Point(1, 2), Point(3, 4)},
    random.Random(7).getstate(),
]

ARRAYS: list[Any] = [
    *[np.arange(12, dtype=dtype).reshape(3, 4) for dtype in "bBhHiIlLqQefdgFDG"],
    np.array([True, False]),
    np.arange(6, dtype=">i4"),
    np.arange(6, dtype=">f8").reshape(2, 3).T,
    np.array(["2024-01-01", "NaT"], dtype="datetime64[ns]"),
    np.array([1, 2], dtype="timedelta64[25us]"),
    np.array(["a", "日本", ""]),
    np.array([b"x", b"yy\x00z"]),
    np.array([b"\x01\x02\x03"], dtype="V3"),
    np.array(5.5),
    np.zeros((0, 3), dtype="f4"),
    np.zeros((2, 0, 3)),
    np.asfortranarray(np.arange(300.0).reshape(20, 15)),
    np.arange(1000)[::-3],
    np.arange(10_000, dtype="f4").reshape(100, 100)[10:20, ::2],
    np.broadcast_to(np.float32(3), (4, 5)),
    np.zeros(3, dtype=[("a", "<i4"), ("b", ">f8", (2, 2)), ("c", "U3")]),
    np.ones(2, dtype=np.dtype([("x", "i1"), ("y", [("z", "f8")])], align=True)),
    np.ones(200, dtype=np.dtype({"names": ["p"], "formats": ["f4"], "offsets": [4], "itemsize": 16})),
    np.float64(-0.0),
    np.float32(1.5),
    np.int8(-3),
    np.bool_(True),
    np.complex64(1j),
    np.float16("nan"),
    np.datetime64("2024-01-01T00:00:00"),
    np.timedelta64(3, "h"),
    np.str_("tail\x00"),
    np.bytes_(b"tail\x00"),
    np.zeros(1, dtype=[("a", "i4"), ("b", "f4")])[0],
    np.random.RandomState(3).get_state(),
    np.random.default_rng(3).bit_generator.state,
    {np.int64(3): "numpy scalar as key"},
    np.ones(3, dtype=np.dtype((np.record, [("x", "<i4"), ("y", "<f8")]))),
    np.ones(1, dtype=np.dtype((np.record, [("x", "<i4"), ("y", "<f8")])))[0],
    np.void(b""),
]


def training_state() -> dict[Any, Any]:
    """What an agent's components save: state dicts, an optimizer, counters, a buffer."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 30, generator=generator)
    return {
        "model": collections.OrderedDict(
            [("weight", torch.nn.Parameter(weight.clone())), ("tied", weight), ("head", weight[3:7])]
        ),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(40, 30, dtype=torch.bfloat16)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0], "foreach": None}],
        },
        "buffer": collections.deque(
            [Transition(np.arange(200, dtype="f4") + i, i, -0.5 * i) for i in range(3)], maxlen=10
        ),
        "rng": random.Random(1).getstate(),
        "blob": b"\x00\x01" * 700,
        "mode": Color.GREEN,
        "when": datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC),
        3: {"big": 2**200, ("a", 1): {1, 2, 3}},
    }
