"""What is wrong with storage options, said in one line that names the option and the remedy, and never its value."""

from __future__ import annotations

import difflib
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from fsspec.dircache import DirCache

from statevault.errors import StorageOptionError
from statevault.storage.redaction import Secrets, redacted

__all__ = [
    "Rules",
    "check_are_named",
    "check_credential",
    "check_endpoint",
    "check_names",
    "check_nested",
    "check_values",
    "check_whole_text",
    "is_seconds",
    "names_no_option",
    "options_refused",
    "parameters",
    "passes_options_on",
    "refusal",
]

Rules: TypeAlias = Mapping[str, tuple[Callable[[Any], bool], str]]
"""For options by their name (``a.b`` for one inside another): whether a value can be used, and what it should be."""

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_LOOK = "look at the storage options (-o, storage_options=)"


def is_seconds(value: Any) -> bool:
    """Whether a value can be a time-out."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and not math.isnan(value) and 0 < value <= threading.TIMEOUT_MAX


def parameters(*classes: type) -> set[str]:
    """The names of options that classes of fsspec take, with those that they pass on to fsspec's own."""
    kinds = [kind for each in classes for kind in each.__mro__ if kind is not object and "__init__" in vars(kind)]
    found = {
        name
        for kind in (*kinds, DirCache)
        for name, parameter in signature(kind.__init__).parameters.items()
        if parameter.kind not in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
    }
    return (found | {"skip_instance_cache"}) - {"self"}


def passes_options_on(filesystem: type) -> bool:
    """Whether a class of fsspec has a use for options that it does not name, as far as its signature tells."""
    kinds = (parameter.kind for parameter in signature(filesystem).parameters.values())
    return Parameter.VAR_KEYWORD in kinds


def check_are_named(options: Any, *, url: str) -> None:
    """Refuse options that are no dict of values by their names.

    Args:
        options: What was given; None for none.
        url: The storage's root, without credentials.

    Raises:
        StorageOptionError: They are something else.
    """
    if options is None or (isinstance(options, Mapping) and all(isinstance(name, str) for name in options)):
        return
    raise StorageOptionError(f"storage_options for {url} must be a dict of options by their names", url=url)


def check_names(options: Mapping[str, Any], known: Iterable[str], *, url: str, within: str = "") -> None:
    """Refuse options with names that nothing would look at.

    Args:
        options: What was given.
        known: All names that there are.
        url: The storage's root, without credentials.
        within: The name of the option that holds these.

    Raises:
        StorageOptionError: One is unknown.
    """
    known = set(known)
    for name in options:
        if name not in known:
            raise StorageOptionError(f"Can't use {url}: {_no_such_option(str(name), known, within)}", url=url)


def check_nested(options: Mapping[str, Any], names: Iterable[str], *, url: str) -> None:
    """Refuse options that hold options of their own, and do not.

    Raises:
        StorageOptionError: One is no mapping.
    """
    for name in names:
        value = _value(options, name)
        if value is not None and not isinstance(value, Mapping):
            raise StorageOptionError(
                f"the storage option {name} of {url} is a dict of options of its own: write {name}={{…}}, or -o "
                f"{name}.NAME=VALUE",
                url=url,
            )


def check_values(options: Mapping[str, Any], rules: Rules, *, url: str) -> None:
    """Refuse values that can't be used. None is as if nothing was said.

    Raises:
        StorageOptionError: There is one.
    """
    for name, (is_usable, expected) in rules.items():
        value = _value(options, name)
        if value is not None and not is_usable(value):
            raise StorageOptionError(f"invalid storage option {name} of {url}: expected {expected}", url=url)


def check_whole_text(text: Any, *, name: str, url: str, blanks: bool = True) -> None:
    """Refuse what was copied with more than it is.

    Args:
        text: What was given.
        name: The option or the environment variable that says it.
        url: The storage's root, without credentials.
        blanks: Whether it may have some within.

    Raises:
        StorageOptionError: It is no text, or holds control characters, or blanks at its ends.
    """
    if not isinstance(text, str):
        raise StorageOptionError(f"{name} of {url} must be text, not {type(text).__name__}", url=url)
    for place, part in (("at its end", text[len(text.rstrip()) :]), ("at its beginning", text[: -len(text.lstrip())])):
        if part:
            raise StorageOptionError(f"{name} of {url} has a {_kind(part)} {place}: give it without", url=url)
    odd = next((char for char in text if not char.isprintable() or (char.isspace() and not blanks)), "")
    if odd:
        raise StorageOptionError(f"{name} of {url} has a {_kind(odd)} in it: give it without", url=url)


def check_credential(text: Any, *, name: str, url: str) -> None:
    """Refuse a credential that no request can be made with; nothing of it is repeated.

    Args:
        text: What was given.
        name: Where it comes from.
        url: The storage's root, without credentials.

    Raises:
        StorageOptionError: It is empty, or can't be the value of a header.
    """
    if text == "":
        raise StorageOptionError(f"{name} of {url} is empty: leave it out, or give a value", url=url)
    check_whole_text(text, name=name, url=url)
    if not text.isascii():
        raise StorageOptionError(f"{name} of {url} has a letter in it that is not ASCII: copy it again", url=url)


def check_endpoint(endpoint: Any, *, name: str, url: str) -> None:
    """Refuse an endpoint that no request can go to.

    Args:
        endpoint: What was given; None or "" for none.
        name: The option or the environment variable that says it.
        url: The storage's root, without credentials.

    Raises:
        StorageOptionError: It is no http or https URL.
    """
    if not endpoint:
        return
    if not (isinstance(endpoint, str) and endpoint.startswith(("http://", "https://"))):
        shown = redacted(f"http://{endpoint}")
        remedy = f"write {shown}" if "://" not in str(endpoint) else "write http://host:port"
        raise StorageOptionError(f"{name} of {url} has neither http:// nor https:// before it: {remedy}", url=url)
    check_whole_text(endpoint, name=name, url=url, blanks=False)
    try:
        parts = urlsplit(endpoint)
        is_place = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_place = False
    if not is_place or parts.query or parts.fragment:
        raise StorageOptionError(f"{name} of {url} can't be an endpoint: write http://host:port", url=url)


@contextmanager
def options_refused(
    url: str,
    secrets: Secrets,
    *,
    known: Iterable[str] = (),
    refusals: tuple[type[Exception], ...] = (TypeError, ValueError),
    look: str = _LOOK,
) -> Iterator[None]:
    """Turn what a filesystem, or a client, says of its arguments into an error that does not go away by itself.

    Args:
        url: The storage's root, without credentials.
        secrets: Of the storage.
        known: Names of options, for a hint at the one that was meant.
        refusals: Types of errors that mean this. Those of the operating system never do.
        look: The remedy.

    Raises:
        StorageOptionError: The block raised one of these.
    """
    try:
        yield
    except (OSError, ImportError, MemoryError):
        raise
    except refusals as error:
        failure = refusal(error, url=url, secrets=secrets, known=known, look=look)
        raise failure from secrets.hidden_in(error)


def refusal(
    error: Exception, *, url: str, secrets: Secrets, known: Iterable[str] = (), look: str = _LOOK
) -> StorageOptionError:
    """The error for what a filesystem, or a client, has said of its arguments."""
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected is not None:
        reason = _no_such_option(unexpected[1], set(known))
    else:
        reason = f"{secrets.hidden(str(error)).strip().rstrip('.')}: {look}"
    return StorageOptionError(f"Can't connect to {url}: {reason}", url=url)


def names_no_option(error: Exception) -> bool:
    """Whether a library complains of an option by a name that it does not know."""
    return isinstance(error, TypeError) and _UNEXPECTED.search(str(error)) is not None


def _no_such_option(name: str, known: set[str], within: str = "") -> str:
    prefix = f"{within}." if within else ""
    near = difflib.get_close_matches(name, known, n=1)
    # What is like no name at all may be a value that went astray.
    shown = f"'{prefix}{name}'" if name.isidentifier() else f"of that name in {within}" if within else "of that name"
    return f"there is no storage option {shown}" + (f"; did you mean '{prefix}{near[0]}'?" if near else "")


def _value(options: Any, name: str) -> Any:
    for part in name.split("."):
        options = options.get(part) if isinstance(options, Mapping) else None
    return options


def _kind(part: str) -> str:
    if "\n" in part or "\r" in part:
        return "newline"
    return "tab" if "\t" in part else "blank" if part.isspace() else "control character"
