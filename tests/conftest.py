"""Fixtures of the whole test suite."""

import pytest

# So that a failed assert in it shows its values, as one in a test module does.
pytest.register_assert_rewrite("tests.storage.contract")

from tests.servers import servers, target  # noqa: E402 - after what it must come after

__all__ = ["servers", "target"]
