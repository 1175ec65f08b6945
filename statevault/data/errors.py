"""The error of the data layer: a sample that is not what its buffer collects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from typing_extensions import override

from statevault.errors import StateVaultError

__all__ = ["SampleFieldsError"]


class SampleFieldsError(StateVaultError, KeyError, ValueError):
    """A sample's fields are not the ones that its buffer collects; the message names both."""

    @override
    def __str__(self) -> str:
        # KeyError shows repr(message), which is unreadable for a sentence.
        return Exception.__str__(self)

    @classmethod
    def for_sample(cls, sample: Any, expected: Iterable[str], *, owner: str) -> Self:
        """Return the error that says what is wrong with a sample.

        Args:
            sample: The sample.
            expected: The names of the fields that it should have.
            owner: Whose fields these are.
        """
        wanted = set(expected)
        fields = sorted(wanted)
        if not isinstance(sample, Mapping):
            return cls(f"{owner} collects mappings with the fields {fields}, got {type(sample).__name__}")
        parts = []
        if missing := sorted(wanted - sample.keys()):
            parts.append(f"missing {missing}")
        if unexpected := sorted(map(str, sample.keys() - wanted)):
            parts.append(f"unexpected {unexpected}")
        return cls(f"the sample's fields do not match {owner}'s: {', '.join(parts)}; it collects {fields}")
