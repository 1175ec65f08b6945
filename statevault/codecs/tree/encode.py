"""From Python objects to an encoded tree.

The values are lowered to plain msgpack types in Python, which finds the path of anything that can't be stored,
then packed in C. Lists and dicts of nothing but numbers and strings are passed through as they are.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import pickle
import struct
import sys
import zoneinfo
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgpack

from statevault.codecs.pickles import pickles_allowed
from statevault.codecs.tree import arrays, classes, tensors
from statevault.codecs.tree.blocks import INLINE_LIMIT, BlockTable
from statevault.codecs.tree.hashes import MAX_OF_ONE_HASH, crowded
from statevault.codecs.tree.layout import FLAG_PICKLES, EncodedTree, build_head, padding
from statevault.codecs.tree.refusal import Refusal, qualified_name, show_key
from statevault.codecs.tree.tags import FACTORIES, MAX_DEPTH, Code, tag
from statevault.codecs.tree.unchanging import Unchanging
from statevault.errors import UnsupportedTypeError

__all__ = ["encode_tree"]

_MAX_VALUES = 2**31 - 1
_ATOMS = frozenset({type(None), bool, int, float, str})
_TEXT = frozenset({str})
_TAGS = {code: tag(code) for code in Code}
_TUPLE = _TAGS[Code.TUPLE]
_LEAF = int(Code.LEAF)

_Handler = Callable[["_Encoder", Any, int], Any]


def encode_tree(obj: object, *, allow_pickle: bool | None = None) -> EncodedTree:
    """Encode an object, without copying the memory of its tensors and arrays.

    Args:
        obj: The object; ``docs/format-tree.md`` lists what it may hold.
        allow_pickle: Whether values that the format can't hold are pickled. None: as the open pickle policy
            says, and not outside of one. A policy that forbids pickles wins over True.

    Returns:
        The encoded tree. Its segments refer to the memory of ``obj``: write or copy them before that changes.

    Raises:
        UnsupportedTypeError: A value can't be stored, or containers are nested more than 256 deep (or hold
            themselves). The message names its path inside the object and its type.
    """
    return _Encoder(pickles=pickles_allowed(allow_pickle)).encode(obj)


class _Encoder:
    """Encodes one tree."""

    def __init__(self, *, pickles: bool) -> None:
        self._pickles = pickles
        self._handlers = dict(_HANDLERS)
        self._blocks = BlockTable()
        self._leaves: list[list[Any] | None] = []
        self._leaf_numbers: dict[int, int] = {}
        self._kept: list[object] = []  # while ids are remembered, their objects must live
        self._tensors = tensors.TensorTable()
        self._dtypes: dict[int, tuple[Any, Any]] = {}
        self._holds_pickles = False

    def encode(self, obj: object) -> EncodedTree:
        packer = msgpack.Packer(strict_types=True, unicode_errors="surrogatepass", default=_pack_big_int)
        try:
            values = packer.pack(self.lower(obj, 0))
            for number, leaf in self._tensors.encode(self._blocks).items():
                self._leaves[number] = leaf
        except Refusal as refused:
            raise refused.as_error() from refused.__cause__
        except RecursionError:
            raise UnsupportedTypeError(
                "containers are nested too deep for what is left of Python's stack; flatten them"
            ) from None
        except ValueError as error:  # msgpack: a string or list beyond 4 GiB
            raise UnsupportedTypeError(f"a value is too large to be stored: {error}") from error
        if len(values) > _MAX_VALUES:
            raise UnsupportedTypeError(
                f"the plain values take {len(values)} bytes, at most {_MAX_VALUES} are possible; keep bulk data "
                "in arrays or tensors"
            )
        leaf_table = msgpack.packb([self._blocks.entries, self._leaves], unicode_errors="surrogatepass")
        segments = self._blocks.segments
        head = build_head(
            [len(segment) for segment in segments],
            leaf_table,
            values,
            flags=FLAG_PICKLES if self._holds_pickles else 0,
        )
        size = len(head) + sum(len(segment) + padding(len(segment)) for segment in segments)
        return EncodedTree(
            head,
            tuple(segments),
            tuple(self._blocks.private),
            tuple(self._blocks.known),
            size,
            self._holds_pickles,
        )

    def lower(self, obj: Any, depth: int) -> Any:
        """Turn a value into types that msgpack packs."""
        cls = type(obj)
        return obj if cls in _ATOMS else self.handler(cls)(self, obj, depth)

    def handler(self, cls: type[Any]) -> _Handler:
        found = self._handlers.get(cls)
        if found is None:
            found = self._handlers[cls] = _find_handler(cls)
        return found

    def sequence(self, head: list[Any], items: Iterable[Any], depth: int, owner: object) -> list[Any]:
        """Append the lowered items to ``head``."""
        if depth >= MAX_DEPTH:
            raise Refusal(f"is nested more than {MAX_DEPTH} levels deep; flatten it", too_deep=True)
        index = 0
        handlers = self._handlers
        try:
            for item in items:
                cls = type(item)
                if cls in _ATOMS:
                    head.append(item)
                else:
                    head.append((handlers.get(cls) or self.handler(cls))(self, item, depth + 1))
                index += 1
        except Refusal as refused:
            refused.through(owner, f"[{index}]")
            raise
        return head

    def pairs(self, head: list[Any], items: Iterable[tuple[Any, Any]], depth: int, owner: object) -> list[Any]:
        """Append lowered keys and values to ``head``, alternating."""
        if depth >= MAX_DEPTH:
            raise Refusal(f"is nested more than {MAX_DEPTH} levels deep; flatten it", too_deep=True)
        key: Any = None
        handlers = self._handlers
        attributes = type(owner) not in _MAPPINGS
        try:
            for key, value in items:
                cls = type(key)
                head.append(key if cls in _ATOMS else self.handler(cls)(self, key, depth + 1))
                cls = type(value)
                if cls in _ATOMS:
                    head.append(value)
                else:
                    head.append((handlers.get(cls) or self.handler(cls))(self, value, depth + 1))
        except Refusal as refused:
            refused.through(owner, f".{key}" if attributes else f"[{show_key(key)}]")
            raise
        return head

    def mapping(self, owner: dict[Any, Any], depth: int) -> dict[Any, Any]:
        """Return a dict with the same keys and lowered values."""
        key: Any = None
        lowered = {}
        handlers = self._handlers
        try:
            for key, value in owner.items():
                cls = type(value)
                if cls in _ATOMS:
                    lowered[key] = value
                else:
                    lowered[key] = (handlers.get(cls) or self.handler(cls))(self, value, depth + 1)
        except Refusal as refused:
            refused.through(owner, f"[{show_key(key)}]")
            raise
        return lowered

    def leaf(self, obj: object, make: Callable[[], list[Any] | None]) -> msgpack.ExtType:
        """Return the reference to the leaf of an object, which is made when the object is met first."""
        number = self._leaf_numbers.get(id(obj))
        if number is None:
            made = make()
            number = len(self._leaves)
            self._leaves.append(made)
            self._leaf_numbers[id(obj)] = number
            self._kept.append(obj)
        return msgpack.ExtType(_LEAF, struct.pack("<I", number))

    def refuse_crowd(self, keys: Collection[Any]) -> None:
        """Refuse a dict or set that would not be read again."""
        if crowded(keys):
            raise Refusal(
                f"{qualified_name(type(keys))} can't be stored: more than {MAX_OF_ONE_HASH} of its keys have the same "
                "hash, so that it would take very long to load; store a list"
            )

    def refuse(self, obj: object, reason: str) -> msgpack.ExtType:
        """Pickle a value where that is allowed, else refuse it."""
        if not self._pickles:
            raise Refusal(
                f"{qualified_name(type(obj))} can't be stored: {reason}. Or allow pickles (allow_pickle=True), where "
                "all who write them are trusted"
            )
        try:
            data = pickle.dumps(obj, protocol=5)
        except Exception as error:
            raise Refusal(f"{qualified_name(type(obj))} can't be stored, nor pickled: {error}") from error
        self._holds_pickles = True
        return self.leaf(obj, lambda: ["p", self._blocks.add(memoryview(data), private=True)])

    # Values of builtin types

    def lower_bytes(self, obj: bytes, depth: int) -> Any:
        del depth
        if len(obj) <= INLINE_LIMIT:
            return obj
        return self.leaf(obj, lambda: ["b", self._blocks.add(memoryview(obj), private=True)])

    def lower_bytearray(self, obj: bytearray, depth: int) -> Any:
        del depth
        if len(obj) <= INLINE_LIMIT:
            return msgpack.ExtType(int(Code.BYTEARRAY), bytes(obj))
        return self.leaf(obj, lambda: ["y", self._blocks.add(memoryview(obj), private=False)])

    def lower_list(self, obj: list[Any], depth: int) -> Any:
        if _ATOMS.issuperset(map(type, obj)) and depth < MAX_DEPTH:
            return obj
        return self.sequence([], obj, depth, obj)

    def lower_tuple(self, obj: tuple[Any, ...], depth: int) -> Any:
        if _ATOMS.issuperset(map(type, obj)) and depth < MAX_DEPTH:
            return [_TUPLE, *obj]
        return self.sequence([_TUPLE], obj, depth, obj)

    def lower_deque(self, obj: collections.deque[Any], depth: int) -> Any:
        return self.sequence([_TAGS[Code.DEQUE], obj.maxlen], obj, depth, obj)

    def lower_set(self, obj: Any, depth: int) -> Any:
        self.refuse_crowd(obj)
        code = Code.SET if type(obj) is set else Code.FROZENSET
        kinds = set(map(type, obj))
        # The iteration order of strings differs from process to process; equal sets should make equal bytes.
        items = sorted(obj) if len(kinds) == 1 and kinds <= {int, str, bytes} else obj
        return self.sequence([_TAGS[code]], items, depth, obj)

    def lower_dict(self, obj: dict[Any, Any], depth: int) -> Any:
        if not _TEXT.issuperset(map(type, obj)):
            self.refuse_crowd(obj)
        if depth < MAX_DEPTH and _ATOMS.issuperset(map(type, obj)):
            if _ATOMS.issuperset(map(type, obj.values())):
                return obj
            return self.mapping(obj, depth)
        return self.pairs([_TAGS[Code.DICT]], obj.items(), depth, obj)

    def lower_ordered_dict(self, obj: Any, depth: int) -> Any:
        self.refuse_crowd(obj)
        return self.pairs([_TAGS[Code.ORDERED_DICT]], obj.items(), depth, obj)

    def lower_counter(self, obj: Any, depth: int) -> Any:
        self.refuse_crowd(obj)
        return self.pairs([_TAGS[Code.COUNTER]], obj.items(), depth, obj)

    def lower_default_dict(self, obj: Any, depth: int) -> Any:
        self.refuse_crowd(obj)
        factory = obj.default_factory
        name = None if factory is None else next((n for n, f in FACTORIES.items() if f is factory), "")
        if name == "":
            return self.refuse(obj, "its default factory is not a builtin type; store dict(value)")
        return self.pairs([_TAGS[Code.DEFAULT_DICT], name], obj.items(), depth, obj)

    def lower_complex(self, obj: complex, depth: int) -> Any:
        del depth
        return msgpack.ExtType(int(Code.COMPLEX), struct.pack("<dd", obj.real, obj.imag))

    def lower_datetime(self, obj: datetime.datetime, depth: int) -> Any:
        del depth
        zone = _zone(obj.tzinfo)
        if zone is NotImplemented:
            return self.refuse(obj, _zone_reason(obj.tzinfo))
        date = (obj.year, obj.month, obj.day)
        return [_TAGS[Code.DATETIME], *date, obj.hour, obj.minute, obj.second, obj.microsecond, obj.fold, zone]

    def lower_time(self, obj: datetime.time, depth: int) -> Any:
        del depth
        zone = _zone(obj.tzinfo)
        if zone is NotImplemented:
            return self.refuse(obj, _zone_reason(obj.tzinfo))
        return [_TAGS[Code.TIME], obj.hour, obj.minute, obj.second, obj.microsecond, obj.fold, zone]

    def lower_date(self, obj: datetime.date, depth: int) -> Any:
        del depth
        return [_TAGS[Code.DATE], obj.year, obj.month, obj.day]

    def lower_timedelta(self, obj: datetime.timedelta, depth: int) -> Any:
        del depth
        return [_TAGS[Code.TIMEDELTA], obj.days, obj.seconds, obj.microseconds]

    def lower_decimal(self, obj: decimal.Decimal, depth: int) -> Any:
        del depth
        return [_TAGS[Code.DECIMAL], str(obj)]

    def lower_path(self, obj: pathlib.PurePath, depth: int) -> Any:
        del depth
        flavour = "windows" if isinstance(obj, pathlib.PureWindowsPath) else "posix"
        kind = "path" if isinstance(obj, pathlib.Path) else flavour
        return [_TAGS[Code.PATH], kind, str(obj)]

    # Values of named classes

    def lower_enum(self, obj: enum.Enum, depth: int) -> Any:
        del depth
        cls = type(obj)
        reason = classes.unstorable_reason(cls)
        if reason is None and cls.__members__.get(obj.name) is not obj:
            reason = "it is a combination of flags without a name; store its value"
        if reason is not None:
            return self.refuse(obj, reason)
        return [_TAGS[Code.ENUM], *classes.class_name(cls), obj.name]

    def lower_named_tuple(self, obj: tuple[Any, ...], depth: int) -> Any:
        cls = type(obj)
        reason = classes.unstorable_reason(cls)
        if reason is None and (len(obj) != len(cls.__dict__["_fields"]) or getattr(obj, "__dict__", None)):
            reason = "it does not hold exactly the fields of its class; use a NamedTuple"
        if reason is not None:
            return self.refuse(obj, f"{reason}, or store tuple(value)")
        return self.sequence([_TAGS[Code.NAMED_TUPLE], *classes.class_name(cls)], obj, depth, obj)

    def lower_dataclass(self, obj: Any, depth: int) -> Any:
        cls = type(obj)
        names = classes.dataclass_fields(cls)
        reason = classes.unstorable_reason(cls)
        if reason is None:
            extra = [name for name in classes.attributes(obj) if name not in names]
            missing = [name for name in names if not hasattr(obj, name)]
            if extra or missing:
                reason = f"its attribute {(extra or missing)[0]!r} is not a field of its dataclass, or not set"
        if reason is not None:
            return self.refuse(obj, f"{reason}; store its fields as a dict")
        items = ((name, getattr(obj, name)) for name in names)
        return self.pairs([_TAGS[Code.DATACLASS], *classes.class_name(cls)], items, depth, obj)

    # NumPy and torch

    def lower_array(self, obj: Any, depth: int) -> Any:
        del depth
        dtype = self.dtype(obj.dtype)
        if dtype is None:
            return self.refuse(obj, _dtype_reason(obj.dtype, "use an array of numbers, or a list"))
        return self.leaf(obj, lambda: arrays.encode_array(obj, dtype, self._blocks))

    def lower_unchanging(self, obj: Unchanging, depth: int) -> Any:
        if self.handler(type(obj.array)) is not _Encoder.lower_array:
            return self.refuse(obj.array, "only NumPy arrays can be Unchanging")
        dtype = self.dtype(obj.array.dtype)
        if dtype is None:
            return self.lower_array(obj.array, depth)
        return self.leaf(obj, lambda: arrays.encode_array(obj.array, dtype, self._blocks, obj.digests))

    def lower_numpy_scalar(self, obj: Any, depth: int) -> Any:
        del depth
        # An array element would lose the trailing zeros of strings and bytes.
        if obj.dtype.kind == "U":
            return [_TAGS[Code.NUMPY_SCALAR], "U", str.__getitem__(obj, slice(None))]
        if obj.dtype.kind == "S":
            return [_TAGS[Code.NUMPY_SCALAR], "S", bytes(obj)]
        dtype = self.dtype(obj.dtype)
        if dtype is None:
            return self.refuse(obj, _dtype_reason(obj.dtype, "store value.item(), or its fields as a dict"))
        if type(obj) is not obj.dtype.type:
            return self.refuse(obj, f"it would come back as a {qualified_name(obj.dtype.type)}; store value.item()")
        return [_TAGS[Code.NUMPY_SCALAR], *arrays.encode_scalar(obj, dtype)]

    def dtype(self, dtype: Any) -> Any:
        # By identity: dtypes that are equal may differ in what is stored (aligned, np.record).
        known = self._dtypes.get(id(dtype))
        if known is None:
            known = self._dtypes[id(dtype)] = (dtype, arrays.encode_dtype(dtype))
        return known[1]

    def lower_tensor(self, obj: Any, depth: int) -> Any:
        del depth
        reason = tensors.tensor_reason(obj)
        if reason is not None:
            return self.refuse(obj, reason)

        def make() -> None:
            self._tensors.add(len(self._leaves), obj)

        return self.leaf(obj, make)

    def lower_torch_value(self, obj: Any, depth: int) -> Any:
        code = {"device": Code.TORCH_DEVICE, "dtype": Code.TORCH_DTYPE}.get(type(obj).__name__)
        if code is None:
            return self.sequence([_TAGS[Code.TORCH_SIZE]], obj, depth, obj)
        return [_TAGS[code], str(obj).removeprefix("torch.")]

    def lower_unknown(self, obj: object, depth: int) -> Any:
        del depth
        return self.refuse(obj, _remedy(obj))


def _pack_big_int(obj: object) -> msgpack.ExtType:
    # Packer calls this for integers that need more than 64 bits; everything else has been lowered.
    if type(obj) is not int:
        raise ValueError(f"{type(obj).__name__} of an unexpected size")
    length = obj.bit_length() // 8 + 1
    return msgpack.ExtType(int(Code.BIG_INT), obj.to_bytes(length, "little", signed=True))


def _dtype_reason(dtype: Any, remedy: str) -> str:
    if arrays.has_metadata(dtype):
        return "its dtype carries metadata, which would be lost; store it with a dtype without, and the metadata beside"
    return f"its dtype is {dtype}; {remedy}"


def _zone(zone: datetime.tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is zoneinfo.ZoneInfo and _is_known(zone):
        return zone.key
    if type(zone) is datetime.timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        unnamed = name == datetime.timezone(offset).tzname(None)
        return [offset // datetime.timedelta(microseconds=1), None if unnamed else name]
    return NotImplemented


def _zone_reason(zone: datetime.tzinfo | None) -> str:
    if type(zone) is zoneinfo.ZoneInfo:
        return f"its time zone {zone!s:.80} is not the one that zoneinfo finds by this name; use ZoneInfo(name)"
    return f"its time zone is a {qualified_name(type(zone))}; use zoneinfo or timezone"


def _is_known(zone: zoneinfo.ZoneInfo) -> bool:
    """Whether a time zone is the one that its key stands for, and not made of some file."""
    try:
        zone.__reduce__()
        zoneinfo.ZoneInfo(zone.key)
    except (pickle.PicklingError, OSError, ValueError, KeyError):
        return False
    return True


def _find_handler(cls: type[Any]) -> _Handler:
    """Find the handler of a type that is not a builtin one. NumPy and torch types exist only if imported."""
    if issubclass(cls, enum.Enum):
        return _Encoder.lower_enum
    if classes.is_named_tuple_class(cls):
        return _Encoder.lower_named_tuple
    if cls in _PATHS:
        return _Encoder.lower_path
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if cls in (numpy.ndarray, numpy.memmap):
            return _Encoder.lower_array
        if issubclass(cls, numpy.generic) and cls.__module__ == "numpy":
            return _Encoder.lower_numpy_scalar
    torch = sys.modules.get("torch")
    if torch is not None:
        if cls in (torch.Tensor, torch.nn.Parameter):
            return _Encoder.lower_tensor
        if cls in (torch.device, torch.dtype, torch.Size):
            return _Encoder.lower_torch_value
    if dataclasses.is_dataclass(cls):
        return _Encoder.lower_dataclass
    return _Encoder.lower_unknown


def _remedy(obj: object) -> str:
    cls = type(obj)
    if callable(getattr(cls, "state_dict", None)):
        return "store its state_dict()"
    if callable(getattr(cls, "get_state", None)):
        return "store what its get_state() returns"
    if hasattr(cls, "bit_generator"):
        return "store its bit_generator.state"
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(obj, numpy.dtype):
        return "store its str, or its descr if it has fields"
    if numpy is not None and isinstance(obj, numpy.ma.MaskedArray):
        return "store its data and its mask"
    if numpy is not None and isinstance(obj, numpy.ndarray):
        return "subclasses of ndarray would come back as something else; store numpy.asarray(value)"
    if torch is not None and isinstance(obj, torch.Tensor):
        if torch.nn.parameter.is_lazy(obj):
            return "it has no values yet; call the module once, which initializes it, before it is saved"
        if hasattr(cls, "full_tensor"):  # a DTensor
            return "it is a part of a tensor that is distributed over processes; store its full_tensor()"
        return "subclasses of Tensor would come back as something else; store a plain tensor with its values"
    for builtin in (dict, list, tuple, set, str, bytes, int, float):
        if issubclass(cls, builtin):
            return (
                f"subclasses of {builtin.__name__} would come back as something else; store {builtin.__name__}(value)"
            )
    return "use dicts, lists, numbers, strings, arrays and tensors"


_PATHS = (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath)
_MAPPINGS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)

_HANDLERS: dict[type[Any], _Handler] = {
    bytes: _Encoder.lower_bytes,
    bytearray: _Encoder.lower_bytearray,
    list: _Encoder.lower_list,
    tuple: _Encoder.lower_tuple,
    set: _Encoder.lower_set,
    frozenset: _Encoder.lower_set,
    dict: _Encoder.lower_dict,
    complex: _Encoder.lower_complex,
    collections.deque: _Encoder.lower_deque,
    collections.OrderedDict: _Encoder.lower_ordered_dict,
    collections.Counter: _Encoder.lower_counter,
    collections.defaultdict: _Encoder.lower_default_dict,
    datetime.datetime: _Encoder.lower_datetime,
    datetime.time: _Encoder.lower_time,
    datetime.date: _Encoder.lower_date,
    datetime.timedelta: _Encoder.lower_timedelta,
    decimal.Decimal: _Encoder.lower_decimal,
    Unchanging: _Encoder.lower_unchanging,
}
