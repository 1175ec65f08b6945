"""Sizes and lengths of time as people write them on a command line."""

from __future__ import annotations

import re
from datetime import timedelta

import typer

__all__ = ["parsed_duration", "parsed_size"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(i?)b?|b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[shdwy])", re.IGNORECASE)
_LONGEST = 32
_POWERS = {letter: power for power, letter in enumerate("kmgtp", start=1)}
_UNITS = {
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}


def parsed_size(text: str) -> int:
    """Bytes of ``50GB``, ``1.5 GiB``, ``800k`` or ``1024``: powers of 1000, with an i those of 1024.

    Raises:
        typer.BadParameter: It is none, or less than a byte, or more than 8 EiB.
    """
    match = _SIZE.fullmatch(text.strip())
    count = 0
    if match is not None and len(text) <= _LONGEST:
        power = _POWERS.get((match[2] or "").lower(), 0)
        count = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if not 1 <= count < 2**63:
        raise typer.BadParameter(f"{text!r} is no size: write 50GB, 1.5GiB, 800MB or a number of bytes")
    return count


def parsed_duration(text: str) -> timedelta:
    """The length of time of ``90s``, ``30min``, ``12h``, ``30d``, ``2w`` or ``1y`` (365 days), or several: ``1d12h``.

    Raises:
        typer.BadParameter: It is none, or too long.
    """
    total = timedelta(0)
    rest = text.strip()
    try:
        while match := _DURATION.match(rest):
            total += float(match[1]) * _UNITS[match[2].lower()]
            rest = rest[match.end() :].lstrip()
    except OverflowError:
        rest = text
    if rest or text.strip() == "":
        raise typer.BadParameter(f"{text!r} is no length of time: write 90s, 30min, 12h, 30d, 2w or 1y; months in days")
    return total
