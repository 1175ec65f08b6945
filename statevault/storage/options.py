"""What is wrong with storage options, said in one line that names the option and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from statevault.errors import StorageOptionError
from statevault.storage.redaction import redacted

__all__ = ["check_endpoint", "check_nested", "options_refused"]

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


def check_endpoint(endpoint: Any, *, name: str, url: str) -> None:
    """Refuse an endpoint that no request can go to.

    Args:
        endpoint: What was given; None or "" for none.
        name: The option or the environment variable that says it.
        url: The storage's root, without credentials.

    Raises:
        StorageOptionError: It is no http or https URL.
    """
    if endpoint and not (isinstance(endpoint, str) and endpoint.startswith(("http://", "https://"))):
        shown = redacted(f"http://{endpoint}")
        remedy = f"write {shown}" if "://" not in str(endpoint) else "write http://host:port"
        raise StorageOptionError(f"{name} of {url} has neither http:// nor https:// before it: {remedy}", url=url)


def check_nested(options: Mapping[str, Any], names: Iterable[str], *, url: str) -> None:
    """Refuse options that hold options of their own, and do not.

    Raises:
        StorageOptionError: One is no mapping.
    """
    for name in names:
        if options.get(name) is not None and not isinstance(options[name], Mapping):
            raise StorageOptionError(
                f"the storage option {name} of {url} is a dict of options of its own: write {name}={{…}}, or -o "
                f"{name}.NAME=VALUE",
                url=url,
            )


@contextmanager
def options_refused(
    url: str, *, known: Iterable[str] = (), refusals: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what a filesystem, or a client, says of its arguments into an error that does not go away by itself.

    Args:
        url: The storage's root, without credentials.
        known: Names of options, for a hint at the one that was meant.
        refusals: Types of errors that mean the same, beside TypeError and ValueError.

    Raises:
        StorageOptionError: The block raised one of these.
    """
    kinds: tuple[type[Exception], ...] = (TypeError, ValueError, *refusals)
    try:
        yield
    except kinds as error:
        if isinstance(error, OSError):
            raise
        unexpected = _UNEXPECTED.search(str(error))
        if unexpected is None:
            reason = f"{redacted(str(error)).rstrip('.')}: look at the storage options (-o, storage_options=)"
        else:
            name = unexpected[1]
            near = difflib.get_close_matches(name, known, n=1)
            reason = f"there is no storage option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        raise StorageOptionError(f"Can't connect to {url}: {reason}", url=url) from error
