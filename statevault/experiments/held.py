"""The claims that this process holds, for as long as it lives.

A process is one worker: two managers in it share its claims. A thread says every 20 seconds that the process is alive;
it dies with it, and so, after a while, do the claims.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from statevault.errors import TrialTakenError
from statevault.experiments.claims import BEAT_EVERY, Claim, take_claim
from statevault.storage import Storage

__all__ = ["HeldClaims"]

_logger = logging.getLogger(__name__)
_Place = tuple[str, str]


class HeldClaims:
    """The claims of this process on the parts of one experiment.

    Args:
        storage: The folder of the experiment.
        scope: What tells that folder from all others: its URL, and whatever else leads to it.
    """

    def __init__(self, storage: Storage, scope: str) -> None:
        self._storage = storage
        self._scope = scope

    def ensure(self, prefix: str) -> None:
        """Hold a claim, or make sure that the one which is held still holds.

        Args:
            prefix: What is claimed: what the keys of its claims start with.

        Raises:
            TrialTakenError: Another process has it, or has taken it over.
            StorageError: The storage failed.
        """
        with _process.turn((self._scope, prefix)) as place:
            held = _process.held.get(place)
            if held is None:
                _process.add(place, take_claim(self._storage, prefix), exclusive=False)
                return
            try:
                held.claim.check()
            except TrialTakenError:
                _process.drop(place)
                held.claim.release()  # its beat, which would look like somebody's work
                raise

    @contextmanager
    def exclusively(self, prefix: str) -> Iterator[None]:
        """Hold a claim inside a ``with`` block that nobody else, not even of this process, can be in.

        Args:
            prefix: As for :meth:`ensure`.

        Raises:
            TrialTakenError: Another process, or another thread of this one, has it.
            StorageError: The storage failed.
        """
        with _process.turn((self._scope, prefix)) as place:
            held = _process.held.get(place)
            if held is not None and held.exclusive:
                raise TrialTakenError(
                    f"another thread of this process has {prefix.removesuffix('/claims/')} in {self._storage.url}"
                )
            if held is not None:
                _process.drop(place)
                held.claim.release()
            _process.add(place, take_claim(self._storage, prefix), exclusive=True)
        try:
            yield
        finally:
            self.release(prefix)

    def is_held(self, prefix: str) -> bool:
        """Whether this process has a claim."""
        return (self._scope, prefix) in _process.held

    def is_exclusive(self, prefix: str) -> bool:
        """Whether a thread of this process is inside :meth:`exclusively`."""
        held = _process.held.get((self._scope, prefix))
        return held is not None and held.exclusive

    def release(self, prefix: str) -> None:
        """Give up a claim, if it is held."""
        with _process.turn((self._scope, prefix)) as place:
            held = _process.drop(place)
        if held is not None:
            held.claim.release()

    def release_all(self) -> None:
        """Give up all claims on the experiment that no thread is inside :meth:`exclusively` of."""
        for scope, prefix in list(_process.held):
            if scope == self._scope and not self.is_exclusive(prefix):
                self.release(prefix)


@dataclass(frozen=True, slots=True)
class _Held:
    claim: Claim
    exclusive: bool


class _Process:
    """All claims of this process, and the thread that says that it is alive. A forked child holds none."""

    def __init__(self) -> None:
        self.held: dict[_Place, _Held] = {}
        self._turns: dict[_Place, threading.Lock] = {}
        self._changed = threading.Condition()
        self._beating: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self.held, self._turns = {}, {}
        self._changed, self._beating = threading.Condition(), None

    @contextmanager
    def turn(self, place: _Place) -> Iterator[_Place]:
        """One thread at a time takes, or gives up, what is at a place; other places are not held up."""
        with self._changed:
            turn = self._turns.setdefault(place, threading.Lock())
        with turn:
            yield place

    def add(self, place: _Place, claim: Claim, *, exclusive: bool) -> None:
        with self._changed:
            self.held[place] = _Held(claim, exclusive)
            if self._beating is None or not self._beating.is_alive():
                self._start_beating()

    def _start_beating(self) -> None:
        thread = threading.Thread(target=self._beat, name="statevault-claims", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _logger.warning("%s: after two minutes, other machines take this process for dead", error)
        else:
            self._beating = thread

    def drop(self, place: _Place) -> _Held | None:
        with self._changed:
            held = self.held.pop(place, None)
            self._changed.notify_all()
            return held

    def _beat(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self.held, timeout=BEAT_EVERY.total_seconds())
                if not self.held:
                    self._beating = None
                    return
                claims = [held.claim for held in self.held.values()]
            for claim in claims:
                try:
                    claim.beat()
                except Exception as error:  # noqa: BLE001 - whatever it is, the next beat may get through
                    _logger.warning("Could not say that this process is alive: %s", error)


_process = _Process()
