"""The log of saves."""

from __future__ import annotations

from statevault.threads import SaveLog, SavePhase


def test_wishes_before_a_snapshot_share_it_and_later_ones_do_not() -> None:
    log = SaveLog()
    first = log.request()
    assert log.request() == first
    assert log.begin() == first.id
    assert not log.waiting
    second = log.request()
    assert second.id != first.id
    assert [report.id for report in log.recent(10)] == [second.id, first.id]


def test_a_save_that_nobody_asked_for_is_logged_as_well() -> None:
    log = SaveLog()
    report = log.get(log.begin())
    assert report is not None
    assert (report.requested, report.phase) == (False, SavePhase.SNAPSHOT)


def test_old_reports_are_forgotten_and_changes_to_them_do_nothing() -> None:
    log = SaveLog(capacity=3)
    ids = [log.begin() for _ in range(5)]
    log.update(ids[0], phase=SavePhase.COMMITTED)
    assert log.get(ids[0]) is None
    log.update(ids[-1], phase=SavePhase.COMMITTED, name="a.state")
    newest = log.recent(1)[0]
    assert (newest.id, newest.name, newest.phase.ended) == (ids[-1], "a.state", True)
    assert [report.id for report in log.recent(10)] == ids[:1:-1]
