"""Where the comparisons take place: one folder and one S3 server, the same ones for all methods."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.place import Place
from benchmarks.traffic import Traffic, counting_proxy
from tests.servers import Servers, StorageTarget
from tests.servers.raw import S3Raw
from tests.servers.targets import target_names

__all__ = ["WHERE", "Grounds", "grounds"]

WHERE = {"local": "local folder", "s3": "S3 server"}


@dataclass(frozen=True, slots=True)
class Grounds:
    """Hands out places.

    Attributes:
        s3: A place on the S3 server.
        local: A local folder.
        server: What the S3 server is.
        proxy: The URL of a proxy in front of the S3 server.
        traffic: What the proxy counts.
    """

    s3: Place
    local: Place
    server: str
    proxy: str
    traffic: Traffic

    def new(self, where: str, *, counted: bool = False) -> Place:
        """Return an empty place.

        Args:
            where: ``"local"`` or ``"s3"``.
            counted: Whether what goes to the S3 server is counted.
        """
        place = (self.s3 if where == "s3" else self.local).below(uuid.uuid4().hex)
        return place.through(self.proxy) if counted and where == "s3" else place

    def clear(self, place: Place) -> None:
        """Remove what a method has left in a place: the next one should find as much room."""
        if not place.is_remote:
            shutil.rmtree(place.url, ignore_errors=True)
            return
        raw = S3Raw(self.s3.endpoint, place.key, place.secret, place.bucket, place.prefix)
        for key in raw.keys():  # noqa: SIM118 - no mapping
            raw.client.delete_object(Bucket=place.bucket, Key=f"{place.prefix}/{key}")


@contextlib.contextmanager
def grounds(folder: Path) -> Iterator[Grounds]:
    """Start the S3 server, unless STATEVAULT_TEST_S3_ENDPOINT names one; it ends with the block.

    Args:
        folder: Where the server keeps its data, and the local places lie.
    """
    servers = Servers(folder)
    name = "s3-endpoint" if "s3-endpoint" in target_names() else "juicefs"
    with contextlib.closing(servers):
        s3 = _place(servers.target(name))
        local = Place(str(folder / "local"))
        described = s3.endpoint if name == "s3-endpoint" else "JuiceFS gateway on this machine"
        with counting_proxy(s3.endpoint) as (proxy, traffic):
            yield Grounds(s3, local, described, proxy, traffic)


def _place(target: StorageTarget) -> Place:
    options = target.storage_options
    return Place(target.url, options["endpoint_url"], options["key"], options["secret"])
