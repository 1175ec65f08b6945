"""Objects as bytes under keys, on a local disk, in S3, in GCS, or wherever fsspec reaches.

This package is the only one that talks to fsspec and that knows the quirks and the errors of backends.
"""

from statevault.storage.fsspec_storage import FsspecStorage
from statevault.storage.interface import Body, Buffer, ObjectInfo, Storage
from statevault.storage.local.storage import LocalStorage
from statevault.storage.probe import PROBE_PREFIX, Capabilities, probe
from statevault.storage.retry import RetryingStorage, RetryPolicy
from statevault.storage.urls import join_url, local_folder, normalized_url, open_storage, parent_and_name
from statevault.storage.wrapper import StorageWrapper

__all__ = [
    "PROBE_PREFIX",
    "Body",
    "Buffer",
    "Capabilities",
    "FsspecStorage",
    "LocalStorage",
    "ObjectInfo",
    "RetryPolicy",
    "RetryingStorage",
    "Storage",
    "StorageWrapper",
    "join_url",
    "local_folder",
    "normalized_url",
    "open_storage",
    "parent_and_name",
    "probe",
]
