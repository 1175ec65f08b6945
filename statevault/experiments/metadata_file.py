"""``metadata.json``: with it the experiment exists; its totals hold for every resume."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from statevault.errors import (
    ExperimentExistsError,
    ExperimentNotFoundError,
    ObjectNotFoundError,
    TrialTakenError,
)
from statevault.experiments.held import HeldClaims
from statevault.experiments.layout import METADATA_CLAIMS, METADATA_KEY
from statevault.experiments.records import ExperimentMetadata
from statevault.storage import Storage

__all__ = ["MetadataFile"]

_PATIENCE_S = 30.0
# Not the global generator, which is the algorithms'.
_OWN_RANDOM = random.SystemRandom()


class MetadataFile:
    """The metadata of one experiment.

    Args:
        storage: The folder of the experiment.
        claims: Those of this process on it.
    """

    def __init__(self, storage: Storage, claims: HeldClaims) -> None:
        self._storage = storage
        self._claims = claims

    def exists(self) -> bool:
        """Whether the experiment exists.

        Raises:
            StorageError: The storage failed.
        """
        return self._storage.exists(METADATA_KEY)

    def read(self) -> ExperimentMetadata:
        """Read it.

        Raises:
            ExperimentNotFoundError: There is none.
            FormatError: It is no such record.
            CorruptStateError: It is damaged.
            StorageError: The storage failed.
        """
        try:
            data = self._storage.get(METADATA_KEY)
        except ObjectNotFoundError:
            raise ExperimentNotFoundError(
                f"there is no experiment in {self._storage.url}: initialize() it first, or the path is wrong"
            ) from None
        return ExperimentMetadata.from_bytes(data, where=f"{METADATA_KEY} in {self._storage.url}")

    def create(self, write: Callable[[], ExperimentMetadata]) -> None:
        """Write it for the first time; of several processes that do so at once, one does.

        Args:
            write: Writes what an experiment begins with, and returns its metadata.

        Raises:
            ExperimentExistsError: There is one.
            TrialTakenError: Another process has been at it for half a minute.
            StorageError: The storage failed.
        """

        def begin() -> ExperimentMetadata:
            if self.exists():
                raise ExperimentExistsError(
                    f"{self._storage.url} holds an experiment already: resume it, clear() it, or choose another folder"
                )
            return write()

        self._in_turn(begin)

    def change(self, how: Callable[[ExperimentMetadata], ExperimentMetadata]) -> ExperimentMetadata:
        """Change it; several processes that do so at once take turns.

        Args:
            how: Makes the new one of the one that is there.

        Returns:
            The new one.

        Raises:
            ExperimentNotFoundError: There is none.
            TrialTakenError: Another process has been at it for half a minute.
            StorageError: The storage failed.
        """
        return self._in_turn(lambda: how(self.read()))

    def _in_turn(self, make: Callable[[], ExperimentMetadata]) -> ExperimentMetadata:
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with self._claims.exclusively(METADATA_CLAIMS):
                    made = make()
                    self._storage.put(METADATA_KEY, made.to_bytes())
                    return made
            except TrialTakenError:
                if time.monotonic() > until:
                    raise
                time.sleep(_OWN_RANDOM.uniform(0.1, 0.5))
