"""The surroundings of the documents' examples: a folder, the command line, and storage servers."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Servers
from tests.servers.commands import ACCESS_KEY, SECRET_KEY
from tests.servers.raw import GcsRaw, S3Raw

_BUCKET = "my-bucket"


@pytest.fixture(autouse=True)
def _default_port() -> Iterator[None]:
    """The port of the web API for this test alone: examples launch agents with the default one.

    Several test runs on one machine take turns.
    """
    lock = Path(tempfile.gettempdir()) / "statevault-tests-port-8319.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """What an example says of the log holds for its document only."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("statevault")] + ["statevault"]
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name in [*levels, *(name for name in logging.root.manager.loggerDict if name.startswith("statevault"))]:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> Path:
    """The place of a reader who follows a document: an empty folder, and a bucket of both kinds.

    The buckets are reached by the environment variables that the documents name, so that ``s3://my-bucket`` and
    ``gs://my-bucket`` work as they do with Amazon and Google.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    s3, gcs = servers.endpoint("moto"), servers.endpoint("fake-gcs")
    S3Raw(s3, ACCESS_KEY, SECRET_KEY, _BUCKET, "").make_bucket()
    GcsRaw(gcs, _BUCKET, "").make_bucket()
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "STORAGE_EMULATOR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs)
    return tmp_path
