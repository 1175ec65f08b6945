"""Builds the values of a tree file from msgpack and the leaves."""

from __future__ import annotations

import collections
import datetime
import decimal
import pathlib
import struct
import zoneinfo
from collections.abc import Callable
from typing import Any

from statevault.codecs.tree import arrays, classes, tensors
from statevault.codecs.tree.document import unpack_document
from statevault.codecs.tree.hashes import MAX_OF_ONE_HASH, crowded
from statevault.codecs.tree.tags import FACTORIES, FIRST_TAG, Code
from statevault.errors import FormatError, StateVaultError

__all__ = ["ValueReader"]


class _Tag:
    """A tag met in the values: what builds the value from the elements that follow it."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[[list[Any]], Any]) -> None:
        self.build = build


class ValueReader:
    """Builds the values, from the inside out, driven by msgpack's decoder."""

    def __init__(self, leaves: list[Any]) -> None:
        self._leaves = leaves
        self._open_tags = 0

    def read(self, data: memoryview) -> Any:
        """Build the root value."""
        hooks: dict[str, Callable[..., Any]] = {"ext_hook": self._extension, "list_hook": self._array}
        try:
            value = unpack_document(data, **hooks)
        except StateVaultError:
            raise
        except ValueError:
            # Most files have no maps with other keys than texts. Those of others are looked at before they are built.
            self._open_tags = 0
            value = unpack_document(data, object_pairs_hook=_mapping, **hooks)
        if self._open_tags:
            # A tag that isn't first in an array would end up as a value.
            raise FormatError("the tree file has a tag outside of its place")
        return value

    def _extension(self, code: int, data: bytes) -> Any:
        if code >= FIRST_TAG:
            if data or code not in _TAGS:
                raise FormatError(f"the tree file has an unknown tag {code}")
            self._open_tags += 1
            return _TAGS[code]
        if code == Code.LEAF:
            (number,) = struct.unpack("<I", data)
            return self._leaves[number]
        if code == Code.BIG_INT:
            return int.from_bytes(data, "little", signed=True)
        if code == Code.COMPLEX:
            return complex(*struct.unpack("<dd", data))
        if code == Code.BYTEARRAY:
            return bytearray(data)
        raise FormatError(f"the tree file has an unknown extension {code}")

    def _array(self, items: list[Any]) -> Any:
        if items and type(items[0]) is _Tag:
            self._open_tags -= 1
            return items.pop(0).build(items)
        return items


def _dict(items: list[Any]) -> dict[Any, Any]:
    return _mapping(list(zip(items[::2], items[1::2], strict=True)))


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    _refuse_crowd([key for key, _ in pairs])
    result = dict(pairs)
    if len(result) != len(pairs):
        raise FormatError("a dict in the tree file has a key twice")
    return result


def _set(items: list[Any]) -> set[Any]:
    _refuse_crowd(items)
    return set(items)


def _refuse_crowd(keys: list[Any]) -> None:
    if crowded(keys):
        raise FormatError(f"a dict or set in the tree file has more than {MAX_OF_ONE_HASH} keys of the same hash")


def _default_dict(items: list[Any]) -> collections.defaultdict[Any, Any]:
    name = items.pop(0)
    return collections.defaultdict(None if name is None else FACTORIES[name], _dict(items))


def _deque(items: list[Any]) -> collections.deque[Any]:
    maxlen = items.pop(0)
    if maxlen is not None and (type(maxlen) is not int or maxlen < len(items)):
        raise FormatError(f"a deque of {len(items)} items in the tree file has maxlen {maxlen!r:.20}")
    return collections.deque(items, maxlen)


def _counter(items: list[Any]) -> collections.Counter[Any]:
    result: collections.Counter[Any] = collections.Counter()
    dict.update(result, _dict(items))
    return result


def _zone(described: object) -> datetime.tzinfo | None:
    if described is None:
        return None
    if isinstance(described, str):
        try:
            return zoneinfo.ZoneInfo(described)
        except (OSError, ValueError, KeyError) as error:
            raise FormatError(f"this machine knows no time zone {described!r:.80}; install tzdata") from error
    if not isinstance(described, list):
        raise FormatError("the tree file has a malformed time zone")
    microseconds, name = described
    offset = datetime.timedelta(microseconds=microseconds)
    return datetime.timezone(offset) if name is None else datetime.timezone(offset, name)


def _datetime(items: list[Any]) -> datetime.datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = items
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, tzinfo=_zone(zone), fold=fold)


def _time(items: list[Any]) -> datetime.time:
    hour, minute, second, microsecond, fold, zone = items
    return datetime.time(hour, minute, second, microsecond, tzinfo=_zone(zone), fold=fold)


def _decimal(items: list[Any]) -> decimal.Decimal:
    (text,) = items
    if type(text) is not str:
        raise FormatError("the tree file has a malformed decimal")
    return decimal.Decimal(text)


def _path(items: list[Any]) -> pathlib.PurePath:
    kind, text = items
    if kind == "path":
        return pathlib.Path(text)
    if kind == "windows":
        return pathlib.PureWindowsPath(text)
    return pathlib.PurePosixPath(text)


def _torch_device(items: list[Any]) -> Any:
    tensors.require_torch()
    import torch  # noqa: PLC0415

    (name,) = items
    return torch.device(name)


def _torch_size(items: list[Any]) -> Any:
    tensors.require_torch()
    import torch  # noqa: PLC0415

    return torch.Size(items)


_BUILDERS: dict[Code, Callable[[list[Any]], Any]] = {
    Code.TUPLE: tuple,
    Code.DEQUE: _deque,
    Code.SET: _set,
    Code.FROZENSET: lambda items: frozenset(_set(items)),
    Code.DICT: _dict,
    Code.ORDERED_DICT: lambda items: collections.OrderedDict(_dict(items)),
    Code.DEFAULT_DICT: _default_dict,
    Code.COUNTER: _counter,
    Code.NAMED_TUPLE: classes.build_named_tuple,
    Code.ENUM: classes.build_enum,
    Code.DATACLASS: classes.build_dataclass,
    Code.DATETIME: _datetime,
    Code.DATE: lambda items: datetime.date(*items),
    Code.TIME: _time,
    Code.TIMEDELTA: lambda items: datetime.timedelta(*items),
    Code.DECIMAL: _decimal,
    Code.PATH: _path,
    Code.NUMPY_SCALAR: arrays.decode_scalar,
    Code.TORCH_DEVICE: _torch_device,
    Code.TORCH_DTYPE: lambda items: tensors.decode_torch_dtype(*items),
    Code.TORCH_SIZE: _torch_size,
}
_TAGS: dict[int, _Tag] = {int(code): _Tag(build) for code, build in _BUILDERS.items()}
