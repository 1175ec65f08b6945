"""Saves and loads under a limit of the process: ``run_limited.py STATES_DIR LIMIT MEGABYTES``, beyond what it has.

No thread was started before, whose heap others could use.
"""

from __future__ import annotations

import resource
import sys

from statevault.state_persistence import StateStore
from tests.state_persistence.components import Folder

if __name__ == "__main__":
    states_dir, limit, megabytes = sys.argv[1:]
    folder = Folder({f"{number}.bin": bytes([number]) * 2_000_000 for number in range(8)})
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - needs little
        pages = int(statm.read().split()[0])
    most = pages * resource.getpagesize() + int(megabytes) * 1024**2
    resource.setrlimit(getattr(resource, limit), (most, resource.RLIM_INFINITY))
    with StateStore(states_dir) as store:
        store.register("folder", folder)
        store.save_state(name="second")
        print("saved", flush=True)
        store.load_state("second")
        print("loaded", flush=True)
