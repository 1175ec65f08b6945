"""What ``statevault doctor`` finds out about a place, and what each finding means for the states there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from statevault.cli.finding import Finding
from statevault.cli.output import duration, size
from statevault.cli.store_findings import store_findings
from statevault.storage import LocalStorage, Storage, probe
from statevault.storage.access import check_access
from statevault.storage.measure import (
    SEVERAL_PARTS,
    Throughput,
    measure_clock,
    measure_latency,
    measure_throughput,
)

__all__ = ["Finding", "examine"]

_WITHOUT = {
    "list": "states can be neither found nor saved",
    "write": "nothing can be saved here",
    "read": "nothing can be loaded from here",
    "replace": "a save can't try again what had no answer",
    "delete": "states that retention removes are hidden, and go on taking room",
}
_NEEDED_FOR_MORE = {"list", "write", "read", "delete"}
_LITTLE_ROOM = 1_000_000_000
_USABLE_SHARE = 0.9
_NOTABLE_CLOCK_S = 60.0
_REFUSED_CLOCK_S = 900.0


def examine(
    storage: Storage, *, size_bytes: int, watch: Callable[[], AbstractContextManager[Callable[[int], None]]]
) -> Iterator[Finding]:
    """Look at a place. What is put for that is deleted again; a folder that was not there is not there after.

    Args:
        storage: The place; it need not be a store.
        size_bytes: Of the object by which throughput is measured.
        watch: Entered while that takes place; gives what is called with the number of bytes sent or received since the
            last call, by several threads.

    Yields:
        Findings, as they are made.

    Raises:
        StorageError: The storage can't be reached, refuses everything, or failed half-way.
    """
    with _left_as_found(storage):
        access = check_access(storage)
        if not access.allowed:
            raise next(iter(access.refused.values()))
        if "list" in access.allowed and "read" not in access.refused:
            yield from store_findings(storage)
        yield from (Finding("access", "fails", f"{what}: {error}", _WITHOUT[what])
                    for what, error in access.refused.items())  # fmt: skip
        if access.allowed:
            means = "states can be saved, loaded and removed" if not access.refused else "this much is allowed"
            yield Finding("access", "ok", ", ".join(access.allowed), means)
        if not _NEEDED_FOR_MORE.issubset(access.allowed):
            return
        yield from _capabilities(storage)
        yield _latency(storage)
        if (refusal := _does_not_fit(storage, size_bytes)) is not None:
            yield refusal
        else:
            with watch() as on_progress:
                throughput = measure_throughput(storage, size=size_bytes, on_progress=on_progress)
            yield from _throughput(throughput)
        yield _clock(storage)
        if isinstance(storage, LocalStorage):
            yield _room(storage.root)


@contextlib.contextmanager
def _left_as_found(storage: Storage) -> Iterator[None]:
    """Remove the folders that the first put to a local place makes, if they were not there."""
    missing = []
    if isinstance(storage, LocalStorage):
        missing = [folder for folder in (storage.root, *storage.root.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is empty: somebody may have begun to save


def _capabilities(storage: Storage) -> Iterator[Finding]:
    can = probe(storage)
    if can.reads_own_writes and can.replaces:
        found = "what is put, replaced or deleted is seen at once"
        yield Finding("consistency", "ok", found, "a state is there for everybody when its save returns")
    else:
        found = "what was put, replaced or deleted is not seen at once"
        yield Finding("consistency", "fails", found, "states may be lost: use another backend or endpoint")
    if can.create_only:
        yield Finding("create-only", "ok", "honoured", "two writers that choose one name are told apart")
    else:
        means = (
            "two writers that choose one name in the same instant are not told apart (digests detect it): "
            "give writers names of their own"
        )
        yield Finding("create-only", "note", "not supported: the object is replaced", means)
    if can.ranges:
        yield Finding("ranges", "ok", "parts of objects can be read", "one component is loaded without the others")
    else:
        yield Finding("ranges", "fails", "parts of objects can't be read", "nothing can be loaded from here")
    if not can.exact_keys:
        found = "names with %, ?, # or non-ASCII characters come back changed"
        yield Finding("names", "note", found, "name states and files with plain letters and digits")


def _latency(storage: Storage) -> Finding:
    timings = measure_latency(storage)
    found = ", ".join(
        f"{kind} {duration(timing.median)} (worst {duration(timing.worst)})" for kind, timing in timings.items()
    )
    typical = {kind: timing.median for kind, timing in timings.items()}
    # The requests of a save of one small file, one after the other: docs/format.md, section 5.
    save_s = 4 * typical["put"] + 2 * typical["list"] + 3 * typical["head"] + typical["delete"]
    measured = {kind: {"median_s": timing.median, "worst_s": timing.worst} for kind, timing in timings.items()}
    means = f"the smallest save takes about {duration(save_s)}, in the background"
    return Finding("latency", "ok", found, means, {**measured, "smallest_save_s": save_s})


def _throughput(seen: Throughput) -> Iterator[Finding]:
    if not seen.intact:
        found = f"{size(seen.size)} came back with other bytes"
        yield Finding("large objects", "fails", found, "states would be damaged: use another backend or endpoint")
        return
    found = f"{size(seen.size)} came back bit for bit"
    if seen.size <= SEVERAL_PARTS:
        found += f"; --size {SEVERAL_PARTS // 10**6 + 1}MB would be sent in several parts"
    yield Finding("large objects", "ok", found, "large files arrive whole")
    up, down = seen.size / seen.up_s, seen.size / seen.down_s
    gigabyte = 10**9
    means = (
        f"1 GB takes about {duration(gigabyte / up)} to save, if nothing of it is shared or compressed, "
        f"and {duration(gigabyte / down)} to load"
    )
    measured = {"size": seen.size, "up_s": seen.up_s, "down_s": seen.down_s}
    yield Finding("throughput", "ok", f"up {size(int(up))}/s, down {size(int(down))}/s", means, measured)


def _clock(storage: Storage) -> Finding:
    seen = measure_clock(storage)
    if seen is None:
        return Finding("clock", "note", "the backend tells no times", "ages are those of the writers' clocks")
    measured = {"ahead_s": seen.ahead_s, "uncertainty_s": seen.uncertainty_s}
    off = abs(seen.ahead_s)
    give = f"give or take {duration(seen.uncertainty_s)}"
    if off <= seen.uncertainty_s + 1:
        return Finding("clock", "ok", f"the same as here, {give}", "ages of states and debris are right", measured)
    found = f"{duration(off)} {'ahead of' if seen.ahead_s > 0 else 'behind'} this machine's, {give}"
    if off < _NOTABLE_CLOCK_S:
        return Finding("clock", "ok", found, "the order of states never comes from clocks", measured)
    means = "states keep their order, but their ages are off: set this machine's clock"
    if off >= _REFUSED_CLOCK_S:
        means += "; S3 and GCS refuse requests of clocks that are 15 minutes off"
    return Finding("clock", "note", found, means, measured)


def _does_not_fit(storage: Storage, size_bytes: int) -> Finding | None:
    """Refuse to fill a disk that others write to as well, as far as a storage tells its room."""
    if not isinstance(storage, LocalStorage):
        return None
    free, total = _free_and_total(storage.root)
    if total == 0 or size_bytes <= free * _USABLE_SHARE:
        return None
    found = f"not measured: {size(size_bytes)} would leave too little of the {size(free)} that are free"
    measured = {"size": size_bytes, "free": free}
    return Finding("throughput", "note", found, "name a smaller --size, or free some room", measured)


def _free_and_total(root: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists()))
    return usage.free, usage.total


def _room(root: Path) -> Finding:
    free, total = _free_and_total(root)
    found = f"{size(free)} of {size(total)} are free"
    measured = {"free": free, "total": total}
    if free < _LITTLE_ROOM:
        return Finding("room", "note", found, "a save that does not fit fails, and takes back what it wrote", measured)
    return Finding(
        "room", "ok", found, "what is new of a state must fit in there before an old one is removed", measured
    )
