"""What the options of gcsfs say to the session with Google, and what none can be made of."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import aiohttp
from fsspec.config import apply_config
from google.oauth2.service_account import Credentials

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
from statevault.storage.redaction import Secrets

__all__ = ["client_settings", "is_told_here"]

# Ways in which gcsfs looks for credentials by itself; all but one of them ask Google, or a person.
_METHODS = frozenset({"anon", "browser", "cache", "cloud", "google_default"})
# What is meant as a path, though it names nothing. It is certain enough to be repeated in an error, or only probable:
# tokens of Google begin with "ya29.", or with a number and a slash.
_PATH = re.compile(r"[/~.].*|.*\.(json|key|p12|pem|txt)")
_LIKE_A_PATH = re.compile(r"(?!ya29\.|\d+/).*/.*")
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
        return given == "anon" or is_in_file or _is_there(given)
    return given is not None


def _check_token(given: Any, *, url: str) -> None:
    in_environment = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if given == "google_default" and in_environment:
        _read_key(in_environment, name="GOOGLE_APPLICATION_CREDENTIALS", url=url)
    elif isinstance(given, Mapping):
        _check_key(given, name=f"token of {url}", url=url)
    elif isinstance(given, str) and given not in _METHODS:
        check_credential(given, name="token", url=url)
        # gcsfs would take what is no file for the token itself, and send it to Google.
        if _is_there(given) or _PATH.fullmatch(given) or _LIKE_A_PATH.fullmatch(given):
            key = _read_key(given, name="token", url=url)
            _check_key(key, name=f"{given}, the token of {url},", url=url)


def _is_there(given: str) -> bool:
    # Not Path.exists(): a token may be too long for the name of a file.
    return os.path.exists(given)  # noqa: PTH110


def _read_key(path: str, *, name: str, url: str) -> Mapping[str, Any]:
    """Read a key file.

    Raises:
        StorageOptionError: There is none that can be read.
    """
    if not _is_there(path):
        reason = "is not there" + (": ~ has no meaning here" if path.startswith("~") else "")
    elif not os.path.isfile(path):  # noqa: PTH113 - see above
        reason = "is a folder, and no key file" if os.path.isdir(path) else "is no file"  # noqa: PTH112
    else:
        try:
            key = json.loads(Path(path).read_bytes())
        except OSError as error:
            reason = f"can't be read ({error.strerror})"
        except ValueError:
            reason = "holds no JSON, and so no key of Google"
        else:
            if isinstance(key, Mapping):
                return key
            reason = "holds JSON, but no key of Google"
    shown = path if _is_there(path) or _PATH.fullmatch(path) else "a file"
    raise StorageOptionError(f"{name} of {url} names {shown}, which {reason}: give the path of a key file", url=url)


def _check_key(key: Mapping[str, Any], *, name: str, url: str) -> None:
    """Refuse a key that gcsfs would not find its credentials in.

    Raises:
        StorageOptionError: It is none of a service account, nor of a user.
    """
    if "private_key" in key:
        try:
            Credentials.from_service_account_info(key)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - what google-auth and cryptography say of any values
            reason = Secrets({"key": dict(key)}).hidden(str(error)).rstrip(".")
            raise StorageOptionError(f"{name} is no usable key of a service account: {reason}", url=url) from None
    elif missing := sorted({"client_id", "client_secret", "refresh_token"} - key.keys()):
        raise StorageOptionError(
            f"{name} lacks {', '.join(missing)}: give the key of a service account or of a user; what else Google's "
            "libraries take goes into GOOGLE_APPLICATION_CREDENTIALS",
            url=url,
        )
