"""The bucket in a URL."""

from __future__ import annotations

import re

from statevault.errors import InvalidNameError

__all__ = ["bucket_and_prefix"]

# What botocore takes, and Google in newer words.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Split ``s3://bucket/some/prefix`` into ``"bucket"`` and ``"some/prefix/"``.

    Raises:
        InvalidNameError: There is no bucket, or what can't be one: nothing that may be a secret is repeated then.
    """
    protocol, _, rest = url.partition("://")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    form = f"write {protocol}://bucket/prefix"
    if not bucket:
        raise InvalidNameError(f"{protocol}://{'/…' if prefix else ''} names no bucket: {form}.")
    if "@" in bucket or ":" in bucket:
        raise InvalidNameError(
            f"The {protocol}:// URL holds credentials, or a host with its port: {form}; credentials and endpoint_url "
            "come from the environment or from storage_options (-o endpoint_url=…)."
        )
    if not _BUCKET.fullmatch(bucket):
        raise InvalidNameError(
            f"{bucket[:80]!r} can't be the name of a bucket, which has letters, digits, dots, hyphens and underscores: "
            f"{form}."
        )
    return bucket, f"{prefix}/" if prefix else ""
