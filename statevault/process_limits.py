"""Limits of this process that keep threads and memory from it, and errors that name them.

``ulimit -v`` counts what is reserved, and each thread reserves its stack and a heap of its own (64 MiB and more with
glibc): where that is scarce, whoever wants a thread does its work itself.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from statevault.errors import StateVaultError, StorageError

__all__ = ["has_room_for_thread", "naming_limits", "reserve_left", "scarce"]

_FOR_A_THREAD = 256 * 1024**2
# By which field of /proc/self/statm each is used up.
_RESERVES = ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5))
_NAMES = (
    (resource.RLIMIT_AS, "address space", "ulimit -v"),
    (resource.RLIMIT_DATA, "data", "ulimit -d"),
    (resource.RLIMIT_NPROC, "processes and threads of the user", "ulimit -u"),
)
_NO_THREAD = ("can't start new thread", "can't allocate lock")


def reserve_left(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process may still reserve; None without a limit.

    Args:
        root: Where ``proc`` is.
    """
    left = []
    for limit, field in _RESERVES:
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            with suppress(OSError):
                pages = int((root / "proc/self/statm").read_text(encoding="ascii").split()[field])
                left.append(most - pages * resource.getpagesize())
    return max(min(left), 0) if left else None


def has_room_for_thread() -> bool:
    """Whether one more thread leaves memory to work with."""
    left = reserve_left()
    return left is None or left >= _FOR_A_THREAD


def scarce(error: BaseException) -> str:
    """A lack of memory or of threads that an error tells of, with the limits of this process; else nothing."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        what = "no memory is left"
    elif isinstance(error, RuntimeError) and str(error) in _NO_THREAD:
        what = "no thread can be started"
    else:
        return ""
    limits = [
        f"{most} bytes of {name} ({command})" if "ulimit -u" not in command else f"{most} {name} ({command})"
        for limit, name, command in _NAMES
        if (most := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY
    ]
    told = f"the limits of this process are {', '.join(limits)}" if limits else "this process has no limits of its own"
    return f"{what}; {told}. Raise them, those of its container (memory.max, pids.max), or give it less to do"


@contextmanager
def naming_limits(doing: str) -> Iterator[None]:
    """Say in an error that comes of a lack of memory or threads what was done, and which limits there are.

    Args:
        doing: ``"saving"``.

    Raises:
        MemoryError: No memory is left.
        StateVaultError: No thread can be started.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        # One of a storage has said so, and one with words of its own is a component's.
        if isinstance(error, StorageError) or (isinstance(error, MemoryError) and error.args):
            raise
        if not (why := scarce(error)):
            raise
        kind = StateVaultError if isinstance(error, RuntimeError) else MemoryError
        raise kind(f"{doing}: {why}") from error
