"""The small JSON records of the protocol (``docs/format.md``, section 2).

Every record goes through :meth:`Record.to_json` and :meth:`Record.from_json`, the one place that decides
whether this version of statevault may read it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    ValidationError,
)

from statevault.errors import FormatError, UnsupportedVersionError
from statevault.format.keys import MAX_SEQUENCE
from statevault.format.names import check_component_name, check_pin_name, check_state_name
from statevault.format.plain_text import finite

__all__ = [
    "FORMAT_VERSION",
    "MAX_INTENT_STATES",
    "MAX_MANIFEST_SIZE",
    "MAX_RECORD_SIZE",
    "AbortRecord",
    "CommitRecord",
    "FormatRecord",
    "IdRecord",
    "IntentRecord",
    "ManifestRef",
    "PinRecord",
    "Record",
    "SessionRecord",
    "TombstoneRecord",
    "in_utc",
]

FORMAT_VERSION = 1
MAX_RECORD_SIZE = 16 * 1024 * 1024
"""Bytes; a larger record is refused before it is read. Bounds what a commit's metadata may hold."""
MAX_INTENT_STATES = 1000
MAX_MANIFEST_SIZE = 256 * 1024**2

StateName = Annotated[str, AfterValidator(check_state_name)]
ComponentName = Annotated[str, AfterValidator(check_component_name)]
PinName = Annotated[str, AfterValidator(check_pin_name)]
Sequence = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
Size = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Record(BaseModel):
    """One JSON object of the store, immutable once written."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    kind: ClassVar[str] = "record"
    version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """Encode: one line for each top-level field, so that people can read it."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> Self:
        """Decode and validate.

        Args:
            data: The object's bytes.
            where: Key and store, for messages.

        Raises:
            UnsupportedVersionError: The record is of a newer format.
            FormatError: The bytes are no such record.
        """
        try:
            fields: Any = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"the {cls.kind} {where} is not JSON: {error}") from None
        check_version(fields, where=f"the {cls.kind} {where}")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise FormatError(f"the {cls.kind} {where} is malformed: {field}: {first['msg']}") from None


def check_version(fields: Any, *, where: str) -> None:
    """Check that a decoded record or manifest is of a version that this code reads.

    Raises:
        UnsupportedVersionError: It is newer.
        FormatError: It has no version.
    """
    version = fields.get("version") if isinstance(fields, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise FormatError(f"{where} has no format version: it was not written by statevault")
    if version > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"{where} has format version {version}, this statevault reads up to {FORMAT_VERSION}: "
            "upgrade with `pip install -U statevault`. If no newer one has ever written there, somebody else has: then "
            "delete that object"
        )


def in_utc(moment: datetime) -> datetime:
    """A moment in UTC; at the edge of the calendar, where UTC has no time for it, as if it were."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)


class FormatRecord(Record):
    """``_vault/format.json``: this folder is a store."""

    kind: ClassVar[str] = "store description"
    format: Literal["statevault"] = "statevault"


class SessionRecord(Record):
    """A save has begun."""

    kind: ClassVar[str] = "session"
    state: StateName
    sequence: Sequence
    writer: str
    base: StateName | None = None
    started_at: AwareDatetime


class ManifestRef(BaseModel):
    """How to know the right manifest when one sees it.

    Attributes:
        length: Bytes as stored.
        size: Bytes after decompression.
        digest: BLAKE3 of the bytes as stored, in hex.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    length: Annotated[int, Field(ge=1, le=MAX_MANIFEST_SIZE)]
    size: Annotated[int, Field(ge=1, le=MAX_MANIFEST_SIZE)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CommitRecord(Record):
    """The commit marker: with its PUT the state exists.

    Attributes:
        reuses: The other states in whose folders some of its objects lie.
        metadata: Numbers in it that JSON has not, which only others write, are read as None.
    """

    kind: ClassVar[str] = "commit marker"
    state: StateName
    sequence: Sequence
    created_at: AwareDatetime
    writer: str
    base: StateName | None = None
    reuses: Annotated[list[StateName], FailFast()] = Field(default_factory=list)
    files: Size
    size: Size
    stored_size: Size
    new_size: Size
    components: Annotated[list[ComponentName], FailFast()]
    metadata: Annotated[dict[str, JsonValue], BeforeValidator(finite)] = Field(default_factory=dict)
    manifest: ManifestRef


class TombstoneRecord(Record):
    """The state is gone for good, whatever else still lies there."""

    kind: ClassVar[str] = "tombstone"
    state: StateName
    sequence: Sequence
    by: str
    at: AwareDatetime
    reason: str = ""


class AbortRecord(Record):
    """A prune took the writer of this state for dead."""

    kind: ClassVar[str] = "abort"
    state: StateName
    by: str
    at: AwareDatetime


class IntentRecord(Record):
    """A prune is about to remove these states, unless they are pinned."""

    kind: ClassVar[str] = "intent"
    prune: str
    states: Annotated[list[StateName], Field(max_length=MAX_INTENT_STATES), FailFast()]
    by: str
    at: AwareDatetime


class PinRecord(Record):
    """The state must be kept as long as this record is there."""

    kind: ClassVar[str] = "pin"
    state: StateName
    pin: PinName
    by: str
    at: AwareDatetime


class IdRecord(Record):
    """This is the store that it is: under the same URL there may have been another one."""

    kind: ClassVar[str] = "id"
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    by: str
    at: AwareDatetime
