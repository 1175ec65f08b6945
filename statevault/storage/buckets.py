"""The bucket in a URL."""

from __future__ import annotations

import re

from statevault.errors import InvalidNameError

__all__ = ["bucket_and_prefix"]

# What botocore takes, and Google in newer words.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
# In place of a bucket, S3 takes the ARN of an access point; here as far as botocore takes it.
_ACCESS_POINT = re.compile(
    r"arn:aws[a-z-]*:"
    r"(?:(?:s3|s3-object-lambda):[a-z0-9-]*:[0-9]{12}:accesspoint[/:][A-Za-z0-9.-]{1,63}"
    r"|s3-outposts:[a-z0-9-]+:[0-9]{12}:outpost[/:][A-Za-z0-9-]{1,63}[/:]accesspoint[/:][A-Za-z0-9-]{1,63})"
    r"(?=/|\Z)"
)
# Ceph's way to name a bucket of another tenant; not a host with its port, nor an access key.
_TENANTS_BUCKET = re.compile(r"(?!A[KS]IA[A-Z0-9]{16}:)[A-Za-z0-9_-]*:(?![0-9]{1,5}$)[A-Za-z0-9._-]{1,255}")


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Split ``s3://bucket/some/prefix`` into ``"bucket"`` and ``"some/prefix/"``.

    The bucket of S3 may be the ARN of an access point, or ``tenant:bucket``.

    Raises:
        InvalidNameError: There is no bucket, or what can't be one: nothing that may be a secret is repeated then.
    """
    protocol, _, rest = url.partition("://")
    rest = rest.rstrip("/")
    bucket, _, prefix = rest.partition("/")
    form = f"write {protocol}://bucket/prefix"
    if protocol.startswith("s3"):
        if access_point := _ACCESS_POINT.match(rest):
            return access_point[0], _folder(rest[access_point.end() + 1 :])
        # A password may have slashes in it.
        if "@" not in rest and _TENANTS_BUCKET.fullmatch(bucket):
            return bucket, _folder(prefix)
        if bucket.startswith("arn:") and "@" not in rest:
            raise InvalidNameError(
                f"{bucket[:80]!r} is not the ARN of an access point, arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME: "
                f"{form}."
            )
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
    return bucket, _folder(prefix)


def _folder(prefix: str) -> str:
    return f"{prefix}/" if prefix else ""
