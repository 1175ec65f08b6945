"""Saves, loads and removes states once the main thread has ended: ``run_late.py WHEN URL OPTIONS [SPOOL]``.

WHEN is ``atexit``, ``thread`` (one that outlives the main thread), or ``no-threads``: such a thread, when no other one
can be started any more, as in Python 3.12 and later.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import traceback

from statevault.state_persistence import StateStore
from tests.state_persistence.components import Folder, some_files


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


def work(store: StateStore, folder: Folder) -> None:
    names = []
    for number in range(2):
        folder.files = {**some_files(number), "large": os.urandom(20 << 20)}
        names.append(store.save_state().name)
    store.save_state_async().result()
    files, folder.files = folder.files, {}
    store.load_state("latest")
    assert folder.files == files
    store.verify("latest")
    assert store.states()[1].name == names[1]
    if len(sys.argv) == 4:
        assert store.remove(names).removed == tuple(names)
        store.gc()
    store.close()
    print("saved", flush=True)


def main(when: str, url: str, options: str, spool: str | None = None) -> None:
    folder = Folder({})
    store = StateStore(url, storage_options=json.loads(options), spool=spool)
    store.register("folder", folder)

    def late() -> None:
        try:
            work(store, folder)
        except BaseException:
            traceback.print_exc(file=sys.stdout)

    def outlive() -> None:
        threading.main_thread().join()
        if when == "no-threads":
            threading.Thread.start = no_thread  # type: ignore[method-assign]
        late()

    if when == "atexit":
        atexit.register(late)
    else:
        threading.Thread(target=outlive).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
