"""Multipart uploads that nobody completed: their parts cost storage, and no listing of objects shows them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

from statevault.errors import StorageAccessError, StorageError
from statevault.storage.s3.client import S3Client
from statevault.storage.s3.errors import is_missing_upload, is_unknown_request

__all__ = ["abort_old_uploads"]

_logger = logging.getLogger(__name__)

Ask: TypeAlias = Callable[[Callable[[S3Client], Any], str, str], Any]
"""Makes a request (given the client, what is tried, and the key that it is about) and returns its answer."""


def abort_old_uploads(ask: Ask, *, url: str, bucket: str, prefix: str, older_than: timedelta) -> int:
    """Abort the uploads of keys with a prefix that began long ago, by the server's clock.

    Args:
        ask: Makes a request.
        url: The storage's root, for messages.
        bucket: The bucket.
        prefix: What the whole keys begin with.
        older_than: How long ago they have begun at least.

    Returns:
        How many; 0, and a warning, where the server or the credentials do not allow to list or to abort them.

    Raises:
        StorageError: The server failed.
    """
    aborted = 0
    try:
        for upload in list(_old_uploads(ask, url, bucket, prefix, older_than)):
            aborted += _abort(ask, url, bucket, upload)
    except StorageError as error:
        if is_missing_upload(error):
            return aborted  # what rclone answers where no upload is under way
        if not isinstance(error, StorageAccessError) and not is_unknown_request(error):
            raise
        _logger.warning(
            "%s Unfinished uploads, if there are any, stay: allow s3:ListBucketMultipartUploads and "
            "s3:AbortMultipartUpload, or give the bucket a lifecycle rule that ends them.",
            error,
        )
    return aborted


def _old_uploads(ask: Ask, url: str, bucket: str, prefix: str, older_than: timedelta) -> Iterator[dict[str, Any]]:
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = ask(
            lambda client: client.call("list_multipart_uploads", **request),  # noqa: B023
            f"Can't list the unfinished uploads of {url}",
            "",
        )
        now = _time_of(page)
        for upload in page.get("Uploads") or ():
            # Some servers do not look at the prefix.
            if upload["Key"].startswith(prefix) and now - upload["Initiated"] >= older_than:
                yield upload
        following = {"Bucket": bucket, "Prefix": prefix}
        for name in ("KeyMarker", "UploadIdMarker"):
            if page.get(f"Next{name}"):
                following[name] = page[f"Next{name}"]
        # A server that says the same page again would say it for ever.
        if not page.get("IsTruncated") or "KeyMarker" not in following or following == request:
            return
        request = following


def _time_of(page: dict[str, Any]) -> datetime:
    """The server's time, as it stands in its answer, in whole seconds; ours, if it does not."""
    try:
        told = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
        # One with the zone -0000 has none here.
        return (told if told.tzinfo else told.replace(tzinfo=UTC)) + timedelta(seconds=1)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _abort(ask: Ask, url: str, bucket: str, upload: dict[str, Any]) -> bool:
    request = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
    try:
        ask(
            lambda client: client.call("abort_multipart_upload", **request),
            f"Can't end the unfinished upload of {upload['Key']} in {url}",
            "",
        )
    except StorageError as error:
        if not is_missing_upload(error):
            raise
        return False  # it was completed, or somebody else was faster
    _logger.info("Ended the upload of %s in %s, which began at %s", upload["Key"], url, upload["Initiated"])
    return True
