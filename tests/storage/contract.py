"""The contract of a storage, as tests that every backend passes.

A new backend is tested by a subclass with the two fixtures::

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self) -> Storage: ...      # empty

        @pytest.fixture
        def raw(self) -> RawStore: ...         # the same place, without the code under test

What is stored is checked through `raw`, and what is read is stored through it, so that a mistake that a put and a
get share is seen.
"""

from __future__ import annotations

import array
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from statevault.errors import InvalidNameError, ObjectExistsError, ObjectNotFoundError, StorageError
from statevault.storage import Body, Storage, probe
from tests.servers import RawStore

__all__ = ["StorageContract"]

_BIG = 33 * (1 << 20) + 1
ODD_KEYS = (
    "with space/in it",
    "plus+plus",
    "percent%20%2F",
    "question?versionId=abc",
    "hash#1700000000000000",
    "glob[1]*?",
    "ünïcode/日本語/🤖",
    "quotes'\"&<>",
    "equals=and;semicolon,comma@at:colon!$(){}|^`~",
    "dots..inside/...three",
    "back\\slash",
)
BAD_KEYS = (
    "",
    "/absolute",
    "trailing/",
    "a//b",
    "a/./b",
    "../escape",
    "a/../../b",
    "nul\0",
    "line\nbreak",
    ".tmp-x",
    "\ud800",
)


class Repeatable:
    """A body that can be read again and again."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)


class StorageContract:
    """What every storage does."""

    @pytest.fixture
    def storage(self) -> Storage:
        """The empty storage to test."""
        raise NotImplementedError

    @pytest.fixture
    def raw(self) -> RawStore:
        """The same place, seen without it."""
        raise NotImplementedError

    @pytest.fixture
    def replaces_atomically(self) -> bool:
        """Whether a put over an existing object is atomic; statevault itself only ever repeats a put of same bytes."""
        return True

    @pytest.fixture
    def keeps_backslashes(self) -> bool:
        """Whether a backslash in a key stays one; statevault itself puts none into a key."""
        return True

    def test_put_stores_the_bytes_under_the_key(self, storage: Storage, raw: RawStore) -> None:
        assert storage.put("a/b", b"hello") == 5
        assert raw.get("a/b") == b"hello"
        assert raw.keys() == ["a/b"]

    def test_get_reads_what_others_stored(self, storage: Storage, raw: RawStore) -> None:
        raw.put("a/b", b"hello")
        assert storage.get("a/b") == b"hello"

    def test_an_empty_object_is_an_object(self, storage: Storage, raw: RawStore) -> None:
        assert storage.put("empty", b"") == 0
        assert raw.get("empty") == b""
        assert storage.get("empty") == b""
        assert storage.head("empty").size == 0

    def test_every_kind_of_body_is_stored(self, storage: Storage, raw: RawStore) -> None:
        floats = array.array("d", [1.0, 2.0, 3.0])
        bodies: dict[str, tuple[Body, bytes]] = {
            "bytearray": (bytearray(b"xyz"), b"xyz"),
            "floats": (memoryview(floats), floats.tobytes()),
            "strided": (memoryview(b"abcdef")[::2], b"ace"),
            "list": ([b"ab", b"", memoryview(b"cd")], b"abcd"),
            "iterator": (iter([b"ab", b"cd"]), b"abcd"),
            "iterable": (Repeatable(b"ab", b"cd"), b"abcd"),
            "no parts": ([], b""),
        }
        for key, (body, content) in bodies.items():
            assert storage.put(key, body) == len(content)
            assert raw.get(key) == content, key

    def test_a_big_object_arrives_whole(self, storage: Storage, raw: RawStore) -> None:
        content = os.urandom(1 << 20) * 33 + b"!"
        assert storage.put("big", (content[at : at + 700_001] for at in range(0, _BIG, 700_001))) == _BIG
        assert raw.get("big") == content
        assert storage.get("big") == content
        assert storage.get("big", _BIG - 5) == content[-5:]

    def test_a_put_replaces_the_whole_object(self, storage: Storage, raw: RawStore) -> None:
        storage.put("key", b"a long first value")
        storage.put("key", b"short")
        assert raw.get("key") == b"short"
        assert storage.get("key") == b"short"
        assert storage.head("key").size == 5

    @pytest.mark.parametrize("size", [10, 40 << 20], ids=["small", "big"])
    def test_a_body_that_fails_leaves_the_old_object_and_no_debris(
        self, storage: Storage, raw: RawStore, size: int
    ) -> None:
        storage.put("folder/key", b"old")

        def body() -> Iterator[bytes]:
            for _ in range(0, size, 1 << 20):
                yield bytes(1 << 20)
            raise RuntimeError("the disk under the source broke")

        with pytest.raises(RuntimeError, match="source broke"):
            storage.put("folder/key", body())
        with pytest.raises(RuntimeError, match="source broke"):
            storage.put("folder/new", body())
        assert raw.keys() == ["folder/key"]
        assert raw.get("folder/key") == b"old"
        assert [info.key for info in storage.list()] == ["folder/key"]

    @pytest.mark.parametrize(
        ("start", "end", "content"),
        [(0, 10, b"0123456789"), (3, 7, b"3456"), (9, 10, b"9"), (4, None, b"456789"), (10, None, b""), (4, 4, b"")],
    )
    def test_a_range_gives_exactly_its_bytes(
        self, storage: Storage, raw: RawStore, start: int, end: int | None, content: bytes
    ) -> None:
        raw.put("digits", b"0123456789")
        assert storage.get("digits", start, end) == content
        memory = bytearray(b"<" + b"?" * len(content) + b">")
        storage.get_into("digits", start, memoryview(memory)[1:-1])
        assert bytes(memory) == b"<" + content + b">"

    @pytest.mark.parametrize(("start", "end"), [(0, 11), (8, 12), (11, None), (20, 30), (12, 12), (5, 3)])
    def test_a_range_outside_the_object_is_an_error(
        self, storage: Storage, raw: RawStore, start: int, end: int | None
    ) -> None:
        raw.put("digits", b"0123456789")
        with pytest.raises(StorageError, match="digits") as caught:
            storage.get("digits", start, end)
        assert not caught.value.transient
        assert not isinstance(caught.value, ObjectNotFoundError)
        size = (start if end is None else end) - start
        if size >= 0:
            with pytest.raises(StorageError, match="digits") as caught:
                storage.get_into("digits", start, memoryview(bytearray(size)))
            assert not caught.value.transient
            assert not isinstance(caught.value, ObjectNotFoundError)

    def test_a_missing_object_is_not_found(self, storage: Storage) -> None:
        storage.put("folder/there", b"x")
        for key in ("missing", "folder", "folder/missing", "folder/there/below"):
            for read in (
                storage.get,
                storage.head,
                lambda key: storage.get(key, 2, 5),
                lambda key: storage.get(key, 2, 2),
                lambda key: storage.get_into(key, 2, memoryview(bytearray(3))),
            ):
                with pytest.raises(ObjectNotFoundError) as caught:
                    read(key)
                assert caught.value.key == key
                assert key in str(caught.value)
                assert not caught.value.transient
            assert not storage.exists(key)
        assert storage.exists("folder/there")

    def test_head_describes_the_object(self, storage: Storage, raw: RawStore) -> None:
        raw.put("a/b", b"hello")
        info = storage.head("a/b")
        assert (info.key, info.size) == ("a/b", 5)
        assert info.modified is not None
        assert info.modified.utcoffset() is not None

    def test_an_empty_store_lists_nothing(self, storage: Storage) -> None:
        assert list(storage.list()) == []
        assert list(storage.list("a/b")) == []

    def test_list_is_sorted_by_whole_keys(self, storage: Storage, raw: RawStore) -> None:
        keys = ["a/b", "a-b", "a.b", "a/b-c", "a0", "a/c/d", "B", "é", "z/y/x", "a b"]
        for key in keys:
            raw.put(key, key.encode())
        listed = list(storage.list())
        assert [info.key for info in listed] == sorted(keys)
        assert all(info.size == len(info.key.encode()) for info in listed)

    def test_list_takes_any_string_as_prefix(self, storage: Storage, raw: RawStore) -> None:
        keys = ["a/b/1", "a/b/2", "a/bc", "a/bd/3", "ab", "c"]
        for key in keys:
            raw.put(key, b"x")
        for prefix in ("", "a", "a/", "a/b", "a/b/", "a/b/1", "a/b/1x", "a/bd", "ab/", "x", "x/y"):
            assert [info.key for info in storage.list(prefix)] == [key for key in keys if key.startswith(prefix)]

    def test_more_objects_than_one_page_are_listed_and_deleted(self, storage: Storage, raw: RawStore) -> None:
        keys = [f"many/{number:04}" for number in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: storage.put(key, b"x"), keys))
        assert [info.key for info in storage.list("many/")] == keys
        storage.delete(keys[1:])
        assert raw.keys() == keys[:1]

    def test_delete_removes_exactly_the_given_keys(self, storage: Storage, raw: RawStore) -> None:
        for key in ("glob[1]*", "glob1x", "glob[1]*more", "dir/a", "dir/b", "dirt"):
            raw.put(key, b"x")
        storage.delete(["glob[1]*", "dir/a", "missing", "dir/missing/deep", "dir/a"])
        assert raw.keys() == ["dir/b", "dirt", "glob1x", "glob[1]*more"]

    def test_deleting_nothing_is_no_error(self, storage: Storage) -> None:
        storage.delete([])
        storage.delete(["missing"])

    def test_what_was_deleted_is_gone_at_once(self, storage: Storage) -> None:
        storage.put("a/b", b"1")
        assert [info.key for info in storage.list()] == ["a/b"]
        storage.delete(["a/b"])
        assert list(storage.list()) == []
        assert not storage.exists("a/b")
        storage.put("a/b", b"2")
        assert storage.get("a/b") == b"2"

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_a_key_is_kept_as_it_is(self, storage: Storage, raw: RawStore, key: str, keeps_backslashes: bool) -> None:
        if "\\" in key and not keeps_backslashes:
            pytest.skip("this server takes a backslash for a slash")
        storage.put(key, b"odd")
        assert raw.keys() == [key]
        assert raw.get(key) == b"odd"
        assert storage.get(key) == b"odd"
        assert storage.get(key, 1, 2) == b"d"
        assert storage.head(key).key == key
        assert [info.key for info in storage.list(key[:-1])] == [key]
        storage.delete([key, "other"])
        assert raw.keys() == []

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_key_that_can_not_be_kept_is_refused(self, storage: Storage, raw: RawStore, key: str) -> None:
        for call in (
            storage.get,
            storage.head,
            storage.exists,
            lambda key: storage.put(key, b""),
            lambda key: storage.delete([key]),
        ):
            with pytest.raises(InvalidNameError):
                call(key)
        assert raw.keys() == []

    @pytest.mark.parametrize("prefix", ["/", "../", "a//b", "a\n"])
    def test_a_prefix_that_no_key_has_is_refused(self, storage: Storage, prefix: str) -> None:
        with pytest.raises(InvalidNameError):
            storage.list(prefix)

    @pytest.mark.parametrize("size", [5, 20 << 20], ids=["small", "big"])
    def test_create_only_takes_the_same_bytes_for_its_own(self, storage: Storage, raw: RawStore, size: int) -> None:
        content = b"x" * size
        assert storage.put("once", content, create_only=True) == size
        assert storage.put("once", content, create_only=True) == size
        assert storage.put("once", [content[:3], content[3:]], create_only=True) == size
        assert raw.get("once") == content

    def test_create_only_never_replaces_where_the_probe_says_so(self, storage: Storage, raw: RawStore) -> None:
        if not probe(storage).create_only:
            storage.put("once", b"first", create_only=True)
            storage.put("once", b"second", create_only=True)
            assert raw.get("once") == b"second"  # What the probe saw is true.
            return
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda number: _created(storage, "once", b"%d" % number), range(16)))
        assert outcomes.count(True) == 1
        assert raw.get("once") == b"%d" % outcomes.index(True)
        with pytest.raises(ObjectExistsError, match="once") as caught:
            storage.put("once", b"other", create_only=True)
        assert caught.value.key == "once"

    def test_a_probe_leaves_nothing_behind(self, storage: Storage, raw: RawStore) -> None:
        found = probe(storage)
        assert found.ranges
        assert found.reads_own_writes
        assert found.exact_keys
        assert raw.keys() == []

    def test_a_new_object_appears_as_a_whole(self, storage: Storage) -> None:
        content = bytes(300_000)
        written: list[str] = []
        done = threading.Event()

        def write() -> None:
            try:
                for number in range(40):
                    storage.put(f"new/{number}", content)
                    written.append(f"new/{number}")
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            while not done.is_set():
                before = set(written)
                listed = list(storage.list("new/"))
                assert before <= {info.key for info in listed}
                assert {info.size for info in listed} <= {len(content)}
                if listed:
                    assert storage.get(listed[-1].key) == content
            writer.result()

    def test_readers_see_the_old_or_the_new_object_and_nothing_else(
        self, storage: Storage, replaces_atomically: bool
    ) -> None:
        if not replaces_atomically:
            pytest.skip("this server takes an object away for a moment while it is replaced")
        versions = [bytes([number]) * 300_000 for number in range(2)]
        storage.put("key", versions[0])
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                for version in versions:
                    storage.put("key", version)

        with ThreadPoolExecutor(2) as pool:
            writers = [pool.submit(write) for _ in range(2)]
            try:
                for _ in range(25):
                    assert storage.get("key") in versions
                    assert [(info.key, info.size) for info in storage.list()] == [("key", 300_000)]
            finally:
                stop.set()
            for writer in writers:
                writer.result()

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_can_use_it(self, storage: Storage, raw: RawStore) -> None:
        storage.put("parent", b"1")
        child = os.fork()
        if not child:
            signal.alarm(60)
            try:
                # In a process of its own memory:// is empty.
                storage.put("child", b"2")
                os._exit(0 if storage.get("child") == b"2" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert storage.get("parent") == b"1"
        if not storage.url.startswith("memory:"):
            assert raw.get("child") == b"2"

    def test_a_path_reads_the_object(self, storage: Storage) -> None:
        storage.put("folder/file.txt", b"hello")
        path = storage.path("folder/file.txt")
        assert path.read_bytes() == b"hello"
        assert path.name == "file.txt"
        assert path.stat().st_size == 5
        assert [child.name for child in storage.path("folder").iterdir()] == ["file.txt"]
        storage.put("folder/later.txt", b"x")
        assert sorted(child.name for child in storage.path("folder").iterdir()) == ["file.txt", "later.txt"]

    def test_a_message_names_the_store(self, storage: Storage) -> None:
        with pytest.raises(ObjectNotFoundError, match="missing") as caught:
            storage.get("missing")
        assert caught.value.url == storage.url


def _created(storage: Storage, key: str, content: bytes) -> bool:
    try:
        storage.put(key, content, create_only=True)
    except ObjectExistsError:
        return False
    except StorageError as error:
        # Another one was just being written (409): not this one, either.
        if not error.transient:
            raise
        return False
    return True
