"""What the guide to operations says of permissions is what statevault asks for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from statevault import StateStore, read_tree, write_tree
from statevault.errors import StorageAccessError
from statevault.state_persistence import PersistentStateMixin
from statevault.storage import Body, LocalStorage
from statevault.storage.s3.client import S3Client
from tests.docs.examples import ROOT
from tests.servers import Servers, target_names

GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


class Part(PersistentStateMixin):
    """A component that holds one value."""

    value = 0

    @override
    def save_state(self, path: Path) -> None:
        write_tree(self.value, path)

    @override
    def load_state(self, path: Path) -> None:
        self.value = read_tree(path)


class WithoutDelete(LocalStorage):
    """A storage whose credentials do not allow to delete."""

    @override
    def delete(self, keys: Sequence[str]) -> None:
        raise StorageAccessError("no permission to delete", url=self.url)


class ReadOnly(WithoutDelete):
    """A storage whose credentials allow to read and to list."""

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        raise StorageAccessError("no permission to put", url=self.url, key=key)


def actions_of_requests() -> dict[str, str]:
    """The table of the guide: the S3 action that each request needs."""
    table = GUIDE.partition("| request of statevault | action |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+) \| `(s3:\w+)` \|$", table, flags=re.MULTILINE)
    return {request: action for requests, action in rows for request in re.findall(r"\w+", requests)}


def test_the_policy_has_exactly_the_actions_of_the_table() -> None:
    policy = re.search(r"^```json policy\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    assert policy is not None
    allowed = [action for statement in json.loads(policy[1])["Statement"] for action in statement["Action"]]
    assert sorted(allowed) == sorted(set(actions_of_requests().values()))


@pytest.mark.skipif("moto" not in target_names(), reason="this run uses no storage servers")
def test_no_other_request_is_sent_to_s3(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: set[str] = set()
    call = S3Client.call

    def watched(self: S3Client, method: str, **parameters: Any) -> dict[str, Any]:
        sent.add(method)
        return call(self, method, **parameters)

    monkeypatch.setattr(S3Client, "call", watched)
    target = servers.target("moto")

    class Big(Part):
        """More than one part of an upload, and nothing that can be compressed."""

        @override
        def save_state(self, path: Path) -> None:
            path.write_bytes(os.urandom(40 << 20))

        @override
        def load_state(self, path: Path) -> None:
            assert path.stat().st_size == 40 << 20

    with StateStore(target.url, storage_options=target.storage_options) as store:
        store.register("big", Big())
        first = store.save_state()
        store.save_state()
        store.load_state("latest")
        store.remove([first])
        with pytest.raises(FileNotFoundError):
            store.load_state(first)
    assert sent <= actions_of_requests().keys()
    assert {"put_object", "get_object", "list_objects_v2", "head_object", "upload_part"} <= sent


def test_a_save_needs_no_permission_to_delete(tmp_path: Path) -> None:
    part = Part()
    with StateStore(WithoutDelete(tmp_path)) as store:
        store.register("part", part)
        path = store.save_state()
        part.value = 1
        store.load_state(path)
        with pytest.raises(StorageAccessError):
            store.remove([path])
    assert part.value == 0


def test_a_load_needs_to_read_and_to_list_only(tmp_path: Path) -> None:
    part = Part()
    with StateStore(tmp_path) as store:
        store.register("part", part)
        store.save_state()
    part.value = 1
    with StateStore(ReadOnly(tmp_path)) as reader:
        reader.register("part", part)
        reader.load_state("latest")
        assert reader.verify().name == reader.latest().name  # type: ignore[union-attr] # there is one
    assert part.value == 0
