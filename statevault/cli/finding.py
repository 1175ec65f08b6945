"""What a finding of ``statevault doctor`` is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Finding", "Verdict"]

Verdict = Literal["ok", "note", "fails"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: What was looked at.
        verdict: ``"ok"``; ``"note"``: worth knowing; ``"fails"``: statevault can't do its work.
        found: What was seen.
        means: What that means for statevault.
        measured: The numbers, in bytes and seconds.
    """

    check: str
    verdict: Verdict
    found: str
    means: str
    measured: dict[str, Any] = field(default_factory=dict)
