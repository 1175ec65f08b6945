"""Why, and where inside an object, a value can't be stored."""

from __future__ import annotations

from typing import Any

from statevault.errors import UnsupportedTypeError

__all__ = ["Refusal", "qualified_name", "show_key"]


class Refusal(Exception):  # noqa: N818 - the encoder turns it into an UnsupportedTypeError
    """A value can't be stored; collects the steps to it on the way up."""

    def __init__(self, reason: str, *, too_deep: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.too_deep = too_deep
        self.steps: list[tuple[str, int]] = []

    def through(self, container: object, step: str) -> None:
        """Note that the value lies in a container, at a step such as ``[3]``."""
        self.steps.append((step, id(container)))

    def as_error(self) -> UnsupportedTypeError:
        """Return the error for the user; when the way down passes a container twice, it names the cycle."""
        steps = self.steps[::-1]
        if self.too_deep:
            seen: dict[int, int] = {}
            for position, (_, identity) in enumerate(steps):
                first = seen.setdefault(identity, position)
                if first != position:
                    outer = _join(steps[:first])
                    inner = "".join(step for step, _ in steps[first:position])
                    return UnsupportedTypeError(f"{outer} contains itself, at {inner}; trees can't hold cycles")
            return UnsupportedTypeError(f"{_join(steps[:4])}… {self.reason}")
        return UnsupportedTypeError(f"{_join(steps)}: {self.reason}")


def _join(steps: list[tuple[str, int]]) -> str:
    return "".join(step for step, _ in steps) or "the object"


def show_key(key: object) -> str:
    """Show a key without running the repr of foreign classes."""
    if type(key) is int and key.bit_length() > 1000:
        return "<int>"  # Python shows no number of more than 4300 digits
    if type(key) in (type(None), bool, int, float, str) or type(key) is bytes:
        return f"{key!r:.80}"
    if type(key) is tuple:
        return "(" + ", ".join(show_key(item) for item in key[:4]) + ")"
    return f"<{type(key).__qualname__}>"


def qualified_name(cls: type[Any]) -> str:
    """Return the name of a class with its module, unless that is builtins."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
