"""The JSON records of an experiment (``docs/format.md``, section 10)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from statevault.errors import FormatError
from statevault.sealed import from_sealed_json, sealed_json

__all__ = [
    "AlgorithmEntry",
    "CompletionRecord",
    "ExperimentMetadata",
    "KeptCheckpoint",
    "MetricsMarker",
    "ProgressRecord",
]

_TOO_MANY = 2**63
_Count = Annotated[int, Field(ge=0, lt=_TOO_MANY)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    kind: ClassVar[str]

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Decode and validate.

        Raises:
            FormatError: It is no such record.
            CorruptStateError: It does not match its digest.
        """
        what = f"the {cls.kind} {where}"
        try:
            return cls.model_validate(from_sealed_json(data, where=what))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise FormatError(f"{what} is not as it must be: {place}: {first['msg']}") from None

    def to_bytes(self) -> bytes:
        """Encode, with a digest. Fields that are None are left out."""
        return sealed_json(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None."""
        return self.model_dump(mode="json", exclude_none=True)


class AlgorithmEntry(BaseModel):
    """One algorithm of an experiment.

    Attributes:
        name: Its name, unique in the experiment.
        iterations: How many iterations a trial of it has.
        index: Its number.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    name: str
    iterations: _Count
    index: _Count


class ExperimentMetadata(_Record):
    """What an experiment consists of. The totals hold for every resume.

    Attributes:
        n_trials: How many trials of each algorithm.
        algorithms: The algorithms, by their number.
        benchmark_metadata: What users keep beside it.
        rng_seed: What the seeds of the trials are derived from.
        id: What tells this experiment from every other, also from one that was in this folder before.
    """

    kind = "metadata of the experiment"
    n_trials: Annotated[int, Field(ge=1, lt=_TOO_MANY)]
    algorithms: list[AlgorithmEntry]
    benchmark_metadata: dict[str, JsonValue] | None = None
    rng_seed: int | None = None
    id: str | None = None

    @field_validator("algorithms")
    @classmethod
    def _numbered_in_order(cls, algorithms: list[AlgorithmEntry]) -> list[AlgorithmEntry]:
        for position, entry in enumerate(algorithms):
            if entry.index != position:
                raise ValueError(f"the algorithm in place {position} has the index {entry.index}")
        return algorithms


class KeptCheckpoint(BaseModel):
    """A checkpoint that was there when progress was noted.

    Attributes:
        iteration: After which iteration it was taken.
        order: Its place in the order of saving.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    iteration: _Count
    order: _Count


class ProgressRecord(_Record):
    """How far a trial is. For people: nothing depends on it.

    Attributes:
        last_completed_iteration: The iteration of the newest checkpoint.
        checkpoints: The checkpoints, in the order of saving.
    """

    kind = "progress record"
    last_completed_iteration: _Count
    checkpoints: list[KeptCheckpoint] = Field(default_factory=list)


class CompletionRecord(_Record):
    """A trial is complete.

    Attributes:
        alg_name: The name of its algorithm.
        alg_idx: The number of its algorithm.
        trial: Its number.
        iteration: The last iteration.
        checkpoint_path: The base name of the checkpoint after it: the folder may be moved.
        of_iterations: How many iterations there were to be then. If there are more now, the record counts for nothing.
    """

    kind = "completion record"
    alg_name: str
    alg_idx: _Count
    trial: _Count
    iteration: _Count
    checkpoint_path: str
    of_iterations: _Count | None = None

    @property
    def checkpoint_name(self) -> str:
        """The base name of the checkpoint: records of older runs hold the path of where the folder was then."""
        return self.checkpoint_path.replace("\\", "/").rpartition("/")[2]


class MetricsMarker(_Record):
    """The metrics are computed, of all that there was.

    Attributes:
        payload_digest: The digest that the seal of the metrics states.
        n_trials: How many trials of each algorithm there were.
        iterations: How many iterations each algorithm had, by its number.
        network_views_left_out: Whether the field ``network_views`` is to be rebuilt.
    """

    kind = "record of computed metrics"
    payload_digest: str
    n_trials: _Count
    iterations: list[_Count]
    network_views_left_out: bool = False
