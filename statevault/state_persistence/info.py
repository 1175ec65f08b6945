"""What a user gets to know about a state without reading it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self

from pydantic import JsonValue
from upath import UPath

from statevault.format.records import CommitRecord

__all__ = ["EXIT", "LoadedState", "StateInfo"]

EXIT = "exit"
"""The key of a state's metadata under which a run notes how it ended: ``"clean"`` or ``"error: …"``."""


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A committed state, as its commit marker describes it.

    Attributes:
        name: Its name, unique for ever in its store.
        path: Its folder; a :class:`pathlib.Path` as well when the store is local.
        sequence: Its place in the order of states.
        created_at: The instant of its cut by the clock of its writer (UTC). For people: clocks of edge devices jump.
        writer: ``<host>:<pid>:<random>`` of the process that saved it.
        files: How many files it has.
        size: Bytes of its files.
        stored_size: Bytes they take in the store, shared ones included.
        new_size: Bytes that this save uploaded for them.
        base: The name of the state whose chunks it reuses, if any.
        components: Names of the components in it.
        metadata: What was given to ``save_state(metadata=…)``.
    """

    name: str
    path: UPath
    sequence: int
    created_at: datetime
    writer: str
    files: int
    size: int
    stored_size: int
    new_size: int
    base: str | None
    components: tuple[str, ...]
    metadata: dict[str, JsonValue] = field(hash=False)

    @property
    def is_after_error(self) -> bool:
        """Whether it was saved when an error had ended its run: ``"latest"`` prefers others."""
        return str(self.metadata.get(EXIT, "")).startswith("error")

    @classmethod
    def from_record(cls, record: CommitRecord, path: UPath) -> Self:
        """Describe the state of a commit marker whose folder is `path`."""
        return cls(
            name=record.state,
            path=path,
            sequence=record.sequence,
            created_at=record.created_at,
            writer=record.writer,
            files=record.files,
            size=record.size,
            stored_size=record.stored_size,
            new_size=record.new_size,
            base=record.base,
            components=tuple(record.components),
            metadata=record.metadata,
        )


@dataclass(frozen=True, slots=True)
class LoadedState(StateInfo):
    """A state, and what of it was loaded.

    Attributes:
        loaded: The names of the components that were loaded, in this order; ``component/member`` where it was not all
            of one.
        missing: Those that are registered, and were to be loaded, but are not in the state.
        left_over: Those in the state that nothing is registered for.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    @classmethod
    def of(
        cls, state: StateInfo, *, loaded: tuple[str, ...], missing: tuple[str, ...], left_over: tuple[str, ...]
    ) -> LoadedState:
        """Describe what was loaded from a state."""
        return cls(**_described(state), loaded=loaded, missing=missing, left_over=left_over)

    @property
    def info(self) -> StateInfo:
        """The state alone, equal to what a store says of it."""
        return StateInfo(**_described(self))


def _described(state: StateInfo) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in fields(StateInfo)}
