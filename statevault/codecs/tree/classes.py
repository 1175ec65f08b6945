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
    "dataclass_fields",
    "find_class",
    "is_named_tuple_class",
    "unstorable_reason",
]


def find_class(module: object, qualname: object) -> type[Any] | None:
    """Look a class up among the imported modules; None when it isn't there."""
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    found: object = sys.modules.get(module)
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

    Returns:
        None when they can.
    """
    if find_class(cls.__module__, cls.__qualname__) is not cls:
        return f"no module holds its class under {cls.__module__}.{cls.__qualname__}; define it at module level"
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
    if not dataclasses.is_dataclass(cls) or unstorable_reason(cls) is not None:
        raise FormatError(f"{module}.{qualname} is not a dataclass that can be loaded")
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
    if cls is None:
        raise FormatError(
            f"the file holds a value of the class {qualname!r} of module {module!r}, which is not imported: "
            "import it before loading (nothing is imported by loading)"
        )
    return cls


def _static_attribute(cls: type[Any], name: str) -> object:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None
