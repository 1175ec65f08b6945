"""Who works on a trial: claims, which need nothing of a storage but atomic puts and consistent listings.

The protocol is in ``docs/format.md``, section 10. Invariant: of all processes, on all machines, at most one holds a
claim below a prefix, unless it was held up for longer than :data:`STALE_AFTER`; then it is told at its next look.
"""

from __future__ import annotations

import json
import logging
import os
import random
import secrets
import socket
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from statevault.errors import StorageError, TrialTakenError
from statevault.storage import ObjectInfo, Storage

__all__ = ["BEAT_EVERY", "STALE_AFTER", "Claim", "take_claim"]

_logger = logging.getLogger(__name__)

BEAT_EVERY = timedelta(seconds=20)
"""How often whoever holds a claim says that it is alive."""

STALE_AFTER = timedelta(seconds=120)
"""How long nothing is heard of a process that is then taken for dead."""

# What anybody may put into the place of a claim; it counts as one that says nothing.
_UNREADABLE = (StorageError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
_MOST_READ = 64 * 1024
_BEAT = ".beat"
_LOOKS = 10
_BETWEEN_LOOKS_S = (0.1, 0.4)
# Not the global generator, which is the algorithms'.
_OWN_RANDOM = random.SystemRandom()
# The names of the claims that this process holds, or is taking: another one that it has made is left from an error.
_live: set[str] = set()


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that this process holds.

    Attributes:
        storage: Where it lies.
        prefix: What is claimed.
        name: Its name, which no other claim has.
    """

    storage: Storage
    prefix: str
    name: str

    def beat(self) -> None:
        """Say that the process is alive.

        Raises:
            StorageError: The storage failed.
        """
        # Beside the claim, and not in its place: one that was taken away does not come back.
        self.storage.put(self.prefix + self.name + _BEAT, _signature())

    def check(self) -> None:
        """Make sure that the claim still holds.

        Raises:
            TrialTakenError: It was taken away, because nothing was heard of this process for too long.
            StorageError: The storage failed.
        """
        if not self.storage.exists(self.prefix + self.name):
            raise TrialTakenError(
                f"this process has lost {_what(self.prefix)} in {self.storage.url}: nothing was heard of it for "
                f"{STALE_AFTER.seconds} s, or the folder was cleared. Another worker may be working on it: stop here, "
                "and resume later"
            )

    def release(self) -> None:
        """Give it up. Never fails: one that can't be deleted is nobody's from now on; who claims next takes it."""
        _live.discard(self.name)
        try:
            self.storage.delete([self.prefix + self.name, self.prefix + self.name + _BEAT])
        except StorageError as error:
            _logger.warning("The claim on %s could not be given up: %s", _what(self.prefix), error)


def take_claim(storage: Storage, prefix: str) -> Claim:
    """Claim what a prefix stands for.

    Args:
        storage: Where claims are kept.
        prefix: Of the keys of the claims.

    Raises:
        TrialTakenError: Another process has it. The message names that, and says how to take it away.
        StorageError: The storage failed.
    """
    own = Claim(storage, prefix, secrets.token_hex(8))
    _live.add(own.name)
    try:
        storage.put(prefix + own.name, _signature())
        for _ in range(_LOOKS):
            others = _others(own)
            if not others:
                own.beat()  # tells those who wait that it is held
                return own
            if min(others) < own.name or any(held for held in others.values()):
                break
            # The others came at the same moment and have larger names: they go away when they see this one.
            time.sleep(_OWN_RANDOM.uniform(*_BETWEEN_LOOKS_S))
        raise TrialTakenError(_taken(storage, prefix, min(others, key=lambda name: (not others[name], name))))
    except BaseException:  # Ctrl-C too
        own.release()
        raise


def _others(own: Claim) -> dict[str, bool]:
    """The other claims that are alive, by name: whether each is held."""
    found = {info.key.removeprefix(own.prefix): info for info in own.storage.list(own.prefix)}
    if own.name not in found:
        if own.storage.exists(own.prefix + own.name):
            # Who is not seen by others sees none of them.
            raise StorageError(
                f"put {own.prefix + own.name} into {own.storage.url}, and its listing does not show it: nothing else "
                "was put. The URL may be another spelling of that of an experiment: write it as the storage lists it",
                url=own.storage.url,
                key=own.prefix + own.name,
            )
        raise TrialTakenError(f"the claim on {_what(own.prefix)} in {own.storage.url} was taken away: try again")
    now = found[own.name].modified
    names = [name for name in found if name != own.name and not name.endswith(_BEAT)]
    dead = [name for name in names if _is_dead(own.storage, found[name], found.get(name + _BEAT), now)]
    debris = [name for name in found if name.endswith(_BEAT) and name.removesuffix(_BEAT) not in found]
    if dead or debris:
        for name in dead:
            _logger.warning("The claim %s on %s is of a worker that is gone: it is taken away", name, _what(own.prefix))
        own.storage.delete([own.prefix + each for name in dead for each in (name, name + _BEAT)])
        own.storage.delete([own.prefix + name for name in debris])
    return {name: name + _BEAT in found for name in names if name not in dead}


def _is_dead(storage: Storage, claim: ObjectInfo, beat: ObjectInfo | None, now: datetime | None) -> bool:
    with suppress(*_UNREADABLE):
        signature = json.loads(storage.get(claim.key, 0, min(claim.size, _MOST_READ)))
        if signature["machine"] == _machine():
            if int(signature["pid"]) == os.getpid() and signature["started"] == _started(os.getpid()):
                return claim.key.rpartition("/")[2] not in _live
            started = _started(int(signature["pid"]))
            if started is None or (started and signature["started"]):
                # On this machine, neither a clock that jumps nor a process that sleeps misleads.
                return bool(started != signature["started"])
    heard = _latest(info.modified for info in (claim, beat) if info is not None)
    return now is not None and heard is not None and now - heard > STALE_AFTER


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((moment for moment in times if moment is not None), default=None)


def _started(pid: int) -> str | None:
    """What tells a process from others with its number: when it was started; None if there is none, "" if unknown."""
    try:
        # The name, in parentheses, may hold anything; the start is the 20th field behind it (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        # One that was killed, and that nobody has waited for, is still listed.
        return None if fields[0] in ("Z", "X") else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""
    return ""


def _signature() -> bytes:
    record = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()) or "",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(record).encode()


@lru_cache(maxsize=1)
def _machine() -> str:
    """What makes a process number meaningful: the machine, since its last start, and the container."""
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{host}:{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{host}:{uuid.getnode():x}"


def _taken(storage: Storage, prefix: str, name: str) -> str:
    who = "another process"
    with suppress(*_UNREADABLE):
        signature = json.loads(storage.get(prefix + name, 0, min(storage.head(prefix + name).size, _MOST_READ)))
        who = f"process {int(signature['pid'])} on {str(signature['host'])[:100]!r}"
    return (
        f"{who} has {_what(prefix)} in {storage.url}. If it is gone, its claim ends {STALE_AFTER.seconds} s after it "
        f"was last heard of; to end it at once, delete {prefix}{name}"
    )


def _what(prefix: str) -> str:
    parts = prefix.split("/")
    if prefix.startswith("algorithm_"):
        return f"trial {parts[1].removeprefix('trial_')} of algorithm {parts[0].removeprefix('algorithm_')}"
    return "the metadata"
