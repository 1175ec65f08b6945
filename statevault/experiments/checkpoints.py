"""The checkpoints of one trial: saved in an order, kept by a policy, loaded from the newest that is whole.

Invariants: the newest checkpoint is the one that was saved last, whatever its iteration; it is never deleted, nor is
the one that a completion names; what is no checkpoint is left alone. All that is known of a trial is found in its
folder: ``progress.json`` only repeats it.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from pydantic import JsonValue

from statevault.errors import CorruptStateError, FormatError, ObjectNotFoundError
from statevault.experiments.kept_sizes import KeptSizes
from statevault.experiments.layout import checkpoint_key, completion_key, parse_checkpoint, progress_key, trial_prefix
from statevault.experiments.pickles import PickledObjects
from statevault.experiments.records import CompletionRecord, KeptCheckpoint, ProgressRecord
from statevault.experiments.unsealed import check_unsealed
from statevault.sealed import SealedFiles
from statevault.state_persistence import StateInfo
from statevault.state_persistence.retention import CannotJudge, Holdings, RetentionPolicy, plan_retention
from statevault.storage import ObjectInfo, Storage

__all__ = ["Checkpoint", "TrialCheckpoints"]

_logger = logging.getLogger(__name__)
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that lies there.

    Attributes:
        order: Its place in the order of saving; 0 where nobody knows it: an older run saved it, or it is cut short.
        iteration: After which iteration it was taken.
        found: Where it lies.
    """

    order: int
    iteration: int
    found: ObjectInfo

    @property
    def name(self) -> str:
        """Its base name."""
        return self.found.key.rpartition("/")[2]


class TrialCheckpoints:
    """The checkpoints of one trial, and whether it is complete.

    What was listed is remembered: one object serves one worker, who holds the claim on the trial, or one look.

    Args:
        storage: The folder of the experiment.
        pickles: What makes files of checkpoints.
        alg_idx: The number of the algorithm.
        trial: The number of the trial.
    """

    def __init__(self, storage: Storage, pickles: PickledObjects, *, alg_idx: int, trial: int) -> None:
        self._storage = storage
        self._pickles = pickles
        self._files = SealedFiles(storage)
        self._alg_idx = alg_idx
        self._trial = trial
        self._listed: list[Checkpoint] | None = None
        self._own: set[int] = set()
        self._problems: tuple[CannotJudge, ...] = ()

    def checkpoints(self) -> list[Checkpoint]:
        """Those that lie there, in the order of saving.

        Raises:
            StorageError: The storage failed.
        """
        if self._listed is None:
            # Without an order are those of an older run, which came before all others, and those that were cut short.
            self._listed = sorted(self._list(), key=lambda checkpoint: (checkpoint.order, checkpoint.iteration))
        return self._listed

    def _list(self) -> Iterator[Checkpoint]:
        prefix = trial_prefix(self._alg_idx, self._trial)
        for found in self._storage.list(prefix + "checkpoint_"):
            iteration = parse_checkpoint(found.key.removeprefix(prefix))
            if iteration is None:
                continue
            try:
                info = self._files.look(found.key, found.size).info or {}
            except ObjectNotFoundError:
                continue  # retention of whoever works on the trial took it meanwhile
            order = info.get("order")
            yield Checkpoint(order if isinstance(order, int) and order > 0 else 0, iteration, found)

    def save(
        self, checkpoint: dict[str, Any], policy: RetentionPolicy, pickler: Callable[[IO[bytes]], pickle.Pickler] | None
    ) -> str:
        """Save a checkpoint, unless it is the newest already; then delete what the policy does not keep.

        Args:
            checkpoint: What is saved, with its ``iteration``.
            policy: Says which checkpoints to keep.
            pickler: Makes the pickler.

        Returns:
            The key of the checkpoint.

        Raises:
            UnsupportedTypeError: Pickle can't take it.
            StorageError: The storage failed.
        """
        iteration = checkpoint["iteration"]
        kept = self.checkpoints()
        if kept and kept[-1].iteration == iteration and self._is_whole(kept[-1]):
            return kept[-1].found.key
        order = 1 + max((checkpoint.order for checkpoint in kept), default=0)
        key = checkpoint_key(self._alg_idx, self._trial, iteration)
        info: dict[str, JsonValue] = {"kind": "checkpoint", "iteration": iteration, "order": order}
        stored = self._pickles.put(key, checkpoint, info, pickler=pickler)
        self._own.add(order)
        found = ObjectInfo(key, stored.size, datetime.now(UTC))
        self._listed = [*(other for other in kept if other.found.key != key), Checkpoint(order, iteration, found)]
        self._note_progress()
        self._retain(policy)
        return key

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.order in self._own:
            return True
        try:
            self._files.verify(checkpoint.found.key)
        except (CorruptStateError, ObjectNotFoundError):
            return False
        return checkpoint.order > 0

    def _note_progress(self) -> None:
        checkpoints = self.checkpoints()
        record = ProgressRecord(
            last_completed_iteration=checkpoints[-1].iteration,
            checkpoints=[KeptCheckpoint(iteration=each.iteration, order=each.order) for each in checkpoints],
        )
        self._storage.put(progress_key(self._alg_idx, self._trial), record.to_bytes())

    def _retain(self, policy: RetentionPolicy) -> None:
        checkpoints = {checkpoint.name: checkpoint for checkpoint in self.checkpoints()}
        complete = self.completion()
        plan = plan_retention(
            policy,
            Holdings(
                tuple(self._described(place, each) for place, each in enumerate(checkpoints.values(), start=1)),
                datetime.now(UTC),
                KeptSizes({name: each.found.size for name, each in checkpoints.items()}),
            ),
            pinned={} if complete is None else {complete.checkpoint_name: ("complete",)},
            pattern="*",
        )
        if plan.problems != self._problems:
            self._problems = plan.problems
            for problem in plan.problems:
                _logger.warning("keep_n_checkpoints can't judge those of trial %d: %s", self._trial, problem)
        gone = [state.name for state in plan.removed]
        if gone:
            self._storage.delete([checkpoints[name].found.key for name in gone])
            self._listed = [checkpoint for name, checkpoint in checkpoints.items() if name not in gone]

    def _described(self, place: int, checkpoint: Checkpoint) -> StateInfo:
        """A checkpoint as retention policies see states."""
        size = checkpoint.found.size
        return StateInfo(
            name=checkpoint.name,
            path=self._storage.path(checkpoint.found.key),
            sequence=place,
            created_at=checkpoint.found.modified or _LONG_AGO,
            writer="",
            files=1,
            size=size,
            stored_size=size,
            new_size=size,
            base=None,
            components=("algorithm", "network", "rng_state"),
            metadata={"iteration": checkpoint.iteration, "alg_idx": self._alg_idx, "trial": self._trial},
        )

    def newest_whole(self) -> dict[str, Any] | None:
        """Load the newest checkpoint that is whole.

        **This runs code that the file names.**

        Returns:
            What was saved; None if there is no checkpoint, or none that is whole. Damaged ones are reported in the log.

        Raises:
            StorageError: The storage failed.
            Exception: What unpickling a checkpoint raises that is whole.
        """
        damaged = 0
        self._report_cut()
        for checkpoint in reversed(self.checkpoints()):
            try:
                return self.load(checkpoint.found.key)
            except ObjectNotFoundError:
                continue
            except CorruptStateError as error:
                damaged += 1
                _logger.warning("%s; going back to the checkpoint before it", error)
        if damaged:
            _logger.error(
                "All %d checkpoints of trial %d of algorithm %d are damaged: it begins anew",
                damaged,
                self._trial,
                self._alg_idx,
            )
        return None

    def _report_cut(self) -> None:
        """Tell of checkpoints that seem to be newer than all that are whole, and are cut short."""
        checkpoints = self.checkpoints()
        last = max((checkpoint.iteration for checkpoint in checkpoints if checkpoint.order), default=None)
        for checkpoint in checkpoints:
            if last is not None and not checkpoint.order and checkpoint.iteration > last:
                try:
                    check_unsealed(self._storage, checkpoint.found.key)
                except ObjectNotFoundError:
                    continue
                except CorruptStateError as error:
                    _logger.warning("%s; going back to the checkpoint before it", error)

    def load(self, key: str) -> dict[str, Any]:
        """Load one checkpoint.

        **This runs code that the file names.**

        Raises:
            ObjectNotFoundError: It is not there.
            CorruptStateError: It is damaged, or no checkpoint.
            StorageError: The storage failed.
            Exception: What unpickling raises.
        """
        checkpoint = self._pickles.get(key)
        if not isinstance(checkpoint, dict) or not {"algorithm", "network", "iteration"} <= checkpoint.keys():
            raise CorruptStateError(f"{key} in {self._storage.url} is no checkpoint of an experiment")
        return checkpoint

    def complete(self, record: CompletionRecord) -> None:
        """Note that the trial is complete. Its checkpoint is there.

        Raises:
            StorageError: The storage failed.
        """
        self._storage.put(completion_key(self._alg_idx, self._trial), record.to_bytes())

    def completion(self) -> CompletionRecord | None:
        """The record that the trial is complete; None if it is not, or if the record is damaged (see the log).

        Raises:
            StorageError: The storage failed.
        """
        key = completion_key(self._alg_idx, self._trial)
        try:
            return CompletionRecord.from_bytes(self._storage.get(key), where=f"{key} in {self._storage.url}")
        except ObjectNotFoundError:
            return None
        except (FormatError, CorruptStateError) as error:
            _logger.warning("%s; the trial is taken for unfinished", error)
            return None

    def final_key(self, record: CompletionRecord, keys: Collection[str] | None = None) -> str | None:
        """The key of the final checkpoint; None if it is not there.

        Args:
            record: The record that the trial is complete.
            keys: All keys of the trial, if they are known.

        Raises:
            StorageError: The storage failed.
        """
        name = record.checkpoint_name
        if parse_checkpoint(name) is None:
            _logger.warning("The completion of trial %d names %r, which is no checkpoint", self._trial, name)
            return None
        key = trial_prefix(self._alg_idx, self._trial) + name
        if not (self._storage.exists(key) if keys is None else key in keys):
            _logger.warning("%s, with which the trial was complete, is not there: it is taken for unfinished", key)
            return None
        return key
