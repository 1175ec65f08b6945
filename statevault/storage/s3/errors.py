"""Errors of botocore, and of urllib3 below it, as errors of statevault."""

from __future__ import annotations

from typing import Any

import botocore.exceptions as boto
import urllib3.exceptions as http
from botocore.parsers import ResponseParserError

from statevault.errors import (
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageTimeoutError,
    StorageUnreachableError,
    StoreNotFoundError,
)
from statevault.storage.os_errors import storage_error
from statevault.storage.redaction import redacted

__all__ = [
    "REFUSED_ARGUMENTS",
    "answer",
    "is_conflict",
    "is_missing",
    "is_out_of_range",
    "is_refused_request",
    "translated",
]

_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
_CONFLICT = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_REFUSED = frozenset(
    {"MissingContentMD5", "NotImplemented", "MethodNotAllowed", "InvalidRequest", "MalformedXML", "501", "405", "400"}
)
_ACCESS = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "ExpiredToken",
        "ExpiredTokenException",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "NotSignedUp",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "Unauthorized",
    }
)
_FULL = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
_TRANSIENT = frozenset(
    {
        "BadDigest",
        "BandwidthLimitExceeded",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_REGION = frozenset({"PermanentRedirect", "Redirect", "AuthorizationHeaderMalformed", "301", "307"})
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.ProfileNotFound,
)
_BROKEN = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    http.HTTPError,
)
_LATE = (boto.ReadTimeoutError, http.ReadTimeoutError, TimeoutError)
_CREDENTIALS_REMEDY = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE, or give "
    'storage_options={"key": …, "secret": …} (-o key=… -o secret=…); the key must be allowed to get, put, list and '
    "delete there."
)
_ENDPOINT_REMEDY = 'Check the network, and AWS_ENDPOINT_URL or storage_options={"endpoint_url": …} (-o endpoint_url=…).'
REFUSED_ARGUMENTS = (boto.ValidationError, boto.UnknownEndpointError, boto.InvalidConfigError)
"""Errors of botocore that say that what a client is made of can't be."""


def answer(error: BaseException) -> tuple[str, int]:
    """The server's error code and HTTP status in an error, or in what caused it; ``("", 0)`` without an answer."""
    cause: BaseException | None = error
    while cause is not None:
        response: dict[str, Any] | None = getattr(cause, "response", None)
        if isinstance(response, dict) and "Error" in response:
            code = str(response["Error"].get("Code", ""))
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
            return code, status or (int(code) if code.isdigit() else 0)
        cause = cause.__cause__
    return "", 0


def is_missing(error: BaseException) -> bool:
    """Whether the object (or, where a server does not say it better, its bucket) is not there."""
    return answer(error)[0] in _MISSING


def is_conflict(error: BaseException) -> bool:
    """Whether a conditional put found its condition not met, or another one under way."""
    code, status = answer(error)
    return code in _CONFLICT or status == 412 or (status == 409 and code not in _TRANSIENT)


def is_out_of_range(error: BaseException) -> bool:
    """Whether a range was asked for that begins at or behind the object's end."""
    code, status = answer(error)
    return code == "InvalidRange" or status == 416


def is_refused_request(error: BaseException) -> bool:
    """Whether the server does not take this kind of request at all."""
    return answer(error)[0] in _REFUSED


def translated(error: BaseException, *, url: str, key: str, what: str) -> StorageError:
    """The error of statevault for any other.

    Args:
        error: What was raised.
        url: The storage's root, without credentials.
        key: The object that the call was about, or "".
        what: What was tried, as the beginning of a sentence.
    """
    if isinstance(error, StorageError):
        return error
    code, status = answer(error)
    if code or status:
        return _from_answer(code, status, url=url, key=key, what=f"{what}: {redacted(str(error))} ({code} {status}).")
    text = f"{what}: {redacted(str(error)) or type(error).__name__}."
    if isinstance(error, _NO_CREDENTIALS):
        return StorageAccessError(f"{text} {_CREDENTIALS_REMEDY}", url=url, key=key)
    if isinstance(error, _LATE):
        return StorageTimeoutError(f"{text} The server did not answer in time.", transient=True, url=url, key=key)
    if isinstance(error, _BROKEN):
        return StorageUnreachableError(f"{text} {_ENDPOINT_REMEDY}", transient=True, url=url, key=key)
    if isinstance(error, ResponseParserError):
        return StorageError(f"{text} This is no answer of an S3 server.", transient=True, url=url, key=key)
    if isinstance(error, OSError):
        return storage_error(error, url=url, key=key, what=what)
    return StorageError(f"{text} ({type(error).__name__})", url=url, key=key)


def _from_answer(code: str, status: int, *, url: str, key: str, what: str) -> StorageError:
    if code == "NoSuchBucket":
        return StoreNotFoundError(f"{what} Make the bucket, or check its name in {url}.", url=url, key=key)
    if code in _MISSING:
        return ObjectNotFoundError(f"There is no object {key} in {url}.", url=url, key=key)
    if code in _REGION:
        text = f"{what} The bucket lies in another region: set AWS_REGION."
        return StorageError(text, url=url, key=key)
    if code == "RequestTimeTooSkewed":
        return StorageAccessError(f"{what} Set this machine's clock.", url=url, key=key)
    if code in _ACCESS or status in {401, 403}:
        return StorageAccessError(f"{what} {_CREDENTIALS_REMEDY}", url=url, key=key)
    if code in _FULL or status == 507:
        return StorageFullError(f"{what} Free some space or raise the quota.", url=url, key=key)
    transient = code in _TRANSIENT or status in {408, 429} or (status >= 500 and status != 501)
    return StorageError(what, transient=transient, url=url, key=key)
