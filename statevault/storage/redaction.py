"""Keeping credentials out of messages."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

__all__ = ["Secrets", "chain", "redacted"]

# Up to the last @: what is before it may hold some as well.
_USER_INFO = re.compile(r"(?<=://)[^/\s]*@")
_SECRET_QUERY = re.compile(
    r"(?i)([?&](?:[^=&\s]*(?:signature|credential|token|secret|password|key)[^=&\s]*)=)[^&\s'\"]*"
)
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}")
_SECRET_NAME = re.compile(
    r"(?i)key|secret|token|pass|pwd|credential|cookie|header|acct|connection_string|(auth|user)(name|orization)?$"
)
_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
)
# A shorter one would take words out of every message.
_SHORTEST = 4
# A shorter one is only looked for as a word of its own: a key may be "test", and the bucket "test-states".
_DISTINCT = 8
_BEGINS = r"(?:(?<![\w-])|(?<=\\[nrt])|(?<=\\x[0-9a-f]{2})|(?<=%[0-9a-f]{2}))"


def redacted(text: str) -> str:
    """Return a URL, or a text with URLs in it, without user names, passwords and signatures."""
    return _AUTHORIZATION.sub(r"\1 ***", _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub("***@", text)))


def chain(error: BaseException, *, contexts: bool = False) -> Iterator[BaseException]:
    """Yield an error and its causes, each once: they may go in a circle.

    Args:
        error: Where to begin.
        contexts: Follow a cause that is only implied as well, as a printed traceback does.
    """
    seen = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        implied = current.__context__ if contexts and not current.__suppress_context__ else None
        current = implied if current.__cause__ is None else current.__cause__


class Secrets:
    """The credentials of one storage, to be taken out of what libraries say.

    Args:
        options: The storage's options. What has a name like a credential's is one, and so is the user part of a URL.
        url: The storage's URL.
    """

    def __init__(self, options: Mapping[str, Any], url: str = "") -> None:
        self._spellings: set[str] = set()
        proxies = [value for name, value in os.environ.items() if name.lower().endswith("_proxy")]
        users = [part for text in (url, *proxies) for part in _user_info(text)]
        self.add(*_secrets_in(options), *users, *(os.environ.get(name, "") for name in _VARIABLES))

    def add(self, *secrets: str | None) -> None:
        """Learn of more of them, such as those that were found in a file."""
        self._spellings.update(spelling for secret in secrets if secret for spelling in _spellings(secret))

    def hidden(self, text: str) -> str:
        """Return a text of a library without them."""
        return redacted(_pattern(frozenset(self._spellings)).sub("***", text))

    def hidden_in(self, error: BaseException) -> BaseException | None:
        """Take them out of an error of a library, and of what led to it: a traceback shows all of these.

        Returns:
            The error, None if it shows one still.
        """
        for each in chain(error, contexts=True):
            if self._are_in(each):
                each.args = tuple(map(self._hidden_argument, each.args))
                if hasattr(each, "__notes__"):
                    each.__notes__ = list(map(self.hidden, each.__notes__))
        return None if any(map(self._are_in, chain(error, contexts=True))) else error

    def _are_in(self, error: BaseException) -> bool:
        shown = f"{error}\n{error!r}\n{getattr(error, '__notes__', '')}"
        return self.hidden(shown) != shown

    def _hidden_argument(self, argument: Any) -> Any:
        shown = argument if isinstance(argument, str) else repr(argument)
        hidden = self.hidden(shown)
        return argument if hidden == shown else hidden


def _secrets_in(value: Any, *, named: bool = False) -> Iterator[str]:
    """Yield the secrets in options; `named` if the option that holds the value is one by its name."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets_in(inner, named=named or bool(_SECRET_NAME.search(str(name))))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _secrets_in(inner, named=named)
    elif isinstance(value, (str, bytes, int, float)) and not isinstance(value, bool):
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        yield from (text,) if named else _user_info(text)


def _user_info(text: str) -> Iterator[str]:
    """Yield the user part of a URL, as a whole and in its parts."""
    user, at, _ = text.rpartition("://")[2].rpartition("@")
    if at:
        yield user
        for part in user.split(":", 1):
            yield from (part, unquote(part))


def _spellings(secret: str) -> set[str]:
    """All ways in which a library may write a secret, whole or line by line."""
    found: set[str] = set()
    for text in (secret, *secret.split("\n")):
        bare = text.strip()
        data = bare.encode("utf-8", "backslashreplace")
        found |= {bare, quote(data, safe=""), quote_plus(data), quote(data)}
        found |= {repr(bare)[1:-1], repr(data)[2:-1], b64encode(data).decode()}
    return {spelling for spelling in found if len(spelling) >= _SHORTEST}


@lru_cache(maxsize=16)
def _pattern(spellings: frozenset[str]) -> re.Pattern[str]:
    parts = []
    for spelling in sorted(spellings, key=len, reverse=True):
        escaped = re.escape(spelling)
        parts.append(escaped if len(spelling) >= _DISTINCT else rf"{_BEGINS}{escaped}(?![\w-])")
    return re.compile("|".join(parts) or "(?!)", re.IGNORECASE)
