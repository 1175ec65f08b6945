"""Four writers and two pruners in one store, killed and restarted at random, while a checker looks on."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time

import pytest

from statevault.errors import StatePrunedError
from statevault.state_persistence import StateStore
from statevault.storage import open_storage
from tests.profiles import rounds
from tests.servers import Servers, StorageTarget
from tests.state_persistence.components import Folder
from tests.state_persistence.crowd import Crowd, News, content_of, prune, write
from tests.state_persistence.garbage import check_no_garbage

SECONDS = rounds(short=12, long=120)
LEAST_KILLS = rounds(short=6, long=60)
WRITERS, PRUNERS = 4, 2
LONGEST_LIFE_S = 1.5


@pytest.mark.parametrize("backend", ["local", "juicefs", pytest.param("seaweedfs", marks=pytest.mark.long)])
def test_writers_and_pruners_that_are_killed_never_break_a_promise(backend: str, servers: Servers) -> None:
    target = servers.target(backend)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["statevault.state_persistence", "s3fs", "tests.state_persistence.crowd"])
    source = random.Random(SECONDS)
    crowd = Crowd(context, target.url, dict(target.storage_options), source)
    looks = 0
    try:
        for role in [write] * WRITERS + [prune] * PRUNERS:
            crowd.start(role)
        end = time.monotonic() + SECONDS
        longest_life_s = LONGEST_LIFE_S
        next_kill = time.monotonic() + longest_life_s
        while time.monotonic() < end or crowd.kills < LEAST_KILLS or not has_done_all(crowd):
            looks += look_around(target, crowd)
            while time.monotonic() > next_kill:
                crowd.replace_one()
                next_kill += source.uniform(0, longest_life_s)
            if time.monotonic() > end and crowd.kills >= LEAST_KILLS:
                # Nobody lives long enough to get something done: they are left alone for longer and longer.
                longest_life_s *= 1.5
                next_kill = time.monotonic() + longest_life_s
    finally:
        crowd.end()
    look_around(target, crowd)
    with contextlib.closing(open_storage(target.url, target.storage_options)) as storage:
        check_no_garbage(storage)
    told = ", ".join(f"{crowd.told[kind]} {kind.value}" for kind in News)
    print(f"{backend}: {SECONDS} s, {crowd.kills} kills, {told}, {looks} states loaded and compared")
    assert not crowd.failures, crowd.failures[:3]


def has_done_all(crowd: Crowd) -> bool:
    return all(crowd.told[kind] for kind in (News.SAVED, News.REMOVED, News.PINNED, News.COLLECTED))


def look_around(target: StorageTarget, crowd: Crowd) -> int:
    """Check that what must be there is there, and that all that is there is whole.

    Returns:
        How many states were loaded.
    """
    crowd.hear()
    acknowledged = set(crowd.names[News.SAVED])
    pinned = set(crowd.names[News.PINNED])
    folder = Folder()
    looked_at = 0
    with StateStore(target.url, storage_options=target.storage_options) as store:
        store.register("folder", folder)
        names = store.names()
        # Whoever removes or unpins says so before: what is heard after the look tells what may be missing in it.
        crowd.hear()
        missing = acknowledged - crowd.names[News.REMOVING] - set(names)
        assert not missing, f"acknowledged, and nobody removed them: {missing}"
        unpinned = pinned - crowd.names[News.UNPINNING] - set(names)
        assert not unpinned, f"pinned, and gone: {unpinned}"
        for name in names:
            try:
                state = store.load_state(name)
            except StatePrunedError:
                crowd.hear()
                assert name in crowd.names[News.REMOVING], f"{name} is gone, and nobody removed it"
                continue
            number = state.metadata["number"]
            assert isinstance(number, int)
            assert folder.files == content_of(number)
            looked_at += 1
    return looked_at
