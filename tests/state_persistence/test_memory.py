"""How much memory there is to take, where control groups and limits of the process leave less than the machine has."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from statevault.state_persistence.snapshot import memory
from statevault.state_persistence.snapshot.memory import available_memory

GIB = 1024**3
FREE = 60 * GIB
V2 = "30 23 0:26 {top} {mount} rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "35 31 0:32 {top} {mount} rw,relatime - cgroup cgroup rw,memory"
OTHER_V1 = "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
DISK = "28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,memory"
UNLIMITED_V1 = 9223372036854771712


def v2(*, most: object = "max", high: object = "max", used: int = 0, **stat: int) -> dict[str, object]:
    lines = "".join(f"{name} {size}\n" for name, size in stat.items())
    return {"memory.max": most, "memory.high": high, "memory.current": used, "memory.stat": lines}


def v1(*, most: int = UNLIMITED_V1, used: int = 0, **stat: int) -> dict[str, object]:
    lines = "".join(f"{name} {size}\n" for name, size in stat.items())
    return {"memory.limit_in_bytes": most, "memory.usage_in_bytes": used, "memory.stat": lines}


def machine(
    root: Path, *, cgroup: str = "", mounts: str = "", groups: Mapping[str, Mapping[str, object]] | None = None
) -> int:
    """What is available on a machine with 60 GiB free, in these control groups."""
    files: dict[str, object] = {
        "proc/meminfo": f"MemTotal: 67108864 kB\nMemFree: 1 kB\nMemAvailable: {FREE // 1024} kB\n",
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": f"{DISK}\n{mounts}\n",
        "proc/self/statm": "1000 1000 1000 1 0 1000 0\n",
    }
    for folder, content in (groups or {}).items():
        files |= {f"{folder.lstrip('/')}/{name}": text for name, text in content.items()}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))
    return available_memory(root)


SLICE, SERVICE = "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/system.slice/agent.service"
MOUNT = V2.format(top="/", mount="/sys/fs/cgroup")
LIMITS: dict[str, tuple[Mapping[str, Mapping[str, object]], int]] = {
    "none": ({SERVICE: v2()}, FREE),
    "of the service": ({SERVICE: v2(most=2 * GIB, used=GIB // 2)}, 2 * GIB - GIB // 2),
    "of its slice, which others use too": (
        {SLICE: v2(most=4 * GIB, used=3 * GIB), SERVICE: v2(most=2 * GIB, used=GIB // 2)},
        GIB,
    ),
    "of its slice alone": ({SLICE: v2(most=4 * GIB, used=3 * GIB), SERVICE: v2(used=GIB)}, GIB),
    "high": ({SERVICE: v2(high=GIB, used=GIB // 4)}, GIB - GIB // 4),
    "high below max": ({SERVICE: v2(most=2 * GIB, high=GIB, used=GIB // 4)}, GIB - GIB // 4),
    "more than the machine has": ({SERVICE: v2(most=1000 * GIB, used=GIB)}, FREE),
    "exceeded": ({SERVICE: v2(most=GIB, used=2 * GIB)}, 0),
    "files that were read": ({SERVICE: v2(most=4 * GIB, used=4 * GIB, anon=GIB, inactive_file=3 * GIB)}, 3 * GIB),
    "without memory.stat": ({SERVICE: {"memory.max": GIB, "memory.current": 0}}, GIB),
    "without memory.high": ({SERVICE: {"memory.max": GIB, "memory.current": 0, "memory.stat": ""}}, GIB),
    "what nobody understands": ({SERVICE: v2(most="many", used=GIB), SLICE: v2(most=5 * GIB)}, 5 * GIB),
    "empty": ({SERVICE: v2(most="", used=GIB)}, FREE),
}


@pytest.mark.parametrize(("groups", "left"), LIMITS.values(), ids=LIMITS)
def test_a_service_has_what_its_groups_leave(
    tmp_path: Path, groups: Mapping[str, Mapping[str, object]], left: int
) -> None:
    assert machine(tmp_path, cgroup="0::/system.slice/agent.service\n", mounts=MOUNT, groups=groups) == left


def test_groups_of_others_do_not_count(tmp_path: Path) -> None:
    groups = {"/sys/fs/cgroup/other": v2(most=1), f"{SERVICE}/below": v2(most=1), f"{SERVICE}2": v2(most=1)}
    assert machine(tmp_path, cgroup="0::/system.slice/agent.service\n", mounts=MOUNT, groups=groups) == FREE


V1_SERVICE = "9:cpu,cpuacct:/\n4:memory:/system.slice/agent.service\n1:name=systemd:/x\n"
V1_LIMITS: dict[str, tuple[Mapping[str, Mapping[str, object]], int]] = {
    "none": ({"agent.service": v1()}, FREE),
    "of the service": ({"agent.service": v1(most=2 * GIB, used=GIB)}, GIB),
    "of the slice": ({"": v1(most=3 * GIB, used=GIB), "agent.service": v1(most=8 * GIB)}, 2 * GIB),
    "files that were read": ({"agent.service": v1(most=GIB, used=GIB, total_inactive_file=GIB // 2)}, GIB // 2),
    "with swap": (
        {
            "agent.service": {
                **v1(most=2 * GIB, used=GIB),
                "memory.memsw.limit_in_bytes": 2 * GIB,
                "memory.memsw.usage_in_bytes": 2 * GIB - 1000,
            }
        },
        1000,
    ),
}


@pytest.mark.parametrize(("groups", "left"), V1_LIMITS.values(), ids=V1_LIMITS)
@pytest.mark.parametrize("mount", ["/sys/fs/cgroup/memory", "/cgroups/with a space"])
def test_a_service_has_what_its_groups_leave_in_version_1(
    tmp_path: Path, groups: Mapping[str, Mapping[str, object]], left: int, mount: str
) -> None:
    mounts = f"{OTHER_V1}\n{V1.format(top='/', mount=mount.replace(' ', chr(92) + '040'))}"
    placed = {f"{mount}/system.slice/{name}": content for name, content in groups.items()}
    assert machine(tmp_path, cgroup=V1_SERVICE, mounts=mounts, groups=placed) == left


def test_both_versions_count_where_both_are_mounted(tmp_path: Path) -> None:
    mounts = "\n".join(
        (
            V1.format(top="/", mount="/sys/fs/cgroup/memory"),
            V2.format(top="/", mount="/sys/fs/cgroup/unified"),
        )
    )
    groups: dict[str, Mapping[str, object]] = {
        "/sys/fs/cgroup/memory/a": v1(most=2 * GIB),
        "/sys/fs/cgroup/unified/b": {"cgroup.procs": "1"},
    }
    assert machine(tmp_path, cgroup="4:memory:/a\n0::/b\n", mounts=mounts, groups=groups) == 2 * GIB


CONTAINERS = {
    "a namespace of its own": ("0::/\n", "/", {"": v2(most=GIB)}),
    "its own group at the top of the mount": ("0::/docker/0123\n", "/docker/0123", {"": v2(most=GIB)}),
    "a group in that": ("0::/docker/0123/inner\n", "/docker/0123", {"": v2(most=3 * GIB), "inner": v2(most=GIB)}),
    "the host's name of a group that it does not see": ("0::/kubepods/pod1/0123\n", "/", {"": v2(most=GIB)}),
    "only a part of the path": ("0::/kubepods/pod1\n", "/", {"": v2(), "kubepods": v2(most=GIB)}),
    "another mount": ("0::/here\n", "/elsewhere", {"": v2(most=GIB)}),
    "moved out of its namespace": ("0::/../elsewhere\n", "/", {"": v2(most=GIB)}),
    "mounted before the namespace was made": ("0::/\n", "/../..", {"": v2(most=GIB)}),
    "a name that begins alike": ("0::/docker/0123456\n", "/docker/0123", {"": v2(most=GIB), "456": v2(most=1)}),
}


@pytest.mark.parametrize(("cgroup", "top", "groups"), CONTAINERS.values(), ids=CONTAINERS)
def test_a_container_has_what_it_is_given_whatever_it_sees(
    tmp_path: Path, cgroup: str, top: str, groups: Mapping[str, Mapping[str, object]]
) -> None:
    placed: dict[str, Mapping[str, object]] = {f"/sys/fs/cgroup/{name}": each for name, each in groups.items()}
    assert machine(tmp_path, cgroup=cgroup, mounts=V2.format(top=top, mount="/sys/fs/cgroup"), groups=placed) == GIB


@pytest.mark.parametrize("missing", [["cgroup"], ["mountinfo"], ["cgroup", "mountinfo"]])
def test_what_cannot_be_read_leaves_the_usual_places(tmp_path: Path, missing: list[str]) -> None:
    machine(tmp_path, mounts=MOUNT, groups={"/sys/fs/cgroup": v2(most=GIB)})
    for name in missing:
        (tmp_path / "proc/self" / name).unlink()
    memory._limited.cache_clear()
    assert available_memory(tmp_path) == GIB


def test_a_machine_without_control_groups_has_what_is_free(tmp_path: Path) -> None:
    assert machine(tmp_path) == FREE


def test_without_proc_there_is_memory_all_the_same(tmp_path: Path) -> None:
    assert available_memory(tmp_path) > 0


LIMITED = """
import resource, sys
from statevault.state_persistence.snapshot.memory import available_memory
resource.setrlimit(getattr(resource, sys.argv[1]), (3 * 1024**3, resource.RLIM_INFINITY))
print(available_memory())
"""


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_process_counts(limit: str) -> None:
    most = getattr(resource, limit)
    assert resource.getrlimit(most)[1] == resource.RLIM_INFINITY, "not for the tests themselves"
    run = subprocess.run([sys.executable, "-c", LIMITED, limit], capture_output=True, text=True, check=True)
    assert 0 < int(run.stdout) < 3 * GIB // 2


IN_A_GROUP = """
import sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text("0")
from statevault.state_persistence.snapshot.memory import available_memory
print(available_memory())
"""


def a_group(name: str) -> Path:
    """A real control group below our own; the test is skipped where none can be made."""
    for kind, shown, mount in memory._mounts(Path("/")):
        paths = dict(memory._own_paths(Path("/proc/self/cgroup").read_text()))
        *_, below = memory._down_to(paths.get(kind, "/"), shown)
        group = Path(mount, below, name)
        with suppress(OSError):
            group.mkdir()
            limit = group / ("memory.max" if kind == "cgroup2" else "memory.limit_in_bytes")
            if limit.exists():
                limit.write_text(str(512 * 1024**2))
                return group
            group.rmdir()
    pytest.skip("no control group can be made here")


def test_a_real_control_group_below_the_root_counts() -> None:
    group = a_group(f"statevault-test-{os.getpid()}")
    try:
        command = [sys.executable, "-c", IN_A_GROUP, str(group)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        group.rmdir()
    assert 0 < int(run.stdout) <= 512 * 1024**2
