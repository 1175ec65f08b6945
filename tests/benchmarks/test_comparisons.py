"""What comparisons are made of: trials in processes of their own, counted traffic, ratios."""

from __future__ import annotations

import logging
import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.comparison import Comparison, Standing
from benchmarks.contest import contest
from benchmarks.grounds import Grounds
from benchmarks.measure import Spread
from benchmarks.place import Place
from benchmarks.slow_link import slow_link
from benchmarks.traffic import Traffic, counting_proxy
from benchmarks.trial import Contender, Recorder, Trial, TrialError, run_trial
from benchmarks.workloads import Group, TensorWorkload, frozen_backbone, model
from tests.servers import ScriptedAnswer, Servers, scripted_server


@pytest.fixture
def nowhere(tmp_path: Path) -> Grounds:
    place = Place(str(tmp_path))
    return Grounds(s3=place, local=place, server="none", proxy="", traffic=Traffic())


def spread(value: float) -> Spread:
    return Spread(value, value, value)


def busy(recorder: Recorder, seconds: float) -> None:
    kept = []

    def work() -> None:
        kept.append(bytearray(os.urandom(1) * 50_000_000))
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    recorder.measure("work", work)
    recorder.note("told", pid=os.getpid(), kept=len(kept))


def failing(recorder: Recorder) -> None:
    raise KeyError("what a method raised")


def dying(recorder: Recorder) -> None:
    os._exit(7)


def test_a_trial_runs_in_another_process_and_counts_its_own_time_and_memory(nowhere: Grounds) -> None:
    trial = run_trial(nowhere, busy, 0.2)
    assert trial["told"]["pid"] != os.getpid()
    assert trial["work"]["cpu_s"] >= 0.2
    assert trial["work"]["seconds"] >= 0.2
    assert 45 <= trial["work"]["peak_mb"] < 200
    assert "requests" not in trial["work"]


def test_what_a_method_raises_is_told_with_its_traceback(nowhere: Grounds) -> None:
    with pytest.raises(TrialError, match="what a method raised"):
        run_trial(nowhere, failing)


def test_a_method_that_takes_its_process_down_fails_alone(nowhere: Grounds) -> None:
    with pytest.raises(TrialError, match="exit code 7"):
        run_trial(nowhere, dying)


def test_a_contest_runs_in_turn_and_goes_on_without_those_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[tuple[str, bool]] = []

    def measure(contender: Contender, counted: bool) -> Trial:
        calls.append((contender.label, counted))
        if contender.label == "breaks":
            raise TrialError("Traceback …\nOSError: no")
        return {"save": {"seconds": float(len(calls)), **({"requests": 3.0} if counted else {})}}

    contenders = [
        Contender("ours", "", "", is_ours=True),
        Contender("breaks", "", ""),
        Contender("absent", "", "", needs=("no_such_package_of_anybody",)),
    ]
    with caplog.at_level(logging.CRITICAL, "benchmarks.contest"):
        rows = contest("w", "here", contenders, measure, runs=2, actions={"save": 6.0}, count=True)
    assert calls == [("ours", False), ("breaks", False), ("ours", False), ("ours", True)]
    ours, breaks, absent = rows
    assert ours.figures == {"seconds": Spread(2.0, 1.0, 3.0), "requests": spread(3.0)}
    assert ours.mb_per_s == Spread(3.0, 2.0, 6.0)
    assert breaks.problem == "failed: OSError: no"
    assert absent.problem == "not installed: no_such_package_of_anybody"
    assert breaks.figures == absent.figures == {}


def test_ratios_are_against_the_best_peer_and_the_best_bound() -> None:
    def row(method: str, seconds: float, action: str = "save", *, ours: bool = False, limit: bool = False) -> Standing:
        figures = {"seconds": spread(seconds)}
        return Standing("w", "here", action, method, figures, is_ours=ours, is_limit=limit)

    ours, restore = row("ours", 2.0, ours=True), row("ours", 1.0, "restore", ours=True)
    slow, fast = row("slow", 8.0), row("fast", 4.0)
    broken = Standing("w", "here", "save", "broken", problem="failed: no")
    comparison = Comparison("c", "", [ours, slow, fast, broken, row("wire", 1.0, limit=True), restore])
    assert comparison.against_best_peer(ours) == 2.0
    assert comparison.against_limit(ours) == 0.5
    assert comparison.against_best_peer(slow) == 0.5
    assert comparison.against_best_peer(fast) == 2.0, "the best one is compared with the second"
    assert comparison.against_best_peer(restore) is None
    assert comparison.against_best_peer(broken) is None
    assert [[row.method for row in rows] for rows in comparison.groups()] == [
        ["ours", "slow", "fast", "broken", "wire"],
        ["ours"],
    ]


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[str, Traffic]]:
    servers = Servers(tmp_path)
    try:
        with counting_proxy(servers.endpoint("rclone")) as (url, traffic):
            yield url, traffic
    finally:
        servers.close()


def test_the_proxy_counts_requests_and_the_bytes_of_their_bodies(counted: tuple[str, Traffic]) -> None:
    url, traffic = counted
    before = traffic.copy()
    with (
        pytest.raises(urllib.error.HTTPError) as refused,
        urllib.request.urlopen(f"{url}/bucket/key", data=b"x" * 1000),
    ):
        pass
    refused.value.close()
    went = traffic.since(before)
    assert went.requests == {"POST": 1}
    assert went.sent_bytes == 1000
    assert went.received_bytes > 0


def test_a_slow_link_carries_everything_and_not_faster_than_it_can() -> None:
    body = os.urandom(500_000)
    with (
        scripted_server(lambda request: ScriptedAnswer(200, request.body)) as server,
        slow_link(server, 2e6) as url,
    ):
        began = time.monotonic()
        with urllib.request.urlopen(url, data=body) as answer:
            assert answer.read() == body
    # There, and back once it has come.
    assert time.monotonic() - began > 0.4


def test_a_far_server_gets_everything_in_order_a_round_trip_later() -> None:
    body = os.urandom(5_000_000)
    with (
        scripted_server(lambda request: ScriptedAnswer(200, request.body)) as server,
        slow_link(server, 1e9, round_trip_s=0.2) as url,
    ):
        began = time.monotonic()
        with urllib.request.urlopen(url, data=body) as answer:
            assert answer.read() == body
    assert time.monotonic() - began > 0.2


def test_a_client_of_a_far_server_may_leave() -> None:
    with (
        scripted_server(lambda request: ScriptedAnswer(200, b"x" * 50_000_000)) as server,
        slow_link(server, 1e9, round_trip_s=0.02) as url,
        urllib.request.urlopen(url) as answer,
    ):
        assert answer.read(10) == b"x" * 10
    # The link ends all the same, though most of the answer was still under way.


def test_the_proxy_counts_each_of_several_requests_of_one_connection(counted: tuple[str, Traffic]) -> None:
    url, traffic = counted
    port = int(url.rpartition(":")[2])
    body = b"a\r\n\r\nGET / HTTP/1.1"  # no request, whatever it looks like
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(2):
            head = f"PUT /bucket/key HTTP/1.1\r\nHost: here\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            # In pieces that are no requests by themselves.
            client.sendall(head[:10])
            time.sleep(0.02)
            client.sendall(head[10:] + body[:3])
            client.sendall(body[3:])
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 ")
    assert traffic.requests == {"PUT": 2}
    assert traffic.sent_bytes == 2 * len(body)


@pytest.mark.parametrize("workload", [model(0.1), model(0.1, "bfloat16"), frozen_backbone(0.1, 0.1)])
def test_a_state_is_known_from_its_seed_alone(workload: TensorWorkload) -> None:
    state = workload.make()
    workload.check(state, 0)
    workload.change(state, 1)
    workload.check(state, 1)
    with pytest.raises(ValueError, match="is not what was saved"):
        workload.check(state, 0)
    assert sum(t.nbytes for tensors in state.values() for t in tensors.values()) == pytest.approx(
        workload.size_bytes, rel=0.02
    )


def test_a_frozen_group_stays_as_it_is() -> None:
    group = Group("backbone", 10_000, trained=False)
    assert all(torch.equal(a, b) for a, b in zip(group.make(0).values(), group.make(5).values(), strict=True))
