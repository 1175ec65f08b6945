"""One value of every kind that a tree may be given: what it holds, and what it refuses with which words."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import enum
import fractions
import io
import pathlib
import struct
import sys
import types
import uuid
import warnings
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.codecs.corpus import ARRAYS, PLAIN_VALUES, Color, Mode, Point, Stats, Transition, training_state

TORCH_DTYPES: list[torch.dtype] = sorted({v for v in vars(torch).values() if isinstance(v, torch.dtype)}, key=str)

_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "25s", "7D")
_PADDED = {"names": ["p"], "formats": ["f4"], "offsets": [4], "itemsize": 16}
_OVERLAPPING = {"names": ["p", "q"], "formats": ["f4", "i2"], "offsets": [0, 2], "itemsize": 8}
_INNER = np.dtype([("z", "f8"), ("w", "i1")], align=True)

NUMPY_DTYPES: list[np.dtype[Any]] = [
    *[np.dtype(order + char) for order in "<>" for char in "bBhHiIlLefdgFDG"],
    *[np.dtype(order + kind + size) for order in "<>" for kind in "SUV" for size in ("0", "1", "5")],
    *[np.dtype(f"{order}{kind}8") for order in "<>" for kind in "mM"],
    *[np.dtype(f"{order}{kind}8[{unit}]") for order in "<>" for kind in "mM" for unit in _UNITS],
    np.dtype("?"),
    np.dtype([("a", "<i4"), ("b", ">f8"), ("c", "U3"), ("d", "M8[ns]"), ("e", "g"), ("f", "?"), ("g", "V7")]),
    np.dtype([("a", [("x", "i1"), ("y", ">f8", (2, 3))]), ("b", "U3")]),
    np.dtype([("x", "i1"), ("y", "f8")], align=True),
    np.dtype([("x", "i4")]),
    np.dtype([("x", "i4")], align=True),
    np.dtype([("x", "i1"), ("y", _INNER)]),
    np.dtype([("x", "i1"), ("y", _INNER)], align=True),
    np.dtype(_PADDED),  # type: ignore[call-overload]
    np.dtype(_OVERLAPPING),  # type: ignore[call-overload]
    np.dtype([]),
    np.dtype({"names": [], "formats": [], "offsets": [], "itemsize": 8}),
    np.dtype([("a", "V0"), ("b", "S0"), ("c", "U0")]),
    np.dtype([("a", "S0"), ("b", "i4")]),
    np.dtype([("a", "i4", (0, 3)), ("b", "i1"), ("c", "i4", (1,))]),
    np.dtype([("a", "i4", (0,))]),
    np.dtype([("q", np.dtype(("i4", (2,))), (3,)), ("r", [("s", "i4")], (2,))]),
    np.dtype([("", "i4"), ("\udc80", "i4"), ("name with spaces", "i4")]),
    np.dtype([(f"f{number}", "i1") for number in range(40)]),
    np.dtype((np.record, [("a", "<i4"), ("b", "<f8")])),
    np.dtype((np.record, np.dtype([("x", "i1"), ("y", "f8")], align=True))),
    np.dtype([("q", np.dtype((np.record, [("a", "i4")])))]),
]


class Opaque(np.void):  # type: ignore[misc]
    pass


REFUSED_NUMPY_DTYPES: list[np.dtype[Any]] = [
    np.dtype("O"),
    np.dtype([("a", "i4"), ("b", "O")]),
    np.dtype([("q", [(("the title", "a"), "i4")])]),
    np.dtype((np.int32, [("low", "i2"), ("high", "i2")])),
    np.dtype((Opaque, [("a", "i4")])),
    np.dtype((Opaque, 8)),
    *([kind()] if (kind := getattr(np.dtypes, "StringDType", None)) else []),
]


class HandMade(tuple[Any, ...]):
    """What looks like a named tuple, and need not be one."""

    _fields = ("a", "b")


class OddPath(pathlib.PurePosixPath):
    pass


OddPath.__module__ = "pathlib_of_somebody"


class WithSlot:
    __slots__ = ("hidden",)


@dataclasses.dataclass
class Slotted(WithSlot):
    x: int


class Arrays(np.ndarray[Any, Any]):
    pass


class Tensors(torch.Tensor):
    pass


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    one: Any
    other: Any


def raw_array(dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """An array with other bytes in each item, all of them valid."""
    # np.zeros would make other dtypes of "S0" and ">m8".
    result: np.ndarray[Any, Any] = np.ndarray(
        shape, dtype, buffer=bytearray(max(int(np.prod(shape)) * dtype.itemsize, 1))
    )
    if dtype.kind == "b":
        result[...] = np.arange(result.size).reshape(shape) % 2 == 1
    elif dtype.kind in "iufcmM":
        result[...] = np.arange(result.size).reshape(shape).astype(dtype)
    elif dtype.kind in "SU" and dtype.itemsize:
        result[...] = np.arange(result.size).reshape(shape).astype("U1").astype(dtype)
    elif dtype.itemsize and result.size and not dtype.hasobject:
        result.view(type=np.ndarray).reshape(-1).view(f"V{dtype.itemsize}")[...] = _numbered(
            dtype.itemsize, result.size
        )
    return result


def _numbered(itemsize: int, count: int) -> np.ndarray[Any, Any]:
    # Zeros and ones: other bytes are no bool.
    return (np.arange(itemsize * count) % 2).astype("u1").view(f"V{itemsize}")


def raw_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of a dtype, also of one with which torch can't count."""
    items = int(np.prod(shape))
    memory = torch.arange(items * dtype.itemsize, dtype=torch.int64, device="cpu").to(torch.uint8)
    if dtype is torch.bool:
        memory %= 2
    return memory.view(dtype).detach().reshape(shape) if items else memory.view(dtype).detach().view(shape)


def array_layouts(dtype: np.dtype[Any]) -> Iterator[Any]:
    """Arrays of a dtype in every layout, and its scalar."""
    base = raw_array(dtype, (4, 6))
    frozen = base.copy()
    frozen.flags.writeable = False
    yield from (base, np.asfortranarray(base), base.T, base[::2, 1::2], base[::-1, ::-1], base[:, :1], frozen)
    yield from (raw_array(dtype, ()), raw_array(dtype, (0,)), raw_array(dtype, (2, 0, 3)), raw_array(dtype, (1,) * 20))
    yield np.broadcast_to(base[0, 1], (3, 2))
    if dtype.itemsize:
        # Inline, as a segment, and large enough to be mapped.
        yield from (raw_array(dtype, (-(-size // dtype.itemsize),)) for size in (513, 66_000))
        memory = np.zeros(3 * dtype.itemsize + 1, "u1")
        yield memory[1:].view(dtype)
    yield from (base[0, 1], frozen[0, 1])


def tensor_layouts(dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Tensors of a dtype in every layout."""
    base = raw_tensor(dtype, (4, 6))
    yield from (base, base.t(), base[::2, 1::2], base[:, 3], base[1:2], base[0, 0], base[:0], base[:, :0].t())
    yield from (base[:1].expand(5, 6), base[0, 0].expand(3, 3), base.as_strided((2, 3), (1, 1)))
    yield from (
        raw_tensor(dtype, ()),
        raw_tensor(dtype, (0,)),
        raw_tensor(dtype, (2, 0, 3)),
        raw_tensor(dtype, (1,) * 64),
    )
    yield from (raw_tensor(dtype, (66_000,)), raw_tensor(dtype, (40, 30))[:, 7], raw_tensor(dtype, (40, 30)).t())
    yield torch.nn.Parameter(
        base.clone() if dtype.is_floating_point and dtype.itemsize > 1 else base, requires_grad=False
    )


def accepted() -> dict[str, Any]:
    """Everything that a tree holds, by a name."""
    values: dict[str, Any] = {f"plain {number}": value for number, value in enumerate(PLAIN_VALUES)}
    values |= {f"array {number}": value for number, value in enumerate(ARRAYS)}
    for number, numpy_dtype in enumerate(NUMPY_DTYPES):
        values |= {f"numpy {number} {kind}": value for kind, value in enumerate(array_layouts(numpy_dtype))}
    for dtype in TORCH_DTYPES:
        values[str(dtype)] = dtype
        values |= {f"{dtype} {kind}": value for kind, value in enumerate(tensor_layouts(dtype))}
    return values | _others()


def _others() -> dict[str, Any]:
    read_only = np.zeros(2, [("a", "i4")])
    read_only.flags.writeable = False
    shared = torch.arange(3000.0)
    grown = torch.ones(4, 5, requires_grad=True)
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    return {
        "training": training_state(),
        "void as key": {read_only[0]: 1, "set": {read_only[1]}},
        "keys": {
            np.str_("a"): 1,
            np.bytes_(b"b"): 2,
            torch.float16: 3,
            torch.qint8: 4,
            torch.Size([1]): 5,
            berlin_at(0): 6,
        },
        "enum as key": {Color.RED: 1, Level.LOW: 2, Mode.READ: 3, Point(1, 2): 4, Pair(1, (2,)): 5},
        "classes": [Stats("x", [1.0], best=Pair(1, [2])), Transition(np.arange(3), 4), Level.LOW, HandMade((1, 2))],
        "zones": [berlin_at(0), berlin_at(1), datetime.time(2, 30, tzinfo=berlin, fold=1)],
        "zone": datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo.no_cache("Asia/Tokyo")),
        "devices": [torch.device(name) for name in ("cpu", "cpu:0", "cuda", "cuda:7", "meta", "mps", "xpu:1")],
        "sizes": [torch.Size([]), torch.Size([0, 2**62])],
        "shared": {"whole": shared, "rows": shared[10:1000], "ints": shared.view(torch.int32)[5:50], "twice": [shared]},
        "overlapping bytes": [torch.frombuffer(bytearray(4001), dtype=torch.float32, offset=1, count=900)],
        "history": [grown * 2, grown.t()],
        "parameters": [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3), requires_grad=False)],
        "buffer": torch.nn.Buffer(torch.ones(3)) if hasattr(torch.nn, "Buffer") else torch.ones(3),
        "lazy bits": [
            torch.ones(3, dtype=torch.complex64).mul(1j).conj(),
            torch.ones(3, dtype=torch.complex64).conj().imag,
        ],
        "inference": torch.inference_mode()(lambda: torch.ones(1000))(),
        "foreign": torch.from_numpy(np.arange(10)[2:]),
        "huge and empty": [torch.empty(2**62, 0), torch.empty(0, 2**40, 2**20), np.zeros((2**40, 0))],
        "huge stride": torch.zeros(9).as_strided((1, 3), (2**62, 2)),
        "deque": collections.deque([collections.deque(maxlen=0)], maxlen=2**62),
        "long": 1 << 100_000,
    }


def berlin_at(fold: int) -> datetime.datetime:
    return datetime.datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))


def refused() -> dict[str, tuple[Callable[[], Any], str]]:
    """Everything that a tree refuses: what makes it, and words of the message."""
    cases: dict[str, tuple[Callable[[], Any], str]] = {
        f"numpy {number} {kind}": (make, "dtype|Opaque")
        for number, dtype in enumerate(REFUSED_NUMPY_DTYPES)
        for kind, make in {"array": _zeros(dtype, 3), "empty": _zeros(dtype, 0), "scalar": _scalar(dtype)}.items()
        if not (kind == "scalar" and dtype.kind in "OiT")  # whose scalars are plain values
    }
    return cases | {
        "masked": (lambda: np.ma.masked_array([1, 2], [False, True]), "its data and its mask"),
        "matrix": (lambda: np.asmatrix(np.ones((2, 2))), r"numpy\.asarray\(value\)"),
        "recarray": (lambda: np.rec.array([(1, 2.0)], dtype="i4,f8"), r"numpy\.asarray\(value\)"),
        "array subclass": (lambda: np.ones(3).view(Arrays), r"numpy\.asarray\(value\)"),
        "numpy dtype": (lambda: np.dtype("f4"), "store its str"),
        "numpy type": (lambda: np.float32, "use dicts"),
        "quantized": (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "int_repr"),
        "quantized channels": (
            lambda: torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2).int(), 0, torch.qint32),
            "int_repr",
        ),
        "empty quantized": (lambda: torch.empty(0, dtype=torch.quint4x2, device="cpu"), "int_repr"),
        "sparse": (lambda: torch.eye(3).to_sparse(), "to_dense"),
        "compressed": (lambda: torch.eye(3).to_sparse_csr(), "to_dense"),
        "mkldnn": (lambda: torch.ones(3, 3).to_mkldnn(), "to_dense"),
        "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "unbind"),
        "meta": (lambda: torch.ones(3, device="meta"), "to_empty"),
        "meta parameter": (lambda: torch.nn.Parameter(torch.ones(3, device="meta")), "to_empty"),
        "uninitialized": (torch.nn.UninitializedParameter, "UninitializedParameter"),
        "tensor subclass": (lambda: torch.ones(3).as_subclass(Tensors), "a plain tensor"),
        "fake": (_fake, "a plain tensor"),
        "no memory": (lambda: torch._efficientzerotensor((3,)), "no memory of its own"),
        "freed": (lambda: _cut(torch.ones(1000), 0), "was freed"),
        "freed inline": (lambda: _cut(torch.ones(3), 0), "was freed"),
        "half freed": (lambda: _cut(torch.ones(1000), 3999), "was freed"),
        "freed behind": (lambda: _cut(torch.ones(1000)[500::7], 3000), "was freed"),
        "many dimensions": (lambda: torch.ones((1,) * 65), "64 dimensions"),
        "many dimensions of a view": (lambda: torch.ones((3, *(1,) * 64))[::2], "64 dimensions"),
        "generator": (lambda: torch.Generator(device="cpu"), "get_state"),
        "storage": (lambda: torch.ones(3).untyped_storage(), "UntypedStorage"),
        "layout": (lambda: torch.strided, "layout"),
        "memory format": (lambda: torch.channels_last, "memory_format"),
        "scheme": (lambda: torch.per_tensor_affine, "qscheme"),
        "finfo": (lambda: torch.finfo(torch.float32), "finfo"),
        "result": (lambda: torch.ones(2, 2).max(0), r"tuple\(value\)"),
        "nameless zone": (lambda: _in_own_zone(None), r"use ZoneInfo\(name\)"),
        "unknown zone": (lambda: _in_own_zone("My/Zone"), r"use ZoneInfo\(name\)"),
        "other zone of that name": (lambda: _in_own_zone("Asia/Tokyo"), r"use ZoneInfo\(name\)"),
        "path subclass": (lambda: OddPath("a"), "OddPath"),
        "named tuple with too many": (lambda: HandMade((1, 2, 3)), r"tuple\(value\)"),
        "named tuple with attributes": (_decorated, r"tuple\(value\)"),
        "slot": (_with_slot, "'hidden'"),
        "flags": (lambda: Mode.READ | Mode.WRITE, "store its value"),
        "no flags": (lambda: Mode(0), "store its value"),
        "range": (lambda: range(3), "range"),
        "slice": (lambda: slice(1), "slice"),
        "ellipsis": (lambda: Ellipsis, "ellipsis"),
        "not implemented": (lambda: NotImplemented, "NotImplementedType"),
        "fraction": (lambda: fractions.Fraction(1, 3), "Fraction"),
        "uuid": (lambda: uuid.UUID(int=1), "UUID"),
        "memoryview": (lambda: memoryview(b"x"), "memoryview"),
        "array.array": (lambda: array.array("i", [1]), "array"),
        "proxy": (lambda: types.MappingProxyType({}), "mappingproxy"),
        "namespace": (lambda: types.SimpleNamespace(a=1), "SimpleNamespace"),
        "user dict": (collections.UserDict, "UserDict"),
        "chain": (collections.ChainMap, "ChainMap"),
        "iterator": (lambda: iter([1]), "list_iterator"),
        "file": (io.BytesIO, "BytesIO"),
        "module": (lambda: sys, "module"),
        "zone alone": (lambda: datetime.UTC, "timezone"),
    }


def _zeros(dtype: np.dtype[Any], count: int) -> Callable[[], Any]:
    return lambda: np.zeros(count, dtype)


def _scalar(dtype: np.dtype[Any]) -> Callable[[], Any]:
    return lambda: np.zeros(1, dtype)[0]


def _cut(tensor: torch.Tensor, size: int) -> torch.Tensor:
    tensor.untyped_storage().resize_(size)
    return tensor


def _fake() -> Any:
    from torch._subclasses import FakeTensorMode

    return FakeTensorMode().from_tensor(torch.ones(3))


def _in_own_zone(key: str | None) -> datetime.datetime:
    # The smallest file there is: always two hours east.
    file = io.BytesIO(b"TZif" + bytes(16) + struct.pack(">6LlBB4s", 0, 0, 0, 0, 1, 4, 7200, 0, 0, b"OWN"))
    return datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo.from_file(file, key=key))


def _decorated() -> HandMade:
    value = HandMade((1, 2))
    value.note = 3  # type: ignore[attr-defined]
    return value


def _with_slot() -> Slotted:
    value = Slotted(1)
    value.hidden = 2  # type: ignore[attr-defined]
    return value


def quietly(make: Callable[[], Any]) -> Any:
    """Make a value of a kind of which torch or NumPy warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
