"""Launching an agent."""

from statevault.launcher.composition import launch
from statevault.launcher.config import LaunchConfig

__all__ = ["LaunchConfig", "launch"]
