"""Small JSON records that hold their own digest, so that a torn or edited one is told from a good one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from statevault.codecs import digest
from statevault.errors import CorruptStateError, FormatError, UnsupportedTypeError

__all__ = ["from_sealed_json", "sealed_json"]

_DIGEST = "digest"


def sealed_json(fields: Mapping[str, JsonValue]) -> bytes:
    """Encode a record for people to read, with its digest.

    Args:
        fields: The record; it has no field ``digest``.

    Raises:
        UnsupportedTypeError: It is not JSON.
    """
    try:
        record = {**fields, _DIGEST: _digest_of(fields)}
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedTypeError(f"a record must be JSON: {error}") from error
    return json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n"


def from_sealed_json(data: bytes, *, where: str) -> dict[str, JsonValue]:
    """Decode a record and check its digest.

    Args:
        data: Its bytes.
        where: What it is and where it lies, for messages.

    Returns:
        Its fields, without the digest. A record without one, which another program wrote, is taken as it is.

    Raises:
        FormatError: It is not a JSON object.
        CorruptStateError: It does not match its digest.
    """
    try:
        fields: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise FormatError(f"{where} is not a JSON object")
    claimed = fields.pop(_DIGEST, None)
    try:
        actual = _digest_of(fields, allow_nan=claimed is None)
    except (ValueError, RecursionError) as error:
        # Python's parser takes more than JSON has: NaN, which other programs write, and halves of surrogate pairs.
        raise FormatError(f"{where} is not JSON: {error}") from None
    if claimed is not None and claimed != actual:
        raise CorruptStateError(
            f"{where} does not match its digest: it is damaged. If it was edited on purpose, delete its line "
            f'"{_DIGEST}"'
        )
    return fields


def _digest_of(fields: Mapping[str, JsonValue], *, allow_nan: bool = False) -> str:
    text = json.dumps(dict(fields), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)
    return digest(text.encode()).hex()
