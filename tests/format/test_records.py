import json
from datetime import UTC, datetime

import pytest

from statevault.errors import FormatError, UnsupportedVersionError
from statevault.format.records import (
    AbortRecord,
    CommitRecord,
    FormatRecord,
    ManifestRef,
    PinRecord,
    Record,
    SessionRecord,
    TombstoneRecord,
)

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
COMMIT = CommitRecord(
    state="a.state",
    sequence=7,
    created_at=NOW,
    writer="host:1:abcd",
    files=3,
    size=100,
    stored_size=60,
    new_size=60,
    components=["models"],
    metadata={"reward": 231.5, "tags": ["a", None, True]},
    manifest=ManifestRef(length=10, size=20, digest="0" * 64),
)
RECORDS: list[Record] = [
    FormatRecord(),
    SessionRecord(state="a.state", sequence=7, writer="w", base=None, started_at=NOW),
    COMMIT,
    TombstoneRecord(state="a.state", sequence=7, by="w", at=NOW, reason="old"),
    AbortRecord(state="a.state", by="w", at=NOW),
    PinRecord(state="a.state", pin="best", by="w", at=NOW),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_records_come_back_as_they_were(record: Record) -> None:
    assert type(record).from_json(record.to_json(), where="here") == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_a_newer_record_is_refused_with_its_version(record: Record) -> None:
    newer = json.dumps({**json.loads(record.to_json()), "version": 2}).encode()
    with pytest.raises(UnsupportedVersionError, match="version 2"):
        type(record).from_json(newer, where="here")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_unknown_fields_are_ignored(record: Record) -> None:
    extended = json.dumps({**json.loads(record.to_json()), "later": 1}).encode()
    assert type(record).from_json(extended, where="here") == record


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b'{"version": "1"}', b'{"version": 0}', b"[" * 100_000]
)
def test_what_is_no_record_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError, match="here"):
        CommitRecord.from_json(data, where="here")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", "../x"),
        ("sequence", 0),
        ("sequence", 10**12),
        ("sequence", "7"),
        ("size", -1),
        ("files", 1.5),
        ("created_at", "2026-01-01T00:00:00"),
        ("manifest", {"length": 0, "size": 1, "digest": "0" * 64}),
        ("manifest", {"length": 2**40, "size": 1, "digest": "0" * 64}),
        ("manifest", {"length": 1, "size": 1, "digest": "xyz"}),
        ("components", ["a/b"]),
        ("metadata", []),
    ],
)
def test_a_malformed_field_is_named(field: str, value: object) -> None:
    data = json.dumps({**json.loads(COMMIT.to_json()), field: value}).encode()
    with pytest.raises(FormatError, match=field):
        CommitRecord.from_json(data, where="here")


def test_records_are_lines_that_people_can_read() -> None:
    text = COMMIT.to_json().decode()
    assert '\n "state": "a.state",\n' in text
    assert text.endswith("}\n")
