"""How thorough the hypothesis tests of the codecs are."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.profiles import rounds


def codec_settings() -> settings:
    """Settings for the profile of this run."""
    return settings(
        max_examples=rounds(short=60, long=3000), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
