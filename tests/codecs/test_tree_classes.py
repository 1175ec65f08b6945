"""Enums, dataclasses and named tuples are rebuilt without importing or calling anything."""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Self

import pytest

from statevault.codecs import decode_tree, encode_tree
from statevault.errors import FormatError

CALLS: list[str] = []


@dataclasses.dataclass
class Talkative:
    x: int = 0

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        CALLS.append("new")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        CALLS.append("post_init")

    def __setattr__(self, name: str, value: object) -> None:
        CALLS.append("setattr")
        object.__setattr__(self, name, value)

    def __setstate__(self, state: object) -> None:
        CALLS.append("setstate")


class Lookup(enum.Enum):
    A = 1

    @classmethod
    def _missing_(cls, value: object) -> Any:
        CALLS.append("missing")
        return cls.A


@pytest.fixture
def module() -> Iterator[ModuleType]:
    made = ModuleType("statevault_test_classes")
    sys.modules[made.__name__] = made
    yield made
    sys.modules.pop(made.__name__, None)


def define(module: ModuleType, source: str) -> None:
    text = f"import dataclasses, enum, typing\n{source}"
    exec(compile(text, module.__name__, "exec", dont_inherit=True), module.__dict__)


def encode(value: object) -> bytes:
    return b"".join(encode_tree(value))


def test_no_method_of_the_class_is_called() -> None:
    data = encode([Talkative(5), Lookup.A])
    CALLS.clear()
    loaded = decode_tree(data)
    assert CALLS == []
    assert loaded[0].x == 5


def test_a_module_that_is_not_imported_is_not_imported(module: ModuleType) -> None:
    define(module, "class E(enum.Enum):\n    A = 1")
    data = encode(module.E.A)
    del sys.modules[module.__name__]
    with pytest.raises(FormatError, match="import it before loading"):
        decode_tree(data)
    assert module.__name__ not in sys.modules


def test_a_class_that_is_none_of_the_three_is_refused(module: ModuleType) -> None:
    for source, replaced in [
        ("class C(enum.Enum):\n    A = 1", "class C:\n    A = 1"),
        ("@dataclasses.dataclass\nclass C:\n    x: int = 1", "class C:\n    x = 1"),
        ("class C(typing.NamedTuple):\n    x: int = 1", "class C(tuple):\n    pass"),
    ]:
        define(module, source)
        data = encode(module.C.A if "Enum" in source else module.C())
        define(module, replaced)
        with pytest.raises(FormatError):
            decode_tree(data)


def test_a_dataclass_may_gain_fields_with_plain_defaults(module: ModuleType) -> None:
    define(module, "@dataclasses.dataclass\nclass C:\n    x: int")
    data = encode(module.C(3))
    define(module, "@dataclasses.dataclass\nclass C:\n    x: int\n    y: int = 7")
    assert decode_tree(data) == module.C(3, 7)
    define(module, "@dataclasses.dataclass\nclass C:\n    x: int\n    y: int")
    with pytest.raises(FormatError, match="'y'"):
        decode_tree(data)
    define(module, "@dataclasses.dataclass\nclass C:\n    y: int = 7")
    with pytest.raises(FormatError, match="'x'"):
        decode_tree(data)


def test_a_renamed_enum_member_is_an_error(module: ModuleType) -> None:
    define(module, "class E(enum.Enum):\n    A = 1")
    data = encode(module.E.A)
    define(module, "class E(enum.Enum):\n    B = 1")
    with pytest.raises(FormatError, match="'A'"):
        decode_tree(data)


def test_a_finalizer_that_came_later_is_refused(module: ModuleType) -> None:
    define(module, "@dataclasses.dataclass\nclass C:\n    x: int")
    data = encode(module.C(3))
    define(module, "@dataclasses.dataclass\nclass C:\n    x: int\n    def __del__(self): raise SystemExit")
    with pytest.raises(FormatError):
        decode_tree(data)


def test_enum_aliases_come_back_as_the_member(module: ModuleType) -> None:
    define(module, "class E(enum.Enum):\n    A = 1\n    B = 1")
    assert decode_tree(encode(module.E.B)) is module.E.A
