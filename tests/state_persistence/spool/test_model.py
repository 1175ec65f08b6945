"""A state machine: saves, outages, crashes, restarts, thinning and prunes in any order, compared with a plain model."""

from __future__ import annotations

import shutil
import tempfile
from itertools import groupby, pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from statevault.state_persistence import StateStore
from statevault.state_persistence.spool.config import Spool
from statevault.state_persistence.spool.folder import SpoolFolder
from statevault.state_persistence.spool.replicator import Replicator
from statevault.storage import RetryPolicy
from tests.profiles import rounds
from tests.state_persistence.components import Folder
from tests.state_persistence.garbage import check_no_garbage
from tests.state_persistence.spool.spooling import content, numbered, save
from tests.state_persistence.storages import DictStorage, FailingStorage, Failure, ProcessDiedError

ONCE = RetryPolicy(max_attempts=1, first_delay_s=0.0, max_delay_s=0.0, deadline_s=0.0)


class SpoolMachine(RuleBasedStateMachine):
    """A spool, a remote, and the numbers of the states that are to get there."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="spool-model-"))
        self.remote = DictStorage()
        self.failing = FailingStorage(self.remote)
        self.starts = 0
        self.last = 0
        self.expected: set[int] = set()
        self.wiped: set[int] = set()
        self.component = Folder()
        self.local = StateStore(self.path)
        self.local.register("folder", self.component)
        self.replicator = self._started()

    def _started(self, max_bytes: int | None = None) -> Replicator:
        self.starts += 1
        folder = SpoolFolder(Spool(self.path, max_bytes=max_bytes, retry=ONCE), self.remote.url)
        return Replicator(folder, self.failing, by=f"process-{self.starts}")

    def _end(self) -> None:
        self.replicator._owner.release()
        self.replicator._folder.close()

    @rule()
    def save(self) -> None:
        self.last += 1
        save(self.local, self.component, self.last)
        self.expected.add(self.last)

    @rule()
    def replicate(self) -> None:
        try:
            self.replicator.run_once()
        except ProcessDiedError:
            self.restart()

    @rule(calls=st.integers(1, 40), failure=st.sampled_from(Failure), dies=st.booleans())
    def fail_soon(self, calls: int, failure: Failure, dies: bool) -> None:
        self._mend()
        self.failing = FailingStorage(self.remote, calls, failure, dies=dies)
        self.restart()

    def _mend(self) -> None:
        self.failing.land()
        self.failing = FailingStorage(self.remote)

    @rule()
    def restart(self) -> None:
        self._end()
        self.failing.dead = False
        self.replicator = self._started()

    @rule(room=st.integers(0, 60_000))
    def thin(self, room: int) -> None:
        folder = SpoolFolder(Spool(self.path, max_bytes=room), self.remote.url)
        waited, here = self._pending(folder), self._numbers(self.local)
        folder.room.bound()
        dropped = waited - self._pending(folder)
        assert self.last not in dropped
        # What had been replicated goes first, also where the remote was wiped since and nobody has looked.
        gone_there = self.wiped - self._numbers(StateStore(self.remote))
        self.expected -= dropped | (gone_there & (here - self._numbers(self.local)))
        folder.close()

    def _pending(self, folder: SpoolFolder) -> set[int]:
        return {int(key.state.partition(".")[0]) for key in folder.pending_keys()}

    def _numbers(self, store: StateStore) -> set[int]:
        return {original(name) for name in store.names()}

    @rule(data=st.data())
    def prune_the_remote(self, data: st.DataObject) -> None:
        names = StateStore(self.remote).names()
        if names:
            name = data.draw(st.sampled_from(names))
            self.expected.discard(original(name))
            StateStore(self.remote).remove([name])

    @rule()
    def clear_the_remote(self) -> None:
        self._mend()
        self.wiped |= self._numbers(StateStore(self.remote))
        self.remote.objects.clear()
        # What the spool still has comes again.
        self.expected = self._numbers(self.local)
        self.restart()

    @invariant()
    def the_remote_is_in_order(self) -> None:
        numbers = [original(name) for name in StateStore(self.remote).names()]
        # The same one twice: its marker landed when it was copied again.
        once = [number for number, _ in groupby(numbers)]
        assert all(older < newer for older, newer in pairwise(once))

    def teardown(self) -> None:
        self._mend()
        self.restart()
        for _ in range(10):
            self.replicator.run_once()
        assert self.replicator.status().pending == 0
        self._end()
        self.the_remote_is_in_order()
        names = StateStore(self.remote).names()
        assert self.expected <= {original(name) for name in names}
        for name in names:
            assert content(StateStore(self.remote), name) == numbered(original(name))
        assert len(StateStore(self.path).names()) <= 1
        check_no_garbage(self.remote)
        shutil.rmtree(self.path)


def original(name: str) -> int:
    """The number of a state, by its name at the remote."""
    return int(name.partition(".")[0].partition("-")[0])


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(
    max_examples=rounds(short=40, long=400),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
