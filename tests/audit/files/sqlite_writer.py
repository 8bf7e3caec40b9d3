# SPDX-License-Identifier: Apache-2.0
"""A process with a kernel's store that writes until its input ends: ``sqlite_writer.py FILE JOURNAL``.

It says when it begins, and at the end how many records it has written.
"""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path

from weaver_kernel.stores import SQLiteTraceStore

from tests.audit.files.written import KEY, traces

if __name__ == "__main__":
    path, journal = Path(sys.argv[1]), sys.argv[2]
    asked_to_end = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        asked_to_end.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    store = SQLiteTraceStore(path, secret=KEY)
    store._conn.execute(f"PRAGMA journal_mode={journal}")
    store._conn.execute("PRAGMA synchronous=off")
    print("begins", flush=True)
    for number in itertools.count():
        if asked_to_end.is_set():
            break
        store.record(*traces(1, first=number))
    print(number, flush=True)
    store.close()
