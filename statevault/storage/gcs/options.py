"""What the options of gcsfs say to the session with Google, and what none can be made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import aiohttp
from fsspec.config import apply_config

from statevault.errors import StorageOptionError
from statevault.storage.gcs.client import endpoint, load_gcsfs, token
from statevault.storage.options import (
    Rules,
    check_credential,
    check_endpoint,
    check_names,
    check_nested,
    check_values,
    check_whole_text,
    is_seconds,
    parameters,
)

__all__ = ["client_settings", "is_told_here"]

# Ways in which gcsfs looks for credentials by itself; all but one of them ask Google, or a person.
_METHODS = frozenset({"anon", "browser", "cache", "cloud", "google_default"})
_RULES: Rules = {"timeout": (is_seconds, "a number of seconds above 0")}


def client_settings(options: Mapping[str, Any], *, url: str) -> dict[str, Any]:
    """The options of the filesystem, with those of fsspec's configuration.

    Args:
        options: The user's.
        url: The storage's root, without credentials.

    Raises:
        ImportError: gcsfs is not installed.
        StorageOptionError: One can't be used.
    """
    filesystem = load_gcsfs(emulated=bool(endpoint(options))).GCSFileSystem
    known = parameters(filesystem)
    check_names(options, known, url=url)
    settings: dict[str, Any] = apply_config(filesystem, dict(options))
    check_names(settings, known, url=url)
    check_nested(settings, ("session_kwargs", "session_kwargs.headers"), url=url)
    session = settings.get("session_kwargs") or {}
    check_names(session, signature(aiohttp.ClientSession).parameters, url=url, within="session_kwargs")
    for name, value in (session.get("headers") or {}).items():
        check_whole_text(value, name=f"session_kwargs.headers.{name}", url=url)
    check_values(settings, _RULES, url=url)
    name = "endpoint_url" if settings.get("endpoint_url") else "STORAGE_EMULATOR_HOST"
    check_endpoint(endpoint(settings), name=name, url=url)
    _check_token(token(settings), url=url)
    return settings


def is_told_here(options: Mapping[str, Any]) -> bool:
    """Whether credentials can be read without asking anybody."""
    given = token(options)
    if isinstance(given, str):
        is_in_file = given == "google_default" and bool(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"))
        return given == "anon" or is_in_file or Path(given).exists()
    return given is not None


def _check_token(given: Any, *, url: str) -> None:
    if not isinstance(given, str) or given in _METHODS:
        return
    check_credential(given, name="token", url=url)
    is_path = given.startswith(("/", "./", "../", "~")) or given.endswith(".json")
    if is_path and not Path(given).exists():
        # gcsfs would take it for the token itself, and send it to Google.
        msg = f"token of {url} names a file that is not there: give the path of a key file"
        raise StorageOptionError(msg, url=url)
