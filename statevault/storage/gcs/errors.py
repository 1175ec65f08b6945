"""Errors of Google Cloud Storage's JSON API, of aiohttp and of google-auth, as errors of statevault."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import google.auth.exceptions as auth
import requests.exceptions as requests

from statevault.errors import (
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageOptionError,
    StorageTimeoutError,
    StorageUnreachableError,
)
from statevault.process_limits import scarce
from statevault.storage.os_errors import storage_error
from statevault.storage.redaction import Secrets, chain

__all__ = ["Refusal", "is_busy", "translated"]

# https://cloud.google.com/storage/docs/json_api/v1/status-codes: 403 stands for these two as well.
_RATE_LIMITS = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_BROKEN = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientOSError,
    aiohttp.ClientPayloadError,
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientResponseError,
    auth.TransportError,
    requests.ConnectionError,
    requests.ConnectTimeout,
)
_CREDENTIALS_REMEDY = (
    "Set GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth application-default login`, or give "
    'storage_options={"token": …} (-o token=…); the account must be allowed to get, put, list and delete objects there.'
)
_ENDPOINT_REMEDY = (
    'Check the network, and STORAGE_EMULATOR_HOST or storage_options={"endpoint_url": …} (-o endpoint_url=…).'
)
_LENDER_REMEDY = "Check the network, and token=: what is not the path of a file is taken for the token itself."
_OPTIONS_REMEDY = "Look at the storage options (-o, storage_options=), token and session_kwargs above all."


class Refusal(Exception):  # noqa: N818 - an answer first; it becomes an error when it is translated
    """An answer of the server with an HTTP status of 400 or more.

    Attributes:
        status: The HTTP status.
        reason: Google's name of the error; may be empty.
    """

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.reason, message = _parsed(body)
        super().__init__(message or f"HTTP status {status}")


def translated(error: BaseException, *, url: str, key: str, what: str, secrets: Secrets) -> StorageError:
    """The error of statevault for one of GCS.

    Args:
        error: What was raised.
        url: The storage's root, without credentials.
        key: The object that the call was about, or "".
        what: What was tried, as the beginning of a sentence.
        secrets: What the error may hold, and nobody must see.
    """
    if isinstance(error, StorageError):
        return error
    reason = secrets.hidden(str(error)).strip().rstrip(".")
    text = f"{what}: {reason or type(error).__name__}."
    if isinstance(error, Refusal):
        return _from_answer(error, url=url, key=key, text=text)
    if why := next(filter(None, map(scarce, chain(error, contexts=True))), ""):
        return StorageError(f"{what}: {why}.", url=url, key=key)
    if isinstance(error, requests.ConnectionError) and _in_auth(error):
        return StorageUnreachableError(f"{text} {_LENDER_REMEDY}", transient=True, url=url, key=key)
    # A connection that was never made is a timeout to aiohttp; fsspec wraps every timeout in one of its own.
    never_made = any(isinstance(cause, aiohttp.ConnectionTimeoutError) for cause in chain(error))
    if never_made or isinstance(error, _BROKEN) or any(map(is_busy, chain(error))):
        return StorageUnreachableError(f"{text} {_ENDPOINT_REMEDY}", transient=True, url=url, key=key)
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        text = f"{what}: {reason or 'too slow'}. The server did not answer in time."
        return StorageTimeoutError(text, transient=True, url=url, key=key)
    if isinstance(error, auth.GoogleAuthError):
        return StorageAccessError(f"{text} {_CREDENTIALS_REMEDY}", url=url, key=key)
    if _in_auth(error):
        return StorageAccessError(f"{text} {_CREDENTIALS_REMEDY}", url=url, key=key)
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, OSError):
        return StorageOptionError(f"{text} {_OPTIONS_REMEDY}", url=url, key=key)
    if isinstance(error, OSError):
        return storage_error(error, url=url, key=key, what=what, hidden=secrets.hidden)
    return StorageError(f"{text} ({type(error).__name__})", url=url, key=key)


def is_busy(error: BaseException) -> bool:
    """Whether those who lend credentials could not be reached, or can't lend any at the moment."""
    return isinstance(error, auth.TransportError) or (isinstance(error, auth.GoogleAuthError) and error.retryable)


def _from_answer(error: Refusal, *, url: str, key: str, text: str) -> StorageError:
    if error.status in {404, 410}:
        return ObjectNotFoundError(f"There is no object {key} in {url}.", url=url, key=key)
    transient = error.status in {408, 429} or (error.status >= 500 and error.status != 501)
    if transient or error.reason in _RATE_LIMITS:
        return StorageError(text, transient=True, url=url, key=key)
    if error.reason == "quotaExceeded":
        return StorageFullError(f"{text} Raise the quota.", url=url, key=key)
    if error.status in {401, 403}:
        return StorageAccessError(f"{text} {_CREDENTIALS_REMEDY}", url=url, key=key)
    return StorageError(text, url=url, key=key)


def _parsed(body: bytes) -> tuple[str, str]:
    """Google's reason and message in the body of an answer, as far as there are any."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return "", body[:200].decode(errors="replace").strip()
    if not isinstance(error, dict):
        return "", str(error)
    details = error.get("errors") or [{}]
    reason = details[0].get("reason", "") if isinstance(details, list) and isinstance(details[0], dict) else ""
    return str(reason), str(error.get("message", ""))


def _in_auth(error: BaseException) -> bool:
    """Whether an error comes from gcsfs' reading of credentials, which raises ValueError, KeyError and others."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "gcsfs.credentials":
            return True
        trace = trace.tb_next
    return False
