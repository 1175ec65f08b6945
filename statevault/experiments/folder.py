"""The folder of an experiment: what it begins with, its totals, its results and backups."""

from __future__ import annotations

import logging
import operator
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from pydantic import JsonValue
from upath import UPath

from statevault.errors import ExperimentNotFoundError, InvalidNameError, ObjectNotFoundError
from statevault.experiments.agent_keys import (
    AgentsOf,
    KeyOf,
    MakePickler,
    agents_of_network,
    algorithm_pickler,
    put_back,
)
from statevault.experiments.algorithm import check_algorithms
from statevault.experiments.backup import BackupArchive
from statevault.experiments.checkpoints import TrialCheckpoints
from statevault.experiments.computed_metrics import ComputedMetrics
from statevault.experiments.held import HeldClaims
from statevault.experiments.layout import ALGORITHMS_KEY, PROBLEM_KEY, RESULTS
from statevault.experiments.metadata_file import MetadataFile
from statevault.experiments.own_objects import own_objects
from statevault.experiments.pickles import PickledObjects
from statevault.experiments.records import AlgorithmEntry, ExperimentMetadata
from statevault.sealed import SealedFiles
from statevault.state_persistence.metadata import check_metadata
from statevault.state_persistence.retention import KeepLatest, RetentionPolicy
from statevault.state_persistence.whole_numbers import whole_number
from statevault.storage import Storage, normalized_url, open_storage, parent_and_name

__all__ = ["ExperimentFolder"]

_logger = logging.getLogger(__name__)


class ExperimentFolder:
    """The part of a :class:`~statevault.experiments.CheckpointManager` that is about the experiment as a whole."""

    def __init__(
        self,
        checkpoint_dir: str | os.PathLike[str] | UPath | Storage,
        checkpoint_step: int | None = None,
        keep_n_checkpoints: int | RetentionPolicy = 3,
        benchmark_metadata: Mapping[str, JsonValue] | None = None,
        compression_level: int = 1,
        *,
        storage_options: Mapping[str, Any] | None = None,
        key_of: KeyOf | None = None,
        agents_of: AgentsOf = agents_of_network,
    ) -> None:
        if checkpoint_step is not None:
            checkpoint_step = whole_number("checkpoint_step", checkpoint_step, minimum=1)
        if not isinstance(keep_n_checkpoints, RetentionPolicy):
            keep_n_checkpoints = whole_number("keep_n_checkpoints", keep_n_checkpoints, minimum=1)
        if not -100 <= compression_level <= 22:
            raise ValueError(f"compression_level must be a level of zstd, -100 to 22, not {compression_level!r}")
        if isinstance(checkpoint_dir, UPath):
            storage_options = {**checkpoint_dir.storage_options, **(storage_options or {})}
        place = checkpoint_dir if isinstance(checkpoint_dir, Storage) else normalized_url(checkpoint_dir)
        self._arguments: dict[str, Any] = {
            "checkpoint_dir": place,
            "checkpoint_step": checkpoint_step,
            "keep_n_checkpoints": keep_n_checkpoints,
            "benchmark_metadata": benchmark_metadata,
            "compression_level": compression_level,
            "storage_options": storage_options,
            "key_of": key_of,
            "agents_of": agents_of,
        }
        self._checkpoint_step = checkpoint_step
        self._policy = (
            keep_n_checkpoints if isinstance(keep_n_checkpoints, RetentionPolicy) else KeepLatest(keep_n_checkpoints)
        )
        self._benchmark_metadata = None if benchmark_metadata is None else check_metadata(benchmark_metadata)
        self._options = dict(storage_options or {})
        self._key_of = key_of
        self._agents_of = agents_of
        self._storage = place if isinstance(place, Storage) else open_storage(place, self._options)
        self._pickles = PickledObjects(SealedFiles(self._storage), compression_level)
        # Two endpoints may have buckets of one name, and two storages of a caller's own one URL.
        own = id(place) if isinstance(place, Storage) else sorted(self._options.items(), key=str)
        scope = f"{self._storage.url} {own}"
        self._claims = HeldClaims(self._storage, scope)
        self._metadata = MetadataFile(self._storage, self._claims)
        self._metrics = ComputedMetrics(self._storage, self._pickles)
        self._worked_on: dict[tuple[int, int], TrialCheckpoints] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What another process makes the same manager of. It holds none of this one's claims."""
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self.__init__(**arguments)  # type: ignore[misc]  # as a new one: nothing else is kept

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CheckpointManager {self.url}>"

    @property
    def url(self) -> str:
        """The folder, without credentials."""
        return self._storage.url

    def close(self) -> None:
        """Give up the claims of this process on the experiment, and give connections back."""
        self._claims.release_all()
        self._storage.close()

    # -- the experiment

    def is_empty(self) -> bool:
        """Whether nothing lies in the folder.

        Raises:
            StorageError: The storage failed.
        """
        return next(iter(self._storage.list()), None) is None

    def initialize(
        self, algorithms: Sequence[Any], problem: Any, n_trials: int, *, rng_seed: int | None = None
    ) -> None:
        """Write what an experiment begins with. With the last of it, the metadata, it exists.

        Args:
            algorithms: Each with a ``name`` of its own and a number of ``iterations``, as they are before they run.
            problem: What they are to solve: any object.
            n_trials: How many trials of each.
            rng_seed: What the seeds of the trials are derived from.

        Raises:
            ExperimentExistsError: The folder holds an experiment.
            ValueError: There is no algorithm, two have one name, or a number is not positive.
            TypeError: A name is no string, or a number no integer.
            UnsupportedTypeError: Pickle can't take something.
            StorageError: The storage failed.
        """
        n_trials = whole_number("n_trials", n_trials, minimum=1)
        check_algorithms(algorithms)
        metadata = ExperimentMetadata(
            n_trials=n_trials,
            algorithms=[
                AlgorithmEntry(name=algorithm.name, iterations=operator.index(algorithm.iterations), index=index)
                for index, algorithm in enumerate(algorithms)
            ],
            benchmark_metadata=self._benchmark_metadata,
            rng_seed=rng_seed,
            id=secrets.token_hex(8),
        )

        def write_what_it_begins_with() -> ExperimentMetadata:
            self._pickles.put(PROBLEM_KEY, problem, {"kind": "problem"})
            self._pickles.put(
                ALGORITHMS_KEY, list(algorithms), {"kind": "algorithms"}, pickler=self._pickler(list(algorithms))
            )
            return metadata

        self._metadata.create(write_what_it_begins_with)

    def create_backup(self) -> UPath:
        """Copy the folder into a zip archive beside it, ``<folder>_backup_<time>.zip``.

        Returns:
            The archive.

        Raises:
            FileExistsError: An archive of that name is there.
            InvalidNameError: There is nothing beside the folder: it is a whole bucket.
            StorageError: The storage failed.
        """
        try:
            if isinstance(self._arguments["checkpoint_dir"], Storage):
                raise InvalidNameError("a storage of one's own has no parent")
            parent, name = parent_and_name(self._arguments["checkpoint_dir"])
        except InvalidNameError as error:
            raise InvalidNameError(f"{self.url} has no place beside it for a backup: use a folder below it") from error
        storage = open_storage(parent, self._options)
        try:
            archive = f"{name}_backup_{datetime.now().astimezone():%Y%m%d_%H%M%S}.zip"
            if storage.exists(archive):
                raise FileExistsError(f"{archive} is in {storage.url} already: try again in a second")
            storage.put(archive, BackupArchive(self._storage), create_only=True)
            return storage.path(archive)
        finally:
            storage.close()

    def load_metadata(self) -> dict[str, Any]:
        """The metadata: ``n_trials``, ``algorithms``, and, where they are given, ``benchmark_metadata``, ``rng_seed``.

        Raises:
            ExperimentNotFoundError: The folder holds no experiment.
            FormatError: The metadata is not as it must be.
            CorruptStateError: It is damaged.
            StorageError: The storage failed.
        """
        return self._metadata.read().to_dict()

    def append_metadata(self, metadata: Mapping[str, JsonValue]) -> None:
        """Merge into the ``benchmark_metadata``. Several processes that do so at once take turns.

        Args:
            metadata: New keys, and new values of old ones.

        Raises:
            ExperimentNotFoundError: The folder holds no experiment.
            TrialTakenError: Another process has been changing the metadata for half a minute.
            UnsupportedTypeError: `metadata` is not JSON.
            StorageError: The storage failed.
        """
        checked = check_metadata(metadata)

        def merged(now: ExperimentMetadata) -> ExperimentMetadata:
            return now.model_copy(update={"benchmark_metadata": {**(now.benchmark_metadata or {}), **checked}})

        self._metadata.change(merged)

    def load_initial_algorithms(self) -> list[Any]:
        """The algorithms as they were before they ran, with the iterations that the metadata gives them now.

        **This runs code that the file names.**

        Raises:
            ExperimentNotFoundError: The folder holds no experiment.
            CorruptStateError: They are damaged.
            StorageError: The storage failed.
        """
        metadata = self._metadata.read()
        algorithms = self._load(ALGORITHMS_KEY)
        for algorithm, entry in zip(algorithms, metadata.algorithms, strict=True):
            put_back(algorithm, None, self._agents_of, self._key_of)
            _set_iterations(algorithm, entry.iterations)
        return list(algorithms)

    def load_benchmark_problem(self) -> Any:
        """The problem.

        **This runs code that the file names.**

        Raises:
            ExperimentNotFoundError: The folder holds no experiment.
            CorruptStateError: It is damaged.
            StorageError: The storage failed.
        """
        return self._load(PROBLEM_KEY)

    def _load(self, key: str) -> Any:
        try:
            return self._pickles.get(key)
        except ObjectNotFoundError:
            raise ExperimentNotFoundError(
                f"{key} is not in {self.url}: it holds no experiment, or not a whole one"
            ) from None

    def is_benchmark_started(self) -> bool:
        """Whether the folder holds an experiment.

        Raises:
            StorageError: The storage failed.
        """
        return self._metadata.exists()

    def put_result(self, name: str, data: bytes) -> UPath:
        """Store a file below ``results/``, in the place of what lies there.

        Args:
            name: Its name.
            data: Its content.

        Raises:
            InvalidNameError: The name leads out of the folder.
            StorageError: The storage failed.
        """
        if not name or any(part in ("", ".", "..") for part in name.split("/")):
            raise InvalidNameError(f"{name!r} is no name of a file below results/")
        self._storage.put(RESULTS + name, data)
        return self._storage.path(RESULTS + name)

    def get_results_path(self) -> UPath:
        """The folder for tables and plots; a :class:`pathlib.Path` as well where the storage is local."""
        return self._storage.path(RESULTS.rstrip("/"))

    def checkpoint_size(self) -> int:
        """How much room the folder takes, in whole MB.

        Raises:
            StorageError: The storage failed.
        """
        return sum(found.size for found in own_objects(self._storage)) // 10**6

    def clear(self) -> None:
        """Delete everything that the experiment wrote. Files of others stay. Workers notice at their next checkpoint.

        Raises:
            StorageError: The storage failed.
        """
        self._claims.release_all()
        own = [found.key for found in own_objects(self._storage)]
        # Without the metadata there is no experiment, whatever a crash leaves of it.
        self._storage.delete([key for key in own if "/" not in key])
        self._storage.delete([key for key in own if "/" in key])
        self._worked_on.clear()

    def _pickler(self, algorithms: Sequence[Any]) -> MakePickler | None:
        return None if self._key_of is None else algorithm_pickler(algorithms, self._key_of)


def _set_iterations(algorithm: Any, iterations: int) -> None:
    if algorithm.iterations != iterations:
        with suppress(AttributeError):  # it does not let itself be told; whoever runs it goes by the metadata
            algorithm.iterations = iterations
