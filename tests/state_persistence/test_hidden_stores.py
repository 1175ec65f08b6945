"""A store that is there and not listed: where a storage takes one key for another, nothing of it is overwritten."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pytest
from typing_extensions import override

from statevault.errors import StateExistsError, StateVaultError, StorageError
from statevault.experiments import CheckpointManager
from statevault.format.keys import FORMAT_KEY
from statevault.state_persistence import StateStore
from statevault.storage import Body, ObjectInfo
from tests.experiments.objects import Counting
from tests.state_persistence.components import Folder, some_files, store_with
from tests.state_persistence.spool.spooling import spooled, until
from tests.state_persistence.storages import DictStorage


class Place(DictStorage):
    """A place in a bucket that stores objects under other keys than it is told; a list shows them as they are stored.

    Args:
        bucket: The objects of the whole bucket.
        stored: Makes of a key the one under which the object lies.
        root: What the keys of the place begin with, as the URL spells it.
    """

    def __init__(self, bucket: DictStorage, stored: Callable[[str], str], root: str = "a/store/") -> None:
        super().__init__()
        self._bucket = bucket
        self._stored = stored
        self._root = root

    def _key(self, key: str) -> str:
        return self._stored(self._root + key)

    @override
    def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
        return self._bucket.put(self._key(key), body, create_only=create_only)

    @override
    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._bucket.get(self._key(key), start, end)

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in self._bucket.list(self._root + prefix):
            yield ObjectInfo(info.key.removeprefix(self._root), info.size)

    @override
    def delete(self, keys: Sequence[str]) -> None:
        self._bucket.delete([self._key(key) for key in keys])


def without_ends(key: str) -> str:
    return "/".join(segment.rstrip(". ") for segment in key.split("/"))


def composed(key: str) -> str:
    return unicodedata.normalize("NFC", key)


ALIASES = {
    "//": (lambda key: key.replace("//", "/"), "a/store/", "a//store/"),
    "backslash": (lambda key: key.replace("\\", "/"), "a/store/", "a\\store/"),
    "capitals": (str.lower, "a/store/", "a/Store/"),
    "decomposed": (composed, "a/d\u00e9p\u00f4t/", "a/de\u0301po\u0302t/"),
    "quoted": (unquote, "a/store/", "a%2Fstore/"),
    "dot at the end": (without_ends, "a/store/", "a/store./"),
    "whatever it is": (lambda key: key.replace("~", ""), "a/store/", "a/~store/"),
}
"""Under which key an object lies; the root of a store; and what is another spelling of it."""


@pytest.fixture(params=ALIASES)
def alias(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Another spelling of a place in which states lie. In the end nothing has changed there."""
    stored, root, spelled = ALIASES[request.param]
    bucket = DictStorage()
    place = Place(bucket, stored, root)
    for number, name in enumerate(("best.state", "second.state")):
        with store_with(place, folder=Folder(some_files(number))) as store:
            store.save_state(name=name)
    CheckpointManager(Place(bucket, stored, f"{root}experiment/")).initialize([Counting("a", 5)], "problem", 1)
    before = dict(bucket.objects)
    yield Place(bucket, stored, spelled)
    assert bucket.objects == before
    for name in StateStore(place).names():
        StateStore(place).verify(name)


@pytest.mark.parametrize("name", ["best.state", None])
def test_a_save_ends_before_it_overwrites_anything(alias: Place, name: str | None) -> None:
    with store_with(alias, folder=Folder(some_files(3))) as store:
        for _ in range(2):
            with pytest.raises(
                StorageError, match=r"_vault/ids/.*listing does not show it.*another spelling"
            ) as caught:
                store.save_state(name=name)
            assert not caught.value.transient
        with pytest.raises(StorageError, match="another spelling"):
            store.save_state_async(name=name).result()
        assert store.names() == []


def test_so_does_an_import(alias: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(StorageError, match="another spelling"):
        StateStore(alias).import_folder(tmp_path, name="best.state")


def test_so_does_a_copy_however_often_it_is_tried(alias: Place) -> None:
    source = DictStorage()
    with store_with(source, folder=Folder(some_files(7))) as store:
        store.save_state(name="best.state")
        for _ in range(3):
            with pytest.raises(StorageError, match="another spelling"):
                store.copy_states(StateStore(alias))


def test_so_does_replication_which_keeps_what_it_could_not_copy(alias: Place, tmp_path: Path) -> None:
    folder = Folder(some_files(7))
    with spooled(alias, tmp_path, folder) as store:
        store.save_state(name="best.state")
        until(lambda: (status := store.replication()) is not None and status.failures > 0)
        status = store.replication()
        assert status is not None
        assert status.pending == 1
        assert "another spelling" in str(status.last_error)


def test_what_removes_finds_nothing_there(alias: Place) -> None:
    with StateStore(alias) as store:
        assert store.remove(["best.state"]).removed == ()
        store.gc()
        with pytest.raises(StateVaultError):
            store.pin("best.state")
        assert store.unpin("best.state") == 0


def test_an_experiment_is_not_begun_where_its_claim_is_not_listed(alias: Place) -> None:
    place = Place(alias._bucket, alias._stored, f"{alias._root}other/")
    with pytest.raises(StorageError, match="claims/metadata/.*listing does not show it"):
        CheckpointManager(place).initialize([Counting("a", 5)], "problem", 1)


def test_the_description_of_a_store_of_a_newer_version_is_not_overwritten() -> None:
    bucket = DictStorage()
    newer = b'{"format": "statevault", "version": 2}'
    bucket.put("a/store/" + FORMAT_KEY, newer)
    with (
        store_with(Place(bucket, str.lower, "a/Store/"), folder=Folder(some_files(1))) as store,
        pytest.raises(StorageError, match="another spelling"),
    ):
        store.save_state()
    assert bucket.get("a/store/" + FORMAT_KEY) == newer


@pytest.mark.parametrize(
    ("stored", "name"),
    [(str.lower, "Best.state"), (without_ends, "best.state."), (lambda key: key.replace("~", ""), "b~est.state")],
    ids=["capitals", "dot at the end", "whatever it is"],
)
def test_a_name_that_is_taken_for_another_one_is_refused_before_its_state_is_overwritten(
    stored: Callable[[str], str], name: str
) -> None:
    place = Place(DictStorage(), stored)
    with store_with(place, folder=(folder := Folder(some_files(1)))) as store:
        store.save_state(name="best.state")
        before = dict(place._bucket.objects)
        folder.files = some_files(2)
        for _ in range(2):
            with pytest.raises(StorageError, match=r"_vault/sessions/.*listing does not show it.*choose"):
                store.save_state(name=name)
            assert place._bucket.objects == before
        store.save_state(name="other.state")
        for state in store.names():
            store.verify(state)


def test_a_storage_that_finds_names_whatever_their_case_refuses_one_that_is_taken() -> None:
    """As disks of macOS and Windows do, whose lists keep the spelling of what was stored first."""

    class Insensitive(DictStorage):
        def _there(self, key: str) -> str:
            return next((there for there in self.objects if there.lower() == key.lower()), key)

        @override
        def put(self, key: str, body: Body, *, create_only: bool = False) -> int:
            return super().put(self._there(key), body, create_only=create_only)

        @override
        def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
            return super().get(self._there(key), start, end)

        @override
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            return (info for info in super().list() if info.key.lower().startswith(prefix.lower()))

    storage = Insensitive()
    with store_with(storage, folder=Folder(some_files(1))) as store:
        store.save_state(name="best.state")
        before = dict(storage.objects)
        with pytest.raises(StateExistsError, match="choose another name"):
            store.save_state(name="Best.state")
        assert storage.objects == before
