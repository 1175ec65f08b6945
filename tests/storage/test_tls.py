"""S3 over https, as Amazon's is: the same calls through TLS, with certificates that are made for the test run."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import trustme

from statevault.errors import StorageUnreachableError
from statevault.state_persistence import StateStore
from statevault.storage import Storage, open_storage
from tests.servers import ScriptedAnswer, ScriptedRequest, scripted_server
from tests.servers.commands import ACCESS_KEY, BUCKET, SECRET_KEY, rclone
from tests.state_persistence.components import Folder
from tests.state_persistence.test_received_trees import Arrays

MIB = 1024**2


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of whom the clients trust; the server's own lies beside it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(str(folder / "key.pem"))
    for blob in own.cert_chain_pems:
        blob.write_to_path(str(folder / "cert.pem"), append=True)
    return folder / "authority.pem"


@pytest.fixture(scope="module")
def endpoint(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    certificate = f"--cert={authority.with_name('cert.pem')}", f"--key={authority.with_name('key.pem')}"
    with rclone(tmp_path_factory.mktemp("rclone"), *certificate) as endpoint:
        yield endpoint


def opened(endpoint: str, authority: Path | None, root: str = "root", s3: dict[str, Any] | None = None) -> Storage:
    options = options_for(endpoint, authority) | ({} if s3 is None else {"config_kwargs": {"s3": s3}})
    return open_storage(f"s3://{BUCKET}/{root}", options, retry=None)


def options_for(endpoint: str, authority: Path | None) -> dict[str, Any]:
    client: dict[str, Any] = {} if authority is None else {"verify": str(authority)}
    return {"endpoint_url": endpoint, "key": ACCESS_KEY, "secret": SECRET_KEY, "client_kwargs": client}


@pytest.fixture(autouse=True, scope="module")
def bucket(endpoint: str, authority: Path) -> None:
    opened(endpoint, authority)._client.get().call("create_bucket", Bucket=BUCKET)  # type: ignore[attr-defined]


def test_objects_small_and_large_come_back_whole_or_in_part(endpoint: str, authority: Path) -> None:
    large = np.random.default_rng(0).bytes(40 * MIB + 7)
    with contextlib.closing(opened(endpoint, authority, "objects")) as storage:
        storage.put("small", b"small")
        storage.put("empty", b"")
        assert storage.put("large", [large[: 17 * MIB], memoryview(large)[17 * MIB :]]) == len(large)
        assert [(info.key, info.size) for info in storage.list()] == [
            ("empty", 0),
            ("large", len(large)),
            ("small", 5),
        ]
        assert storage.get("large") == large
        assert storage.get("large", 5, 30 * MIB) == large[5 : 30 * MIB]
        memory = bytearray(20 * MIB)
        storage.get_into("large", 3, memoryview(memory))
        assert memory == large[3 : 3 + 20 * MIB]
        storage.delete(["small", "large"])
        assert [info.key for info in storage.list()] == ["empty"]


def test_states_are_saved_and_loaded(endpoint: str, authority: Path) -> None:
    weights = np.random.default_rng(1).integers(0, 256, 20 * MIB, dtype=np.uint8)
    arrays, folder = Arrays(weights), Folder({f"{i}.txt": f"{i}".encode() for i in range(50)})
    with StateStore(f"s3://{BUCKET}/states", storage_options=options_for(endpoint, authority)) as store:
        store.register("arrays", arrays)
        store.register("folder", folder)
        store.save_state()
        weights[5] += 1
        store.save_state()
        arrays.arrays, expected, folder.files = [], weights.copy(), {}
        store.load_state("latest")
        store.verify()
        assert [info.new_size > MIB // 2 for info in store.states()] == [True, True]
        assert store.states()[1].new_size < 2 * MIB
    assert np.array_equal(arrays.arrays[0], expected)
    assert folder.files["49.txt"] == b"49"


def accepting(requests: list[ScriptedRequest]) -> Callable[[ScriptedRequest], ScriptedAnswer]:
    """Puts that go well, and are noted."""

    def answer(request: ScriptedRequest) -> ScriptedAnswer:
        requests.append(request)
        return ScriptedAnswer(200, b"", {"ETag": '"e"'})

    return answer


@pytest.mark.parametrize("signs", [None, True])
def test_what_tls_protects_is_not_hashed_for_the_signature_unless_that_is_asked_for(
    authority: Path, signs: bool | None
) -> None:
    requests: list[ScriptedRequest] = []
    with scripted_server(accepting(requests), tls=server_context(authority)) as endpoint:
        opened(endpoint, authority, s3=None if signs is None else {"payload_signing_enabled": signs}).put("key", b"x")
    said = requests[-1].headers["X-Amz-Content-SHA256"]
    assert said == "UNSIGNED-PAYLOAD" if signs is None else len(said) == 64
    assert requests[-1].path == f"/{BUCKET}/root/key", "other options of S3 stay as they are"


def config_file(folder: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config").write_text(f"[default]\nregion = us-east-1\n{lines}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))


def test_what_a_configuration_file_says_of_the_signature_holds_as_well(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[ScriptedRequest] = []
    config_file(tmp_path, "s3 =\n  payload_signing_enabled = true", monkeypatch)
    with scripted_server(accepting(requests), tls=server_context(authority)) as endpoint:
        opened(endpoint, authority).put("key", b"x")
    assert len(requests[-1].headers["X-Amz-Content-SHA256"]) == 64


@pytest.mark.parametrize("said_in", ["client_kwargs", "file", "fsspec"])
def test_whatever_says_that_there_is_no_tls_bodies_are_signed_then(
    said_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[ScriptedRequest] = []
    options: dict[str, Any] = {"key": ACCESS_KEY, "secret": SECRET_KEY}
    with scripted_server(accepting(requests)) as endpoint:
        if said_in == "client_kwargs":
            options |= {"endpoint_url": "https://127.0.0.1:1", "client_kwargs": {"endpoint_url": endpoint}}
        elif said_in == "file":
            config_file(tmp_path, f"endpoint_url = {endpoint}\ns3 =\n  addressing_style = path", monkeypatch)
        else:
            monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
            options["config_kwargs"] = {"s3": {"addressing_style": "path"}}
        open_storage(f"s3://{BUCKET}/root", options, retry=None).put("key", b"x")
    assert len(requests[-1].headers["X-Amz-Content-SHA256"]) == 64


def test_an_answer_that_breaks_off_is_no_success(authority: Path) -> None:
    answer = ScriptedAnswer(206, b"x" * 30, headers={"Content-Range": "bytes 0-59/100"}, announced=60)
    with scripted_server(lambda _: answer, tls=server_context(authority)) as endpoint:
        storage = opened(endpoint, authority)
        with pytest.raises(StorageUnreachableError) as caught:
            storage.get_into("key", 0, memoryview(bytearray(60)))
        assert caught.value.transient
        with pytest.raises(StorageUnreachableError):
            storage.get("key", 0, 60)


def test_a_server_that_nobody_vouches_for_gets_nothing(endpoint: str) -> None:
    with pytest.raises(StorageUnreachableError, match=r"certificate verify failed"):
        opened(endpoint, None).put("key", b"secret")


def server_context(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.with_name("cert.pem"), authority.with_name("key.pem"))
    return context
