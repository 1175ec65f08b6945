"""What anybody may have written is shown without driving a terminal, and JSON is JSON."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

from statevault.format.plain_text import plain, plain_json

HOSTILE = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *"\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff",
    "\ud800",
    "\U000e0041",
]


@pytest.mark.parametrize("char", HOSTILE, ids=ascii)
def test_what_cannot_be_seen_is_an_escape(char: str) -> None:
    assert plain(f"a{char}b") == f"a{ascii(char)[1:-1]}b"
    text = plain_json({f"a{char}b": [char]}, indent=2)
    assert json.loads(text) == {f"a{char}b": [char]}
    assert text.replace("\n", "").isprintable()
    text.encode()


@pytest.mark.parametrize("text", ["", "plain", "Größe 大小 \u3000\xa0 é e\u0301 😀", "\\x1b", "[red]x[/]"])
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert plain(text) == text
    assert json.loads(plain_json(text)) == text
    assert plain_json({"text": text}) == json.dumps({"text": text}, ensure_ascii=False)
    assert plain_json(text, ascii_only=True).isascii()


def test_no_control_or_format_character_of_unicode_passes() -> None:
    unseen = [
        char for char in map(chr, range(0x110000)) if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    ]
    for shown in (plain("".join(unseen)), plain_json(unseen), plain_json(unseen, ascii_only=True)):
        assert shown.isprintable()
    assert json.loads(plain_json(unseen)) == unseen


def refused(constant: str) -> Any:
    raise AssertionError(constant)


def test_numbers_that_json_has_not_are_null() -> None:
    value = {"a": float("nan"), "b": [float("inf"), (1.5, -float("inf"))], "c": {"d": {"e": float("nan")}}, "f": 0.0}
    read = json.loads(plain_json(value), parse_constant=refused)
    assert read == {"a": None, "b": [None, [1.5, None]], "c": {"d": {"e": None}}, "f": 0.0}
