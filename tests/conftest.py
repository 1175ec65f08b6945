"""Fixtures of the whole test suite."""

import faulthandler
import signal
from collections.abc import Generator

import pytest

# So that a failed assert in it shows its values, as one in a test module does.
pytest.register_assert_rewrite("tests.storage.contract")

from tests.servers import servers, target  # noqa: E402 - after what it must come after

__all__ = ["servers", "target"]


# A shell lets what it starts in the background ignore Ctrl-C, with all that these start: tests send it to theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Let tests that may take long by their own word do so: no dump of all stacks, which can crash busy threads."""
    limit = item.get_closest_marker("timeout")
    if limit is not None and limit.args and limit.args[0] > float(item.config.getini("faulthandler_timeout")):
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a report travel to the process that collects them, also where a test has logged what no UTF-8 can hold."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
