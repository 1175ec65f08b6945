"""What a saved policy says of itself: in the seal of its file (``docs/format.md``, section 9)."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from statevault.errors import FormatError
from statevault.format.names import check_distinct_paths, check_logical_path
from statevault.persistence.mode import PolicyMode

__all__ = ["KIND", "AdditionalFile", "PolicyRecord", "additional_folder", "is_policy_name", "parse_policy_name"]

KIND = "policy"
"""What the ``kind`` of a saved policy is."""

_NAME = re.compile(r"(?P<mode>policy(?:_state_dict)?)(?:_epoch_(?P<epoch>-?\d+))?\.pt")
_Count = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class AdditionalFile(BaseModel):
    """A file of additional state.

    Attributes:
        size: Bytes.
        digest: BLAKE3 of its content, in hex.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    size: Annotated[int, Field(ge=0, le=2**63 - 1)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _checked(files: dict[str, AdditionalFile]) -> dict[str, AdditionalFile]:
    for path in files:
        check_logical_path(path)
    check_distinct_paths(files)
    return files


class PolicyRecord(BaseModel):
    """The seal of a policy's file.

    Attributes:
        kind: That it is a policy.
        id: 16 hex digits that no other saved policy has; its additional files lie in a folder of this name.
        mode: How the policy is written.
        epoch: After which epoch it was saved.
        env_step: After how many steps of the environment.
        gradient_step: After how many steps of the optimizer.
        score: What it has scored, as far as that was known.
        best: Whether it was saved as the best so far.
        additional: The files of its additional state by logical path; None if it was saved without such.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    kind: Literal["policy"] = "policy"
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    mode: Literal["policy", "policy_state_dict"]
    epoch: _Count | None = None
    env_step: _Count | None = None
    gradient_step: _Count | None = None
    score: float | None = None
    best: bool = False
    additional: Annotated[dict[str, AdditionalFile], AfterValidator(_checked)] | None = None

    def to_info(self) -> dict[str, JsonValue]:
        """Encode as the information of a seal."""
        return self.model_dump(mode="json")

    @classmethod
    def from_info(cls, info: dict[str, JsonValue] | None, *, where: str) -> PolicyRecord | None:
        """Decode the information of a seal.

        Args:
            info: The information; None where there is no seal.
            where: The file, for messages.

        Returns:
            The record; None if the file is no policy of ours.

        Raises:
            FormatError: It says that it is one, but not what it has to say.
        """
        if info is None or info.get("kind") != KIND:
            return None
        try:
            return cls.model_validate(info)
        except (ValidationError, ValueError) as error:
            raise FormatError(f"the seal of {where} is malformed: {error}") from None


def additional_folder(name: str) -> str:
    """The folder of the additional states of a policy's file, with a slash at its end."""
    return f"{name.removesuffix('.pt')}.additional/"


def is_policy_name(name: str) -> bool:
    """Whether a file's name is one that a :class:`PolicyPersistence`, ours or Tianshou's, gives."""
    return _NAME.fullmatch(name) is not None


def parse_policy_name(name: str) -> tuple[PolicyMode, int | None]:
    """What such a name tells: how the policy is written, and after which epoch; None for the best.

    Raises:
        ValueError: It is no such name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a policy")
    return PolicyMode(match["mode"]), None if match["epoch"] is None else int(match["epoch"])
