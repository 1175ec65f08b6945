"""What lies in a store, seen without statevault: the ground truth for tests of it."""

from __future__ import annotations

import functools
import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import botocore.config
import botocore.session
from fsspec.implementations.memory import MemoryFileSystem

__all__ = ["GcsRaw", "LocalRaw", "MemoryRaw", "RawStore", "S3Raw"]


class RawStore(ABC):
    """Objects below one root."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Store an object."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Read an object; KeyError if there is none."""

    @abstractmethod
    def keys(self) -> list[str]:
        """All keys, sorted."""


class LocalRaw(RawStore):
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get(self, key: str) -> bytes:
        try:
            return (self.root / key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def keys(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


class MemoryRaw(RawStore):
    """The dict that all of fsspec's memory filesystems share."""

    def __init__(self, root: str) -> None:
        self.root = f"/{root}/"

    def put(self, key: str, data: bytes) -> None:
        MemoryFileSystem(skip_instance_cache=True).pipe_file(self.root + key, data)

    def get(self, key: str) -> bytes:
        data: bytes = MemoryFileSystem.store[self.root + key].getvalue()
        return data

    def keys(self) -> list[str]:
        return sorted(path.removeprefix(self.root) for path in MemoryFileSystem.store if path.startswith(self.root))


@functools.cache  # one for all tests: most of a client's making is reading botocore's description of S3
def _s3_client(endpoint: str, access_key: str, secret_key: str) -> Any:
    return botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=botocore.config.Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class S3Raw(RawStore):
    """A prefix in a bucket, through a plain botocore client."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/"
        self.client = _s3_client(endpoint, access_key, secret_key)

    def make_bucket(self) -> None:
        """Make the bucket if it does not exist."""
        names = {bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]}
        if self.bucket not in names:
            self.client.create_bucket(Bucket=self.bucket)

    def unfinished_uploads(self) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        answer = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        return [upload["Key"].removeprefix(self.prefix) for upload in answer.get("Uploads", ())]

    def abort_uploads(self) -> None:
        """Abort all multipart uploads that are under way."""
        answer = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
        for upload in answer.get("Uploads", ()):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def get(self, key: str) -> bytes:
        try:
            data: bytes = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            raise KeyError(key) from None
        return data

    def keys(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return sorted(name.removeprefix(self.prefix) for name in names if not name.endswith("/"))


class GcsRaw(RawStore):
    """A prefix in a bucket of a GCS emulator, through plain HTTP requests."""

    def __init__(self, endpoint: str, bucket: str, prefix: str) -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self.prefix = f"{prefix}/"

    def make_bucket(self) -> None:
        """Make the bucket if it does not exist."""
        try:
            self._ask("GET", f"storage/v1/b/{self.bucket}")
        except KeyError:
            self._ask("POST", "storage/v1/b?project=test", json.dumps({"name": self.bucket}).encode())

    def put(self, key: str, data: bytes) -> None:
        query = urlencode({"uploadType": "media", "name": self.prefix + key})
        self._ask("POST", f"upload/storage/v1/b/{self.bucket}/o?{query}", data)

    def get(self, key: str) -> bytes:
        return self._ask("GET", f"storage/v1/b/{self.bucket}/o/{quote(self.prefix + key, safe='')}?alt=media")

    def keys(self) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            query = urlencode({"prefix": self.prefix, **({"pageToken": token} if token else {})})
            page = json.loads(self._ask("GET", f"storage/v1/b/{self.bucket}/o?{query}"))
            found += [item["name"].removeprefix(self.prefix) for item in page.get("items", ())]
            token = page.get("nextPageToken", "")
            if not token:
                return sorted(found)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.endpoint}/{path}", data=body, method=method)
        request.add_header("Content-Type", "application/json" if path.endswith("project=test") else "text/plain")
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                data: bytes = response.read()
                return data
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    raise KeyError(path) from None
                raise
