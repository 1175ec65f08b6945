"""Sizes and lengths of time, as people write and read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from statevault.cli.output import duration
from statevault.cli.quantities import parsed_duration, parsed_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1024", 1024),
        ("7B", 7),
        ("50GB", 50 * 10**9),
        ("50 gb", 50 * 10**9),
        ("50g", 50 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("800k", 800_000),
        ("2Ki", 2048),
        ("3TB", 3 * 10**12),
        ("1PiB", 2**50),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parsed_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "0", "0.5", "1XB", "1GBB", "1.2.3MB", "ten", "1iB", "inf", "9" * 400]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no size"):
        parsed_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30min", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(days=14)),
        ("1Y", timedelta(days=365)),
        ("1d12h", timedelta(days=1.5)),
        ("1 d 12 h", timedelta(days=1.5)),
        ("0.5d", timedelta(hours=12)),
        ("0s", timedelta(0)),
    ],
)
def test_lengths_of_time(text: str, expected: timedelta) -> None:
    assert parsed_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "30", "d", "-1d", "1dd", "1 month", "9999999999y", "1d x", "6m", "6M", "1y6m"]
)
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no length of time"):
        parsed_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.000015, "15 µs"), (0.0123, "12 ms"), (0.5, "500 ms"), (1.26, "1.3 s"), (119, "119 s"), (600, "10 min"),
     (36_000, "10 h"), (864_000, "10 days")],
)  # fmt: skip
def test_durations_are_shown_as_people_read_them(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
