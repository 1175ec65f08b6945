"""Descriptors that are kept: given up one after the other where there is no other left, and taken back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A process of 64 descriptors, 16 of which it keeps; what it has leaked is never closed.
BEGIN = """
import errno, logging, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from statevault.storage.descriptors import DESCRIPTORS, KeptDescriptors

def open_one():
    return os.open(os.devnull, os.O_RDONLY)

def fails(call):
    try:
        call()
    except Exception as error:
        return error

leaked = []
def leak():
    while len(leaked) < 1000:
        try:
            leaked.append(open_one())
        except OSError as error:
            assert error.errno == errno.EMFILE
            return
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + textwrap.dedent(code), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_each_open_gets_the_place_of_a_kept_one_until_half_of_them_are_left() -> None:
    run("""
        kept = KeptDescriptors()
        kept.begin()
        leak()
        opened = [kept.instead(open_one) for _ in range(8)]
        assert not kept.are_whole
        assert fails(lambda: kept.instead(open_one)).errno == errno.EMFILE
        with kept.to_the_last():
            opened += [kept.instead(open_one) for _ in range(7)]
            assert fails(lambda: kept.instead(open_one)).errno == errno.EMFILE
        for descriptor in opened:
            kept.close(descriptor)
        assert kept.are_whole
        assert fails(open_one).errno == errno.EMFILE
    """)


def test_what_was_given_up_in_vain_is_taken_back() -> None:
    run("""
        kept = KeptDescriptors()
        kept.begin()
        leak()
        class Hidden(RuntimeError): ...
        def needs(count):
            opened = []
            try:
                while len(opened) < count:
                    opened.append(open_one())
            except OSError:
                raise Hidden from None
            finally:
                for descriptor in opened:
                    os.close(descriptor)
        for many in (False, True):
            kept.instead(lambda: needs(0), many=many)
            needed = 0
            def call():
                global needed
                needed += 1
                needs(3)
            kept.instead(call, many=many)
            assert needed <= 4
            assert kept.are_whole
            assert type(fails(lambda: kept.instead(lambda: needs(100), many=many))) is Hidden
            assert kept.are_whole
    """)


def test_an_error_for_another_reason_is_no_reason_to_give_any_up() -> None:
    run("""
        kept = KeptDescriptors()
        kept.begin()
        leak()
        calls = 0
        def call():
            global calls
            calls += 1
            raise error
        for error in (FileNotFoundError("nothing"), OSError(errno.ENOSPC, "full"), PermissionError(errno.EACCES, "no")):
            assert fails(lambda: kept.instead(call)) is error
        assert calls == 3
        assert kept.are_whole
        for descriptor in leaked[:8]:
            os.close(descriptor)
        error = RuntimeError("there are some left")
        assert fails(lambda: kept.instead(call)) is error
        assert calls == 4
    """)


def test_who_finds_none_is_told_of_once_a_minute() -> None:
    done = run("""
        logging.basicConfig()
        DESCRIPTORS.begin()
        leak()
        for _ in range(20):
            DESCRIPTORS.close(DESCRIPTORS.instead(open_one))
    """)
    (line,) = done.stderr.splitlines()
    assert "ulimit -n: 64" in line


def test_nothing_else_is_closed_when_a_daemon_has_closed_all() -> None:
    run("""
        kept = KeptDescriptors()
        kept.begin()
        os.closerange(3, 64)
        leak()
        others = [os.fstat(descriptor) for descriptor in leaked]
        assert fails(lambda: kept.instead(open_one)).errno == errno.EMFILE
        assert [os.fstat(descriptor) for descriptor in leaked] == others
        os.close(leaked.pop())
        os.close(leaked.pop())
        kept.keep()
        with kept.to_the_last():
            kept.close(kept.instead(open_one))  # one of the two that it has now
    """)


def test_a_forked_child_gives_up_its_own() -> None:
    run("""
        DESCRIPTORS.begin()
        leak()
        child = os.fork()
        if child == 0:
            opened = [DESCRIPTORS.instead(open_one) for _ in range(8)]
            os._exit(0 if fails(lambda: DESCRIPTORS.instead(open_one)).errno == errno.EMFILE else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert DESCRIPTORS.are_whole
        opened = [DESCRIPTORS.instead(open_one) for _ in range(8)]
    """)


def test_children_of_another_program_inherit_none() -> None:
    run("""
        import subprocess
        DESCRIPTORS.begin()
        code = "import os; print(len(os.listdir('/proc/self/fd')))"
        counted = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, check=True)
        assert int(counted.stdout) < 8, counted
    """)


@pytest.mark.parametrize("left", [0, 1, 2, 5])
def test_a_store_is_made_also_where_none_can_be_kept(tmp_path: Path, left: int) -> None:
    run(
        """
        from statevault import StateStore
        leak()
        for _ in range(int(sys.argv[2])):
            os.close(leaked.pop())
        StateStore(sys.argv[1])
    """,
        str(tmp_path),
        str(left),
    )


def test_a_store_holds_few_folders_open_where_it_may_have_few_descriptors(tmp_path: Path) -> None:
    run(
        """
        from statevault.storage import LocalStorage
        storage = LocalStorage(sys.argv[1])
        for number in range(200):
            storage.put(f"folder-{number}/object", b"1")
        assert len(os.listdir("/proc/self/fd")) < 16
    """,
        str(tmp_path),
    )


def test_puts_take_turns_where_there_are_not_enough_for_all(tmp_path: Path) -> None:
    run(
        """
        from concurrent.futures import ThreadPoolExecutor
        from statevault.storage import LocalStorage
        storage = LocalStorage(sys.argv[1])
        DESCRIPTORS.begin()
        leak()
        def put(number):
            return storage.put(f"a/{number}/b/c/object", b"1" * number)
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(put, range(1, 100))) == list(range(1, 100))
        assert len(list(storage.list("a/"))) == 99
        assert DESCRIPTORS.are_whole
    """,
        str(tmp_path),
    )


def test_a_folder_that_can_not_be_held_open_is_no_reason_to_fail(tmp_path: Path) -> None:
    run(
        """
        from statevault.storage import LocalStorage
        storage = LocalStorage(sys.argv[1])
        DESCRIPTORS.begin()
        leak()
        for left in range(6):
            for number in range(3):
                storage.put(f"{left}/{number}/object", b"1")
            assert DESCRIPTORS.are_whole
            leak()
            for _ in range(left + 1):
                os.close(leaked.pop())
    """,
        str(tmp_path),
    )
