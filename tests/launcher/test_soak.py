"""An agent lives for an hour of its time: it is paused, saved, crashed, ended and launched again, on a bad network.

Its states lie on a real S3 server, behind a connection that breaks now and then and at times is gone until saves have
failed. An operator commands it through the web API; a supervisor launches it again from the latest state, whatever
it ended of. What must hold all the while is checked after each launch, on what is in the store and in the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import logging
import os
import re
import signal
import tempfile
import threading
import time as system_time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from statevault import time
from statevault.console import WebApiClient, WebApiUnreachableError
from statevault.errors import StatePrunedError, StorageError
from statevault.launcher import launch
from statevault.state_persistence import StateInfo, StateStore, read_tree
from statevault.storage import open_storage
from statevault.storage.descriptors import DESCRIPTORS
from tests.launcher.outage import Network
from tests.launcher.walker import TrainerCrashError, WalkerSystem
from tests.profiles import rounds
from tests.servers import Servers, StorageTarget, free_port, target_names
from tests.state_persistence.garbage import check_no_garbage

SCALE = 20.0
AGENT_S = rounds(short=150, long=3600)
SHIFT_S = rounds(short=20, long=240)  # agent seconds from a launch until it is ended
SAVE_INTERVAL_S = 1.0
KEPT = 3
PATIENCE_S = 300.0  # how long anything is waited for
# From launch to launch, malloc's bytes in use and the number of objects stay the same. What grows, ever less, is what
# the arenas of malloc keep free (it has several, for the sake of threads): here 14 and 26 MiB over the launches after
# the fourth; over eight plain launches 13 MiB, and with MALLOC_ARENA_MAX=2 less than 2.
LARGEST_GROWTH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds on to."""

    threads: tuple[str, ...]
    files: Counter[str]  # by kind, or path
    staging: frozenset[Path]
    memory: int

    @classmethod
    def now(cls) -> Resources:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free is not held
        roots = (Path("/dev/shm"), Path(tempfile.gettempdir()))  # where states are staged
        resident = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        assert resident is not None
        return cls(
            threads=tuple(thread.name for thread in threading.enumerate()),
            files=_lasting_files(),
            staging=frozenset(path for root in roots for path in root.glob(f"statevault-*/{os.getpid()}-*")),
            memory=int(resident[1]) << 10,
        )


def _lasting_files() -> Counter[str]:
    """What the process has open at each of some looks: threads of other tests open files in passing."""
    found = _open_files()
    for _ in range(3):
        system_time.sleep(0.1)
        found &= _open_files()
    return found


def _open_files() -> Counter[str]:
    """What the process has open, but for what is kept for saves: these come and go with what others leave of them."""
    kept = {str(descriptor) for descriptor in DESCRIPTORS._kept}
    found: Counter[str] = Counter()
    for path in Path("/proc/self/fd").iterdir():
        if path.name not in kept:
            with contextlib.suppress(FileNotFoundError):  # that of this listing
                found[os.readlink(path).partition("[")[0]] += 1  # noqa: PTH115 - what is no path, too
    return found


@dataclass(frozen=True, slots=True)
class Shift:
    """One launch: what the operator does in it again and again, and how it ends."""

    duties: tuple[Callable[[Operator], None], ...]
    end: Callable[[Operator], None]
    crashes: bool = False


class Operator:
    """Commands a running agent by its web API, and looks how it takes that."""

    def __init__(self, soak: Soak, client: WebApiClient) -> None:
        self.soak = soak
        self.client = client

    def work(self, shift: Shift) -> None:
        """Do all duties, again and again until the shift is over."""
        self.until(self.is_reachable)
        over_at = time.time() + SHIFT_S
        duties = itertools.cycle(shift.duties)
        done = 0
        while done < len(shift.duties) or time.time() < over_at:
            next(duties)(self)
            done += 1
            self.until_steps(3)
        self.soak.done["committed"] += self.client.get_system().saves.committed
        shift.end(self)

    # Duties.

    def pause(self) -> None:
        """In a pause nothing moves, and a save of it holds its time."""
        self.client.pause()
        self.until(lambda: self.client.get_status() == "paused")
        before = self.soak.system.counts(), time.time()
        system_time.sleep(0.2)  # agent seconds would be 4
        report = self.client.wait_for_save(self.client.save().id, timeout=PATIENCE_S)
        assert (self.soak.system.counts(), time.time()) == before
        assert report.status == "committed", report
        with contextlib.suppress(StatePrunedError), self.soak.observer() as store:
            metadata = store.info(str(report.state)).metadata
            assert (metadata["counts"], metadata["time"]) == before
        assert self.client.get_status() == "paused"
        self.client.resume()
        self.until(lambda: self.client.get_status() == "active")
        self.soak.done["pauses"] += 1

    def save(self) -> None:
        """A save that is asked for is committed."""
        report = self.client.wait_for_save(self.client.save().id, timeout=PATIENCE_S)
        assert report.status == "committed", report
        self.soak.done["requested saves"] += 1

    def save_over_breaking_connections(self) -> None:
        """Connections that break in the midst of a publish cost tries, not the save."""
        report = self.client.save()
        for _ in range(3):
            self.soak.network.break_connections()
            system_time.sleep(0.02)
        assert self.client.wait_for_save(report.id, timeout=PATIENCE_S).status == "committed"
        self.soak.done["bad moments"] += 1

    def outage(self) -> None:
        """Without a network saves fail, are counted and told of, and the agent goes on; then they succeed again."""
        failed = self.client.get_system().saves.failed
        self.soak.network.go_down()
        report = self.client.wait_for_save(self.client.save().id, timeout=PATIENCE_S)
        assert report.status == "failed", report
        assert "Storage" in str(report.error), report
        self.until_steps(3)
        saves = self.client.get_system().saves
        assert saves.failed > failed
        assert saves.last_error is not None
        assert "no state was saved" in saves.last_error or "retention failed" in saves.last_error, saves
        self.soak.network.come_up()
        # The interval's own save may have begun before, and fail yet: what is asked for now comes after it.
        self.save()
        self.soak.done["failed saves"] += saves.failed - failed
        self.soak.done["outages"] += 1

    def verify(self) -> None:
        """All states verify while others are saved and removed."""
        with self.soak.observer() as store:
            for name in store.names():
                with contextlib.suppress(StatePrunedError):
                    store.verify(name)
                    self.soak.done["verified meanwhile"] += 1

    # Ends.

    def crash(self) -> None:
        """A trainer raises."""
        self.soak.crash.set()

    def crash_without_network(self) -> None:
        """A trainer raises while nothing can be saved."""
        self.soak.network.go_down()
        self.soak.crash.set()

    def terminate(self) -> None:
        """The process manager wants the agent to end."""
        os.kill(os.getpid(), signal.SIGTERM)

    def shut_down(self) -> None:
        """The operator wants the agent to end."""
        self.client.shutdown()

    # Waiting.

    def is_reachable(self) -> bool:
        try:
            self.client.get_status()
        except WebApiUnreachableError:
            return False
        return self.soak.system.walker.set_up_at is not None

    def until_steps(self, count: int) -> None:
        wanted = self.soak.system.walker.count + count
        self.until(lambda: self.soak.system.walker.count >= wanted)

    def until(self, reached: Callable[[], bool]) -> None:
        deadline = system_time.monotonic() + PATIENCE_S
        while not reached():
            assert not self.soak.ended.wait(0.02), "the launch has ended too early"
            assert system_time.monotonic() < deadline, "it did not come to that"


SHIFTS = (
    Shift((Operator.pause, Operator.save, Operator.verify), Operator.crash, crashes=True),
    Shift((Operator.save_over_breaking_connections, Operator.outage), Operator.terminate),
    Shift((Operator.verify, Operator.pause), Operator.crash_without_network, crashes=True),
    Shift((Operator.save_over_breaking_connections, Operator.verify), Operator.shut_down),
)


class Soak:
    """The supervisor: launches the agent again and again, and checks what each launch leaves behind."""

    def __init__(self, target: StorageTarget, network: Network, folder: Path) -> None:
        self.target = target
        self.network = network
        self.folder = folder
        self.port = free_port()
        self.crash = threading.Event()
        self.ended = threading.Event()
        self.system = WalkerSystem(self.crash)
        self.snapshots: list[dict[str, Any]] = []
        self.born_at = 0.0
        self.launches = 0
        self.done: Counter[str] = Counter()

    @contextlib.contextmanager
    def observer(self) -> Iterator[StateStore]:
        """The store, by a network of its own."""
        with StateStore(self.target.url, storage_options=self.target.storage_options) as store:
            yield store

    def launch(self) -> None:
        """Launch a new system from the latest state."""
        self.launches += 1
        self.snapshots = []
        self.system = WalkerSystem(self.crash)
        # The clock of another process would show something else.
        time.load_state_dict({name: shown + 1e6 for name, shown in time.state_dict().items()})
        launch(
            self.system.interaction,
            self.system.models,
            self.system.data,
            self.system.trainers,
            {
                "states_dir": self.target.url,
                "storage_options": {**self.target.storage_options, "endpoint_url": self.network.url},
                "saved_state_path": "latest",
                "save_state_interval": SAVE_INTERVAL_S,
                "state_metadata": self.metadata,
                "max_keep_states": KEPT,
                "max_uptime": 10 * PATIENCE_S,  # whatever happens to the operator
                "web_api_address": ("127.0.0.1", self.port),
                "time_scale": SCALE,
            },
        )

    def metadata(self) -> dict[str, Any]:
        self.snapshots.append({**self.system.metadata(), "launch": self.launches})
        return self.snapshots[-1]

    def live(self, shift: Shift) -> None:
        """One launch, from its begin to its end."""
        resumed = self.state_to_resume()
        began = system_time.perf_counter()
        self.ended.clear()
        with WebApiClient("127.0.0.1", self.port) as client, ThreadPoolExecutor(1) as pool:
            work = pool.submit(self.operate, client, shift)
            try:
                self.launch()
            except TrainerCrashError as error:
                assert shift.crashes
                notes = "".join(getattr(error, "__notes__", ()))
                assert ("the final state was not saved" in notes) == (shift.end is Operator.crash_without_network)
                self.done["crashes"] += 1
            else:
                assert not shift.crashes
            finally:
                self.ended.set()
                work.result(PATIENCE_S)
        self.check_resumed(resumed, began)
        self.check_snapshots(resumed)
        if shift.end is Operator.crash_without_network:
            self.fail_to_launch()
        else:
            self.check_last_state("error: TrainerCrashError: run" if shift.crashes else "clean")
            self.check_retention(resumed)
        self.check_states()

    def operate(self, client: WebApiClient, shift: Shift) -> None:
        try:
            Operator(self, client).work(shift)
        except BaseException:
            self.network.come_up()
            with contextlib.suppress(WebApiUnreachableError):
                client.shutdown()
            raise

    def fail_to_launch(self) -> None:
        """Without a network there is no launch; it is told why, and nothing is lost."""
        with pytest.raises(StorageError):
            self.launch()
        self.network.come_up()
        self.done["failed launches"] += 1

    def age(self) -> float:
        """How long the agent has lived, on its own clock: what a crash has cost does not count."""
        state = self.state_to_resume()
        assert state is not None
        return float(cast("float", state.metadata["time"])) - self.born_at

    # What must hold.

    def state_to_resume(self) -> StateInfo | None:
        with self.observer() as store:
            return next((info for info in reversed(store.states()) if not info.is_after_error), None)

    def check_resumed(self, resumed: StateInfo | None, began: float) -> None:
        """Every part has begun with what the state holds, and the clock with the time of its cut."""
        loaded = {name: part.loaded for name, part in self.system.parts().items()}
        walker = self.system.walker
        assert walker.set_up_at is not None
        if resumed is None:
            assert set(loaded.values()) == {None}
            self.born_at = walker.set_up_at
            return
        assert loaded == resumed.metadata["counts"]
        cut = resumed.metadata["time"]
        assert isinstance(cut, float)
        assert cut <= walker.set_up_at <= cut + SCALE * (walker.set_up_at_real - began)

    def check_snapshots(self, resumed: StateInfo | None) -> None:
        """Neither the time nor a count goes back from one snapshot to the next, nor behind what was loaded."""
        assert self.snapshots
        history: list[dict[str, Any]] = [*([resumed.metadata] if resumed is not None else []), *self.snapshots]
        for earlier, later in itertools.pairwise(history):
            assert earlier["time"] <= later["time"]
            for name, count in later["counts"].items():
                assert earlier["counts"][name] <= count, name

    def check_last_state(self, end: str) -> None:
        with self.observer() as store:
            last = store.states()[-1]
        assert str(last.metadata["exit"]).startswith(end)
        assert last.metadata["launch"] == self.launches
        assert last.metadata["counts"] == self.system.counts()

    def check_retention(self, resumed: StateInfo | None) -> None:
        """The newest states are there; of the older ones only the one resumed from, and the newest good one."""
        with self.observer() as store:
            states = store.states()
        assert len(states) >= KEPT
        protected = {next(info.name for info in reversed(states) if not info.is_after_error)}
        if resumed is not None:
            protected.add(resumed.name)
            assert resumed.name in {info.name for info in states}
        assert {info.name for info in states[:-KEPT]} <= protected

    def check_states(self) -> None:
        """Each state is whole, and all that is in it is of one instant."""
        with self.observer() as store:
            for info in store.states():
                store.verify(info.name)
                reader = store.open_state(info.name)
                stamps = [file for file in reader.manifest.files if file.path.endswith(("stamp.tree", "time.tree"))]
                folder = self.folder / info.name
                reader.restore(stamps, lambda file, folder=folder: folder / file.path)  # type: ignore[misc]
                counts = {}
                for name in self.system.parts():
                    stamp = read_tree(folder / name / "stamp.tree")
                    counts[name] = stamp["count"]
                    # The training side is written before, while it stands still already: its counts show that.
                    is_early = (
                        name.startswith(("models/", "data/", "trainers/")) and stamp["time"] < info.metadata["time"]
                    )
                    assert is_early or stamp["time"] == info.metadata["time"], (info.name, name)
                assert counts == info.metadata["counts"]
                assert read_tree(folder / "time.tree")["time"] == info.metadata["time"]
                self.done["verified"] += 1


@pytest.mark.parametrize("backend", [name for name in ("moto",) if name in target_names()])
def test_an_agent_lives_for_long(
    backend: str, servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # the first optimizer of a process imports for seconds
    target = servers.target(backend)
    held: list[Resources] = []
    with Network(servers.endpoint(backend)) as network:
        soak = Soak(target, network, tmp_path)
        before = Resources.now()
        for shift in itertools.cycle(SHIFTS):
            caplog.clear()
            soak.live(shift)
            if Operator.outage in shift.duties:
                failures = [r for r in caplog.records if "no state was saved: the publish failed" in r.getMessage()]
                assert {record.levelno for record in failures} == {logging.ERROR}
            forget_log_records(caplog)
            gc.collect()  # the sockets of a store go with its client
            network.settle()
            held.append(Resources.now())
            check_left_behind(before, held)
            age = soak.age()
            if age >= AGENT_S and len(held) > len(SHIFTS):
                break
    with contextlib.closing(open_storage(target.url, target.storage_options)) as storage:
        check_no_garbage(storage)
    print(
        f"{soak.launches} launches, {age:.0f} agent seconds, {network.broken} connections broken; "
        f"{', '.join(f'{count} {what}' for what, count in sorted(soak.done.items()))}; "
        f"MiB: {[each.memory >> 20 for each in held]}, open files: {[each.files.total() for each in held]}"
    )


def forget_log_records(caplog: pytest.LogCaptureFixture) -> None:
    """Let go of what errors in the log refer to: pytest keeps all records of a test for its report, tracebacks and all.

    The frames of a failed save hold its client, which is 34,000 objects of service descriptions.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, type(caplog.handler)):
            handler.records.clear()


def check_left_behind(before: Resources, held: list[Resources]) -> None:
    """A launch leaves nothing behind in the process; what caches and pools take is taken after one of each kind."""
    now = held[-1]
    left = Counter(now.threads) - Counter(before.threads)
    # Those of fsspec's event loop, of which a process has one for good.
    assert {name for name in left if re.fullmatch(r"fsspecIO|asyncio_\d+", name) is None} == set()
    assert set(left.values()) <= {1}
    assert now.staging == before.staging
    if len(held) > len(SHIFTS):
        settled = held[len(SHIFTS) - 1]
        assert now.files.total() <= settled.files.total(), now.files - settled.files
        assert now.memory <= settled.memory + LARGEST_GROWTH_BYTES
