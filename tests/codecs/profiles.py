"""Hypothesis profiles of the codec tests; chosen with ``STATEVAULT_HYPOTHESIS_PROFILE`` (dev, ci, nightly)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = {"dev": 60, "ci": 200, "nightly": 3000}


def codec_settings() -> settings:
    profile = os.environ.get("STATEVAULT_HYPOTHESIS_PROFILE", "dev")
    return settings(
        max_examples=_EXAMPLES.get(profile, 60), deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
