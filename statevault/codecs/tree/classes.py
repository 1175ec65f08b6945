"""Classes by name, without running code: enums, dataclasses and named tuples.

A tree file names the class of such a value. Reading looks the name up among the modules that the program has
imported already, and builds the value without calling anything that the class defines: no import, no
``__init__``, no ``__new__``, no ``__setattr__``. Classes for which that is not possible are refused at save.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
from typing import Any

from statevault.errors import FormatError

__all__ = [
    "attributes",
    "build_dataclass",
    "build_enum",
    "build_named_tuple",
    "class_name",
    "dataclass_fields",
    "find_class",
    "is_named_tuple_class",
    "unstorable_reason",
]


_CONSTANTS = frozenset({type(None), bool, int, float, complex, str, bytes})
_MAIN = "__main__"
# What the main module is called in the processes that multiprocessing starts.
_MAIN_NAMES = (_MAIN, "__mp_main__")


def class_name(cls: type[Any]) -> tuple[str, str]:
    """Return the module and the qualified name by which a file names a class."""
    return (_MAIN if cls.__module__ in _MAIN_NAMES else cls.__module__), cls.__qualname__


def find_class(module: object, qualname: object) -> type[Any] | None:
    """Look a class up among the imported modules; None when it isn't there."""
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    found: object = sys.modules.get(_MAIN if module in _MAIN_NAMES else module)
    if found is None:
        return None
    for part in qualname.split("."):
        # object.__getattribute__ and not getattr: lazily loading modules and metaclasses must not run.
        namespace = type.__getattribute__(found, "__dict__") if isinstance(found, type) else None
        if namespace is None and isinstance(found, types.ModuleType):
            namespace = object.__getattribute__(found, "__dict__")
        found = namespace.get(part) if namespace is not None else None
    return found if isinstance(found, type) else None


def is_named_tuple_class(cls: type[Any]) -> bool:
    """Say whether a class comes from :func:`collections.namedtuple` or :class:`typing.NamedTuple`."""
    if not issubclass(cls, tuple):
        return False
    fields = cls.__dict__.get("_fields")
    return cls.__bases__ == (tuple,) and isinstance(fields, tuple) and all(isinstance(f, str) for f in fields)


def dataclass_fields(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of a dataclass' fields; none for other classes."""
    return tuple(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else ()


def attributes(obj: object) -> list[str]:
    """Return the names of the attributes that an object itself has, in its ``__dict__`` and in slots."""
    names = list(getattr(obj, "__dict__", ()))
    for base in type(obj).__mro__[:-1]:
        slots = [name for name, value in base.__dict__.items() if type(value) is types.MemberDescriptorType]
        names += [name for name in slots if hasattr(obj, name)]
    return names


def unstorable_reason(cls: type[Any]) -> str | None:
    """Say why values of an enum, dataclass or named tuple can't be stored by the name of their class.

    A class that was defined anew, as by a notebook cell that runs twice, may stand for the one before.

    Returns:
        None when they can.
    """
    module, qualname = class_name(cls)
    found = find_class(module, qualname)
    if found is None:
        if "<locals>" in qualname:
            return f"its class {module}.{qualname} is local to a function; define it at module level"
        where = "has no class of that name" if module in sys.modules else "is not imported under that name"
        return f"its class is named {module}.{qualname}, but the module {where}; define it there, at module level"
    if found is not cls and (difference := _difference(cls, found)):
        return (
            f"{module}.{qualname} was defined anew after the value was made, and {difference}; make the value again "
            "with the class as it is now"
        )
    return _unbuildable_reason(found)


def _difference(old: type[Any], new: type[Any]) -> str | None:
    """Say in what a class differs from the one that has its name now, as far as that matters to its values."""
    if [class_name(base) for base in old.__bases__] != [class_name(base) for base in new.__bases__]:
        return "has other base classes now"
    if issubclass(old, enum.Enum) and issubclass(new, enum.Enum):
        ours, theirs = ({name: member.value for name, member in cls.__members__.items()} for cls in (old, new))
        same = ours.keys() == theirs.keys() and all(_is_same_value(ours[name], theirs[name]) for name in ours)
        return None if same else "has other members or values now"
    if is_named_tuple_class(old) and is_named_tuple_class(new):
        return None if old.__dict__["_fields"] == new.__dict__["_fields"] else "has other fields now"
    if dataclasses.is_dataclass(old) and dataclasses.is_dataclass(new):
        return None if dataclass_fields(old) == dataclass_fields(new) else "has other fields now"
    return "is a class of another kind now"


def _is_same_value(one: object, other: object) -> bool:
    """Whether two constants are equal; others may not be comparable at all, and count as different."""
    if type(one) is tuple and type(other) is tuple:
        return len(one) == len(other) and all(map(_is_same_value, one, other))
    return one is other or (type(one) is type(other) and type(one) in _CONSTANTS and one == other)


def _unbuildable_reason(cls: type[Any]) -> str | None:
    """Say why values of a class can't be built without running its code; None when they can."""
    if hasattr(cls, "__del__"):
        return "its class defines __del__, which would run when the value is dropped"
    if dataclasses.is_dataclass(cls):
        for name in dataclass_fields(cls):
            attribute = _static_attribute(cls, name)
            if hasattr(type(attribute), "__set__") and not isinstance(attribute, types.MemberDescriptorType):
                return f"its field {name!r} is a property, whose setter would run"
        try:
            object.__new__(cls)
        except TypeError:
            return "its class derives from a builtin one"
    return None


def build_enum(items: list[Any]) -> enum.Enum:
    """Build an enum member from ``[module, qualname, member name]``."""
    module, qualname, name = items
    cls = _require_class(module, qualname)
    member = cls._member_map_.get(name) if issubclass(cls, enum.Enum) else None
    if member is None:
        raise FormatError(f"{module}.{qualname} has no enum member {name!r}")
    return member


def build_named_tuple(items: list[Any]) -> tuple[Any, ...]:
    """Build a named tuple from ``[module, qualname, *values]``."""
    module, qualname, *values = items
    cls = _require_class(module, qualname)
    if not is_named_tuple_class(cls) or len(cls.__dict__["_fields"]) != len(values):
        raise FormatError(f"{module}.{qualname} is not a named tuple of {len(values)} fields")
    result: tuple[Any, ...] = tuple.__new__(cls, values)
    return result


def build_dataclass(items: list[Any]) -> object:
    """Build a dataclass instance from ``[module, qualname, name, value, name, value, ...]``.

    Fields that the class has gained since keep their default, when it is a plain value.
    """
    module, qualname, *pairs = items
    cls = _require_class(module, qualname)
    if not all(type(name) is str for name in pairs[::2]):
        raise FormatError(f"a value of {module}.{qualname} in the tree file has a field without a name")
    values = dict(zip(pairs[::2], pairs[1::2], strict=True))
    if not dataclasses.is_dataclass(cls):
        raise FormatError(f"{module}.{qualname} is not a dataclass any more")
    if reason := _unbuildable_reason(cls):
        raise FormatError(f"a value of {module}.{qualname} can't be loaded: {reason}")
    result = object.__new__(cls)
    for field in dataclasses.fields(cls):
        value = values.pop(field.name, field.default)
        if value is dataclasses.MISSING:
            raise FormatError(f"{module}.{qualname} has a field {field.name!r} now that the file does not hold")
        object.__setattr__(result, field.name, value)
    if values:
        raise FormatError(f"{module}.{qualname} has no field {next(iter(values))!r} any more")
    return result


def _require_class(module: object, qualname: object) -> type[Any]:
    cls = find_class(module, qualname)
    if cls is not None:
        return cls
    held = f"the file holds a value of the class {qualname!r:.200} of module {module!r:.200}"
    if module in _MAIN_NAMES:
        raise FormatError(
            f"{held}, the main program that saved it, and the main program here has no such class: define it there (in "
            "a notebook, run its cell) before loading, or move it into a module that both programs import"
        )
    if module in sys.modules:
        raise FormatError(
            f"{held}, which is imported, but has no class of that name: if it was renamed or moved, give it its old "
            "name there as well"
        )
    raise FormatError(f"{held}, which is not imported: import it before loading (nothing is imported by loading)")


def _static_attribute(cls: type[Any], name: str) -> object:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None
