"""Enums, dataclasses and named tuples are rebuilt without importing or calling anything."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

from statevault.codecs import decode_tree, encode_tree
from statevault.errors import FormatError, UnsupportedTypeError

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


_CELL = """
class Color(enum.Enum):
    RED = 1
    PAIR = (2, "b")
@dataclasses.dataclass
class Stats:
    x: int
@dataclasses.dataclass(slots=True)
class More(Stats):
    y: int
class Pair(typing.NamedTuple):
    a: int
values = [Color.RED, Color.PAIR, Stats(3), More(4, 5), Pair(6)]
"""


def test_values_of_a_cell_that_ran_twice_come_back_as_of_the_classes_that_are_there(module: ModuleType) -> None:
    define(module, _CELL)
    old = module.values
    define(module, _CELL)
    loaded = decode_tree(encode(old))
    assert [type(value) for value in loaded] == [type(value) for value in module.values]
    assert loaded == module.values
    assert loaded[0] is module.Color.RED
    assert [type(value) for value in loaded] != [type(value) for value in old]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("RED = 1", "RED = 2", "other members or values"),
        ("RED = 1", "RED = True", "other members or values"),
        ("RED = 1", "RED = 1; BLUE = 3", "other members or values"),
        ("PAIR = 2", "PAIR = (2,)", "other members or values"),
        ("Color(enum.Enum)", "Color(enum.Flag)", "other base classes"),
        ("class Color(enum.Enum):", "class Color:", "other base classes"),
        ("x: int = 3", "x: int = 3; z: int = 0", "other fields"),
        ("a: int", "a: int; b: int = 0", "other fields"),
        ("@dataclasses.dataclass\n", "", "of another kind"),
    ],
)
def test_a_class_that_was_defined_anew_and_differs_is_refused_with_what_differs(
    module: ModuleType, before: str, after: str, words: str
) -> None:
    source = (
        "class Color(enum.Enum):\n    RED = 1\n    PAIR = 2\n"
        "@dataclasses.dataclass\nclass Stats:\n    x: int = 3\n"
        "class Pair(typing.NamedTuple):\n    a: int\n"
    )
    assert before in source
    define(module, source)
    old = [module.Color.RED, module.Stats(3), module.Pair(6)]
    define(module, source.replace(before, after))
    with pytest.raises(UnsupportedTypeError, match=f"was defined anew after the value was made, and .*{words} now"):
        encode(old)


def test_a_class_that_is_gone_or_elsewhere_is_refused_with_where_it_should_be(module: ModuleType) -> None:
    define(module, "class E(enum.Enum):\n    A = 1")
    member = module.E.A
    data = encode(member)
    del module.E
    with pytest.raises(UnsupportedTypeError, match=r"named statevault_test_classes\.E, but the module has no class"):
        encode(member)
    with pytest.raises(FormatError, match="classes', which is imported, but has no class of that name"):
        decode_tree(data)
    del sys.modules[module.__name__]
    with pytest.raises(UnsupportedTypeError, match="but the module is not imported under that name"):
        encode(member)


def test_a_class_that_was_renamed_is_found_under_its_old_name(module: ModuleType) -> None:
    define(module, "@dataclasses.dataclass\nclass C:\n    x: int")
    data = encode(module.C(3))
    del module.C
    define(module, "@dataclasses.dataclass\nclass New:\n    x: int\nC = New")
    assert decode_tree(data) == module.New(3)


def test_a_class_of_a_main_program_that_is_not_there_is_looked_for_in_this_one() -> None:
    main = sys.modules["__main__"]
    define(main, "class OfTheScript(enum.Enum):\n    A = 1")
    try:
        data = encode(vars(main)["OfTheScript"].A)
    finally:
        del vars(main)["OfTheScript"]
    with pytest.raises(FormatError, match="the main program here has no such class: define it there"):
        decode_tree(data)


_SCRIPT = """
import dataclasses, enum, multiprocessing, sys, typing
from statevault.codecs import decode_tree, encode_tree

class Color(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Stats:
    x: int

class Pair(typing.NamedTuple):
    a: int

def make():
    return [Color.RED, Stats(3), Pair(6)]

def child(data):
    assert decode_tree(data) == make()
    return b"".join(encode_tree(make()))

if __name__ == "__main__":
    data = b"".join(encode_tree(make()))
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            theirs = pool.apply(child, (data,))
        assert theirs == data
        assert decode_tree(theirs) == make()
    print("done")
"""


def test_a_script_and_the_processes_that_it_starts_read_what_each_other_wrote(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    ran = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert ran.stdout == "done\n", ran.stderr
