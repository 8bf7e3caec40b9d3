# SPDX-License-Identifier: Apache-2.0
"""An app that counts, and makes other processes, when it is told to; it knows nothing of /metrics.

Each line of its standard input is a command, and answered with a line when it has been done.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import stat
import sys
import warnings
from contextlib import suppress
from typing import Any

from opentelemetry import metrics

# What Python 3.12 and later say of any fork in a process with threads.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

_meter = metrics.get_meter("scraped_app", "1.2.3")
_calls = _meter.create_counter("calls", unit="{call}", description="Calls that were made.")
_open = _meter.create_up_down_counter("open", unit="{call}", description="Calls under way.")
_took = _meter.create_histogram(
    "took",
    unit="ms",
    description="How long calls took.",
    explicit_bucket_boundaries_advisory=[1, 2.5, 10],
)


def listening() -> int:
    """How many sockets this process listens on."""
    found = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the app knows no style
        with suppress(OSError):  # the folder's own is gone
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as copy:
                    found += copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return found


def count(times: str = "1") -> int:
    for _ in range(int(times)):
        _calls.add(1, {"kind": "plain"})
        _open.add(1)
        _took.record(2)
    return os.getpid()


def spread(sets: str) -> int:
    for number in range(int(sets)):
        _calls.add(1, {"kind": f"k{number}"})
    return int(sets)


def fork(generations: str = "1") -> str:
    """What a forked child, or a child of its, finds and does before it ends."""
    reads, writes = os.pipe()
    if not (child := os.fork()):
        if int(generations) > 1:
            os.write(writes, fork(str(int(generations) - 1)).encode())
            os._exit(0)
        count("100")
        _meter.create_observable_counter("of_child", callbacks=[lambda _: []])
        os.write(writes, f"{listening()} listening".encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reads, 100).decode()
    os.close(reads)
    os.close(writes)
    return told


def leave_a_child() -> int:
    """Fork a child that stays when this process is gone."""
    reads, writes = os.pipe()
    if not (child := os.fork()):
        os.close(1)
        os.write(writes, b"here")
        signal.pause()
    os.read(reads, 4)
    return child


def multiprocess(method: str) -> int | None:
    child: Any = multiprocessing.get_context(method).Process(target=count)  # type: ignore[attr-defined]
    child.start()
    child.join()
    exitcode: int | None = child.exitcode
    return exitcode


def flush() -> bool:
    provider: Any = metrics.get_meter_provider()
    flushed: bool = provider.force_flush()
    return flushed


def stop() -> None:
    provider: Any = metrics.get_meter_provider()
    provider.shutdown()


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = line.split()
        print(globals()[name](*arguments), flush=True)


if __name__ == "__main__":
    main()
