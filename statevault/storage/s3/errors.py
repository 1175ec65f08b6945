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
    StorageOptionError,
    StorageTimeoutError,
    StorageUnreachableError,
    StoreNotFoundError,
)
from statevault.process_limits import scarce
from statevault.storage.os_errors import storage_error
from statevault.storage.redaction import Secrets, chain

__all__ = [
    "NO_CREDENTIALS",
    "answer",
    "demands_digest",
    "is_conflict",
    "is_missing",
    "is_missing_upload",
    "is_out_of_range",
    "is_refused_request",
    "is_unknown_request",
    "translated",
]

_MISSING = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
_CONFLICT = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
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
NO_CREDENTIALS: tuple[type[Exception], ...] = (
    boto.NoCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    *([boto.LoginError] if hasattr(boto, "LoginError") else ()),  # not in the oldest versions
)
"""Errors of botocore where whoever should lend credentials has lent none."""

# What botocore says of options only when it makes the first request, or finds credentials for it.
_UNUSABLE = (
    boto.ConfigParseError,
    boto.EndpointProviderError,
    boto.InvalidConfigError,
    boto.MissingDependencyException,
    boto.ParamValidationError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.UnknownSignatureVersionError,
    boto.UnsupportedSignatureVersionError,
    boto.ValidationError,
)
_UNUSABLE_BY_TRANSPORT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    boto.InvalidProxiesConfigError,
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
_OPTIONS_REMEDY = (
    "Look at the storage options (-o, storage_options=), at the variables of AWS, and at its configuration files."
)


def answer(error: BaseException) -> tuple[str, int]:
    """The server's error code and HTTP status in an error, or in what caused it; ``("", 0)`` without an answer."""
    response = _response(error)
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    return code, status or (int(code) if code.isdigit() else 0)


def _response(error: BaseException) -> dict[str, Any]:
    """What botocore makes of the server's answer in an error, or in what caused it; empty without an answer."""
    responses = (getattr(cause, "response", None) for cause in chain(error))
    return next((found for found in responses if isinstance(found, dict) and "Error" in found), {})


def is_missing(error: BaseException) -> bool:
    """Whether the object (or, where a server does not say it better, its bucket) is not there."""
    return answer(error)[0] in _MISSING


def is_conflict(error: BaseException) -> bool:
    """Whether a conditional put found its condition not met, or another one under way."""
    code, status = answer(error)
    return code in _CONFLICT or status == 412 or (status == 409 and code not in _TRANSIENT)


def is_missing_upload(error: BaseException) -> bool:
    """Whether there is no such upload in parts: it was aborted, or is completed."""
    return answer(error)[0] == "NoSuchUpload"


def is_out_of_range(error: BaseException) -> bool:
    """Whether a range was asked for that begins at or behind the object's end."""
    code, status = answer(error)
    return code == "InvalidRange" or status == 416


def is_refused_request(error: StorageError) -> bool:
    """Whether the server does not take a request of this form, whoever makes it, and whenever."""
    code, status = answer(error)
    is_final = type(error) is StorageError and not error.transient and code not in _REGION and not is_conflict(error)
    return is_final and (400 <= status < 500 or status == 501)


def is_unknown_request(error: StorageError) -> bool:
    """Whether the server does not take a request that is about no object: it may look for one of that name."""
    return isinstance(error, ObjectNotFoundError) or is_refused_request(error)


def demands_digest(error: StorageError) -> bool:
    """Whether a put was refused as its bucket has object lock, and it had no digest of its body."""
    message = str(_response(error).get("Error", {}).get("Message", "")).lower()
    is_named = "content-md5" in message or "x-amz-checksum" in message or answer(error)[0] == "MissingContentMD5"
    return is_named and is_refused_request(error)


def translated(error: BaseException, *, url: str, key: str, what: str, secrets: Secrets) -> StorageError:
    """The error of statevault for any other.

    Args:
        error: What was raised.
        url: The storage's root, without credentials.
        key: The object that the call was about, or "".
        what: What was tried, as the beginning of a sentence.
        secrets: What the error may hold, and nobody must see.
    """
    if isinstance(error, StorageError):
        return error
    reason = secrets.hidden(str(error)).strip().rstrip(".") or type(error).__name__
    code, status = answer(error)
    if code or status:
        return _from_answer(code, status, url=url, key=key, what=f"{what}: {reason} ({code} {status}).")
    text = f"{what}: {reason}."
    if why := next(filter(None, map(scarce, chain(error, contexts=True))), ""):
        return StorageError(f"{what}: {why}.", url=url, key=key)
    if isinstance(error, NO_CREDENTIALS):
        return StorageAccessError(f"{text} {_CREDENTIALS_REMEDY}", url=url, key=key)
    if isinstance(error, _UNUSABLE) or _is_unusable_by_transport(error):
        return StorageOptionError(f"{text} {_OPTIONS_REMEDY}", url=url, key=key)
    if (late := _too_late(error)) is not None:
        text = f"{what}: {reason} ({secrets.hidden(str(late))}). The server did not answer in time."
        return StorageTimeoutError(text, transient=True, url=url, key=key)
    if isinstance(error, _BROKEN):
        return StorageUnreachableError(f"{text} {_ENDPOINT_REMEDY}", transient=True, url=url, key=key)
    if isinstance(error, ResponseParserError):
        return StorageError(f"{text} This is no answer of an S3 server.", transient=True, url=url, key=key)
    if isinstance(error, OSError):
        return storage_error(error, url=url, key=key, what=what, hidden=secrets.hidden)
    return StorageError(f"{text} ({type(error).__name__})", url=url, key=key)


def _too_late(error: BaseException) -> BaseException | None:
    """The time-out in an error, if that is what it tells of; urllib3 has one word for all that can befall a request."""
    if not isinstance(error, (*_LATE, boto.ConnectionClosedError)):
        return None
    causes = chain(error, contexts=True)
    late = next((cause for cause in causes if type(cause) is TimeoutError), None)
    return late or (error if isinstance(error, _LATE) else None)


def _is_unusable_by_transport(error: BaseException) -> bool:
    """Whether it is one of botocore's HTTP client, which stumbled over a value before it could send anything."""
    cause = getattr(error, "kwargs", {}).get("error") if type(error) is boto.HTTPClientError else None
    return isinstance(cause, _UNUSABLE_BY_TRANSPORT) and not isinstance(cause, OSError)


def _from_answer(code: str, status: int, *, url: str, key: str, what: str) -> StorageError:
    if code == "NoSuchBucket":
        return StoreNotFoundError(f"{what} Make the bucket, or check its name in {url}.", url=url, key=key)
    if code in _MISSING:
        return ObjectNotFoundError(f"There is no object {key} in {url}.", url=url, key=key)
    if code in _REGION:
        text = (
            f"{what} The bucket lies in another region: set AWS_DEFAULT_REGION, or "
            'storage_options={"client_kwargs": {"region_name": …}} (-o client_kwargs.region_name=…).'
        )
        return StorageError(text, url=url, key=key)
    if code == "RequestTimeTooSkewed":
        return StorageAccessError(f"{what} Set this machine's clock.", url=url, key=key)
    if code in _ACCESS or status in {401, 403}:
        return StorageAccessError(f"{what} {_CREDENTIALS_REMEDY}", url=url, key=key)
    if code in _FULL or status == 507:
        return StorageFullError(f"{what} Free some space or raise the quota.", url=url, key=key)
    transient = code in _TRANSIENT or status in {408, 429} or (status >= 500 and status != 501)
    return StorageError(what, transient=transient, url=url, key=key)
