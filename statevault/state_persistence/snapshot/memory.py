"""How much memory there is to take: of the machine, of the control groups of this process, of its own limits.

A service (``MemoryMax=`` of systemd), a container or a pod is killed for what its control group does not have, however
much the machine has free. What lies in a tmpfs counts there as well.
"""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from statevault.process_limits import reserve_left
from statevault.storage.descriptors import DESCRIPTORS

__all__ = ["available_memory"]

_ROOT = Path("/")
_UNLIMITED = 2**60
_ESCAPE = re.compile(r"\\([0-7]{3})")
# Where no table of mounts can be read.
_USUAL_MOUNTS = (("cgroup2", "/", "/sys/fs/cgroup"), ("cgroup", "/", "/sys/fs/cgroup/memory"))


class _Account(NamedTuple):
    """What a control group tells of its memory: names of files, and of what of it the kernel can take back.

    Attributes:
        limits: What may be used; ``memory.high`` is not exceeded for long either: the kernel slows the group down.
        usage: What is used.
        cache: In ``memory.stat``: of that, unused pages of files.
    """

    limits: tuple[str, ...]
    usage: str
    cache: str


_ACCOUNTS = {
    "cgroup2": (_Account(("memory.max", "memory.high"), "memory.current", "inactive_file"),),
    "cgroup": (
        _Account(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
        # With swap, where the kernel accounts for it: what was swapped out takes of this limit, and not of the other.
        _Account(("memory.memsw.limit_in_bytes",), "memory.memsw.usage_in_bytes", "total_inactive_file"),
    ),
}


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that can be taken without making the kernel swap, or kill something.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    available = _of_machine(root)
    for folder, account in _limited(root, int(time.monotonic())):
        with suppress(OSError, ValueError):
            available = min(available, _left(folder, account, available))
    left = reserve_left(root)
    if left is not None:
        # Threads reserve much more of this than they use.
        available = min(available, left // 2)
    return max(available, 0)


def _of_machine(root: Path) -> int:
    with suppress(OSError):
        for line in _text(root / "proc/meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    # Less than there is, since caches count as used; but it needs no descriptor.
    return os.sysconf("SC_AVPHYS_PAGES") * resource.getpagesize()


def _left(folder: Path, account: _Account, enough: int) -> int:
    """What a control group may still use."""
    left = _limit(folder, account) - int(_text(folder / account.usage))
    if left < enough:
        # Files that were read count as used until the kernel needs their room. Dear to ask: only where it matters.
        with suppress(OSError):
            for line in _text(folder / "memory.stat").splitlines():
                name, _, size = line.partition(" ")
                if name == account.cache:
                    left += int(size)
    return left


def _limit(folder: Path, account: _Account) -> int:
    found = (_text(folder / name).strip() for name in account.limits if (folder / name).exists())
    return min((int(limit) for limit in found if limit != "max"), default=_UNLIMITED)


@lru_cache(maxsize=4)
def _limited(root: Path, second: int) -> tuple[tuple[Path, _Account], ...]:
    """The limits of the control groups of this process, and of all that those are in.

    Looked for anew each second: limits are changed and processes moved, but seldom, and this is asked often.
    """
    try:
        own = dict(_own_paths(_text(root / "proc/self/cgroup")))
    except OSError:
        own = {}
    limited = []
    for kind, shown, mount in _mounts(root):
        for below in _down_to(own.get(kind, "/"), shown):
            folder = root / mount.lstrip("/") / below
            for account in _ACCOUNTS[kind]:
                # Without a folder where a namespace, or a container that sees its own group only, is told of one.
                with suppress(OSError, ValueError):
                    if _limit(folder, account) < _UNLIMITED:
                        limited.append((folder, account))
    return tuple(limited)


def _own_paths(own: str) -> Iterator[tuple[str, str]]:
    """Where a process is in each hierarchy that may count memory: ``/proc/self/cgroup``."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield "cgroup2", path
        elif "memory" in controllers.split(","):
            yield "cgroup", path


def _mounts(root: Path) -> Iterator[tuple[str, str, str]]:
    """Where hierarchies are mounted that may count memory: their kind, which group is at the top, and the folder."""
    try:
        table = _text(root / "proc/self/mountinfo")
    except OSError:
        yield from _USUAL_MOUNTS
        return
    for line in table.splitlines():
        where, _, what = line.partition(" - ")
        kind, _, options = what.partition(" ")
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(" ")[-1].split(",")):
            _, _, _, shown, mount, *_ = where.split(" ")
            yield kind, _unescaped(shown), _unescaped(mount)


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def _down_to(path: str, shown: str) -> Iterator[str]:
    """The groups from the one at the top of a mount down to the one at `path`, relative to that folder."""
    yield "."
    top = shown.rstrip("/") + "/"
    if path.startswith(top) and ".." not in path.split("/"):
        below = ""
        for name in path.removeprefix(top).split("/"):
            if name:
                below += name + "/"
                yield below


def _text(path: Path) -> str:
    return DESCRIPTORS.instead(lambda: path.read_text(encoding="utf-8"))
