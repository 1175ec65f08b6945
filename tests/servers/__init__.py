"""Real storage servers for tests: each runs as a process of its own on a free port of 127.0.0.1.

A test asks for the fixture ``target`` and runs once on every backend, or for ``servers`` and picks one::

    def test_something(target: StorageTarget) -> None:
        store = StateStore(target.url, storage_options=target.storage_options)

With ``STATEVAULT_TEST_S3_ENDPOINT`` (and ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``STATEVAULT_TEST_S3_BUCKET``) or ``STATEVAULT_TEST_GCS_ENDPOINT`` (and ``STATEVAULT_TEST_GCS_BUCKET``) set, the
servers there, such as those of ``docker-compose.yml``, are tested as well. ``STATEVAULT_TEST_SKIP_SERVERS=1``
leaves only the local disk and memory.
"""

from tests.servers.fixtures import Servers, servers, target
from tests.servers.process import ServerStartError, free_port, running_server
from tests.servers.proxy import breaking_proxy, proxy
from tests.servers.raw import RawStore
from tests.servers.scripted import ScriptedAnswer, ScriptedRequest, forwarded, scripted_server
from tests.servers.targets import S3_SERVERS, SERVER_NAMES, StorageTarget, target_names

__all__ = [
    "S3_SERVERS",
    "SERVER_NAMES",
    "RawStore",
    "ScriptedAnswer",
    "ScriptedRequest",
    "ServerStartError",
    "Servers",
    "StorageTarget",
    "breaking_proxy",
    "forwarded",
    "free_port",
    "proxy",
    "running_server",
    "scripted_server",
    "servers",
    "target",
    "target_names",
]
