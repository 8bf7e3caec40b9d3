# SPDX-License-Identifier: Apache-2.0
"""An app that makes other processes in every way that Python has, and works in each of them.

``python forking_app.py MODE [ARGUMENT]``. Each process tells on standard output, in a JSON object
on a line of its own, who it is and what it did, so that its telemetry can be told from the others'.
What it does each time it works is one real invocation of a kernel, one log record, and one count
on each of three instruments.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import json
import logging
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import weaver_kernel as wk
from opentelemetry import metrics, trace
from weaver_kernel.models import CapabilityRequest

from agent_kernel_otel import flush
from agent_kernel_otel.pipeline.lifecycle import lifecycle

INHERITED = 100
"""What the process that forks has counted before."""
ENDS = ("exit", "_exit")
"""How forked children end, in turn."""
TERMINATED = -signal.SIGTERM
_HANGS_AFTER = 20.0
_AT_ONCE = 4

_logger = logging.getLogger("forking_app")
_tracer = trace.get_tracer("forking_app")
_meter = metrics.get_meter("forking_app")
_served = _meter.create_counter("served")
_open = _meter.create_up_down_counter("open")
_took = _meter.create_histogram("took")
_agent = wk.Principal("agent-1", roles=["reader"])

# Nothing is written to a stream of Python's: a child that is forked while another thread does so
# waits forever at its own first line, with telemetry or without.
logging.basicConfig(handlers=[logging.NullHandler()])
# What Python 3.12 and later say of any fork in a process with threads, as every process with
# telemetry is.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


def tell(**facts: Any) -> None:
    # One write for each line, so that those of several processes do not mix.
    os.write(1, (json.dumps({"pid": os.getpid(), **facts}) + "\n").encode())


def make_kernel() -> wk.Kernel:
    registry = wk.CapabilityRegistry()
    registry.register(wk.Capability("orders.list", "List", "List orders", wk.SafetyClass.READ))
    kernel = wk.Kernel(registry, router=wk.StaticRouter(fallback=["memory"]))
    driver = wk.InMemoryDriver("memory")
    driver.register_handler("orders.list", lambda context: [{"id": 1}])
    kernel.register_driver(driver)
    return kernel


KERNEL = make_kernel()


async def invoke() -> str:
    request = CapabilityRequest("orders.list", goal="serve")
    token = KERNEL.grant_capability(request, _agent, justification="a customer asks").token
    frame = await KERNEL.invoke(token, principal=_agent, args={})
    return frame.action_id


def count(number: int = 1) -> None:
    _served.add(number)
    _open.add(number)
    for _ in range(number):
        _took.record(1)


def work(name: str) -> None:
    """Works once, and tells so."""
    action = asyncio.run(invoke())
    _logger.warning("%s served", name)
    count()
    tell(name=name, action=action)


def work_and_wait(name: str, ready: Any) -> None:
    work(name)
    ready.set()
    signal.pause()


def work_as_parent(name: str, method: str) -> None:
    work(name)
    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=work, args=(f"{name}'s",))
    child.start()
    child.join()


@contextmanager
def exporting_without_pause() -> Iterator[None]:
    """A thread of the app's that makes spans, log records and counts all the time."""
    stop, going = threading.Event(), threading.Event()

    def keep_busy() -> None:
        while not stop.wait(0.002):
            with _tracer.start_as_current_span("busy"):
                _logger.warning("busy")
            going.set()

    thread = threading.Thread(target=keep_busy)
    thread.start()
    going.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def fork(child: Callable[[], None], code: int, end: str = "exit") -> int:
    """Fork a child that ends with a code of its own; its process id."""
    pid = os.fork()
    if pid:
        return pid
    child()
    if end == "_exit":
        flushed = flush(_HANGS_AFTER)
        os._exit(code if flushed else 99)
    sys.exit(code)


def reap(pid: int) -> None:
    """Wait for a child's end, and tell its exit code; ``None`` if it hung."""
    with os.fdopen(os.pidfd_open(pid)) as ended:
        hangs = not select.select([ended], [], [], _HANGS_AFTER)[0]
    if hangs:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    tell(reaped=pid, code=None if hangs else code, at=time.monotonic())


def fork_many(children: int) -> None:
    running: list[int] = []
    for number in range(children):
        name = f"child-{number}"
        running.append(fork(lambda name=name: work(name), number + 1, ENDS[number % 2]))  # type: ignore[misc]
        if len(running) == _AT_ONCE:
            reap(running.pop(0))
    for pid in running:
        reap(pid)


def fork_idle(children: str) -> None:
    fork_many(int(children))


def fork_busy(children: str) -> None:
    with exporting_without_pause():
        fork_many(int(children))


def wait_until_all_exports_hang() -> None:
    flush(0)
    while not all(pipeline.delivery.wire.lock.locked() for pipeline in lifecycle.pipelines):
        time.sleep(0.01)


def fork_stuck(children: str) -> None:
    wait_until_all_exports_hang()
    for number in range(int(children)):
        before = time.monotonic()

        def child() -> None:
            work(f"child-{number}")  # noqa: B023 - called before the next round
            tell(at=time.monotonic())

        pid = fork(child, number + 1)
        tell(forked=time.monotonic() - before)
        reap(pid)
    tell(at=time.monotonic())


def fork_stuck_and_recover(_: str) -> None:
    wait_until_all_exports_hang()
    child = os.fork()
    if child == 0:
        os._exit(1)
    reap(child)
    tell(forked=True)
    sys.stdin.readline()
    tell(flushed=flush(_HANGS_AFTER))


def fork_elsewhere(_: str) -> None:
    """Forks from a thread, within a running event loop, and of forked children."""

    def nested() -> None:
        work("nested")
        reap(fork(lambda: work("grandchild"), 4))
        reap(fork(lambda: work("grandchild-of-_exit"), 5, "_exit"))

    def from_thread() -> None:
        reap(fork(lambda: work("of-thread"), 2, "_exit"))

    async def in_loop() -> None:
        reap(fork(lambda: work("in-loop"), 3))

    thread = threading.Thread(target=from_thread)
    thread.start()
    thread.join()
    asyncio.run(in_loop())
    reap(fork(nested, 6))


def sigterm(_: str) -> None:
    """Children that wait to be ended, one of them with a handler of its own."""

    def wait(name: str, ready: int) -> None:
        work(name)
        os.write(ready, b".")
        signal.pause()

    def with_handler(ready: int) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(8))
        wait("own-handler", ready)

    read, write = os.pipe()
    children = [fork(lambda: wait("inherited", write), 7), fork(lambda: with_handler(write), 7)]
    for _child in children:
        os.read(read, 1)
    for child in children:
        os.kill(child, signal.SIGTERM)
        reap(child)


def sigterm_at_the_end(_: str) -> None:
    """The signal comes while the last metrics are collected."""
    ended = threading.Event()
    atexit.register(ended.set)

    def observe(_: Any) -> list[metrics.Observation]:
        if ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
        return [metrics.Observation(int(ended.is_set()))]

    _meter.create_observable_gauge("ended", [observe])


def multiprocess(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=work_as_parent, args=("parent", method))]
    ready = context.Event()
    terminated = context.Process(target=work_and_wait, args=("terminated", ready))
    for process in [*processes, terminated]:
        process.start()
    ready.wait(_HANGS_AFTER)
    terminated.terminate()
    for process in [*processes, terminated]:
        process.join(_HANGS_AFTER)
        tell(reaped=process.pid, code=process.exitcode)
    with context.Pool(1) as pool:
        pool.map(work, ["pool-1", "pool-2"])
        pool.close()
        pool.join()
    with context.Pool(1) as pool:  # whose end terminates its workers
        pool.map(work, ["terminated-pool"])
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        list(executor.map(work, ["executor-1", "executor-2"]))


def run_another(_: str) -> None:
    command = [sys.executable, __file__, "work", "script"]
    tell(reaped=0, code=subprocess.run(command, check=False).returncode)
    # With a function to call, all that Python does at a fork is done before the other is begun.
    with subprocess.Popen([*command[:-1], "popen"], preexec_fn=os.setsid) as process:  # noqa: PLW1509
        tell(reaped=process.pid, code=process.wait())


MODES: dict[str, Callable[[str], None]] = {
    "idle": fork_idle,
    "busy": fork_busy,
    "stuck": fork_stuck,
    "recover": fork_stuck_and_recover,
    "elsewhere": fork_elsewhere,
    "sigterm": sigterm,
    "sigterm_at_the_end": sigterm_at_the_end,
    "multiprocess": multiprocess,
    "run_another": run_another,
    "work": work,
}


def main(mode: str, argument: str = "") -> None:
    if mode != "work":
        work("main")
        count(INHERITED - 1)
    MODES[mode](argument)


if __name__ == "__main__":
    main(*sys.argv[1:])
