"""Launching an agent."""

from statevault.launcher.config import LaunchConfig
from statevault.launcher.composition import launch

__all__ = ["LaunchConfig", "launch"]
