"""The time of the agent, by the names of the standard library's :mod:`time`.

Agents read and sleep by these functions instead of the standard library's, so that their time stands still
while the system is paused, runs at the ``time_scale`` of the launch, and goes on after a restart where it
stood when the state was saved. They are the methods of one :class:`TimeController` per process.
"""

from __future__ import annotations

import time as _system_time

from statevault.time.controller import TimeController

__all__ = [
    "TimeController",
    "fixed_sleep",
    "fixed_time",
    "get_global_time_controller",
    "get_time_scale",
    "is_paused",
    "load_state_dict",
    "monotonic",
    "pause",
    "perf_counter",
    "resume",
    "set_time_scale",
    "sleep",
    "state_dict",
    "time",
]

_controller = TimeController()

time = _controller.time
perf_counter = _controller.perf_counter
monotonic = _controller.monotonic
sleep = _controller.sleep
pause = _controller.pause
resume = _controller.resume
is_paused = _controller.is_paused
set_time_scale = _controller.set_time_scale
get_time_scale = _controller.get_time_scale
state_dict = _controller.state_dict
load_state_dict = _controller.load_state_dict

fixed_time = _system_time.time
fixed_sleep = _system_time.sleep


def get_global_time_controller() -> TimeController:
    """The clock whose methods this module's functions are."""
    return _controller
