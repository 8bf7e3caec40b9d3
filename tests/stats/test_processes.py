# SPDX-License-Identifier: Apache-2.0
"""Counts of whole processes: forked children, and no more memory than the limits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

APP = """
import asyncio, gc, logging, os, sys, tracemalloc
import agent_kernel_otel
logging.disable(logging.CRITICAL)
from agent_kernel_otel import KernelInstrumentor, instrument_kernel, kernel_stats, stats
from agent_kernel_otel.faults import faults
from tests.support.kernels import *
from tests.stats.world import patient
faults.reraise = True

async def invoke(kernel):
    return await kernel.invoke(token_of(kernel), principal=ALICE, args={})

def our_memory():
    gc.collect()
    package = os.path.dirname(agent_kernel_otel.__file__)
    taken = tracemalloc.take_snapshot()
    taken = taken.filter_traces([tracemalloc.Filter(True, package + "/*")])
    return sum(trace.size for trace in taken.traces)
"""


def run(script: str) -> list[str]:
    """The lines that an app prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", APP + textwrap.dedent(script)],
        capture_output=True, text=True, check=False, timeout=300,
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_begins_at_zero_and_its_parent_goes_on() -> None:
    assert run("""
    kernel = make_kernel(StreamingDriver())
    instrument_kernel(kernel)

    def show(who):
        one, all_ = kernel_stats(kernel).snapshot(), stats.snapshot()
        assert one.counts == all_.counts
        print(who, all_.grants, all_.invocations, all_.invocations_active, flush=True)

    async def main():
        grant(kernel)
        stream = kernel.invoke_stream(token_of(kernel), principal=ALICE, args={})
        await anext(stream)
        [frame async for frame in kernel.invoke_stream(token_of(kernel), principal=ALICE, args={})]
        show("before")
        return stream

    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(main())
    stats.reset()
    child = os.fork()
    if not child:
        show("child")
        # What the parent began is the parent's.
        stream.aclose().close()
        del stream
        gc.collect()
        show("child")
        grant(kernel)
        asyncio.run(invoke(kernel))
        show("child")
        grandchild = os.fork()
        if not grandchild:
            show("grandchild")
            os._exit(0)
        os.waitpid(grandchild, 0)
        os._exit(0)
    os.waitpid(child, 0)
    grant(kernel)
    loop.run_until_complete(stream.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    one = kernel_stats(kernel).snapshot()
    print("parent", one.grants, one.invocations, one.invocations_active)
    one = stats.snapshot()
    print("since its reset", one.grants, one.invocations, one.invocations_active)
    loop.close()
    """) == [
        "before 1 1 1",
        "child 0 0 0",
        "child 0 0 0",
        "child 1 1 0",
        "grandchild 0 0 0",
        "parent 2 2 0",
        "since its reset 1 1 0",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    "held", ["agent_kernel_otel.counts:process", "agent_kernel_otel.weaver.switching:switch"]
)
def test_a_child_forked_while_another_thread_holds_a_lock_is_not_stuck(held: str) -> None:
    module, name = held.split(":")
    assert run(f"""
    import threading, warnings
    from {module} import {name} as holder
    warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: forking with threads
    held, forked = threading.Event(), threading.Event()

    def hold():
        with holder.lock:
            held.set()
            forked.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        kernel = make_kernel()
        instrument_kernel(kernel)
        grant(kernel)
        os._exit(stats.snapshot().grants)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    forked.set()
    thread.join()
    """) == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_another_thread_counts_is_not_stuck() -> None:
    assert run("""
    import threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: forking with threads
    kernel, other = make_kernel(policy=patient()), make_kernel(policy=patient())
    for one in (kernel, other):
        instrument_kernel(one)
    done = threading.Event()

    def count():
        while not done.is_set():
            grant(kernel)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        child = os.fork()
        if not child:
            before = stats.snapshot().grants
            grant(other)  # whose own locks, the kernel's, no thread can hold
            stats.reset()
            os._exit(0 if before == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
    done.set()
    for thread in threads:
        thread.join()
    print("done")
    """) == ["done"]


def test_a_hundred_thousand_ids_take_no_more_room_than_the_limits() -> None:
    said = run("""
    from weaver_kernel import Capability, CapabilityRequest, PolicyDenied, Principal, SafetyClass
    from agent_kernel_otel import semconv

    NUMBER = 100_000

    class Refusing:
        number = 0

        def evaluate(self, *args, **kwargs):
            self.number += 1
            raise PolicyDenied("no", reason_code=f"code-{self.number}")

    class Failing:
        async def execute(self, ctx):
            raise type(f"Error{len(ids)}", (Exception,), {})()

    class Drivers(dict):
        def get(self, name, default=None):
            ids.append(name)
            return Failing()

    ids = []
    kernel = make_kernel(policy=Refusing())
    registry = vars(kernel)["_registry"]
    for number in range(1_000):
        registry.register(Capability(f"capability-{number}", "n", "d", SafetyClass.READ))
    KernelInstrumentor().instrument()
    vars(kernel)["_trace_store"].record = lambda record: None

    def refuse(number):
        known = number % 2
        capability = f"capability-{number % 1_000}" if known else f"unknown-{number}"
        who = Principal(f"principal-{number}", roles=[])
        try:
            kernel.grant_capability(CapabilityRequest(capability, goal="g"), who, justification="j")
        except Exception:
            pass

    async def fail(number):
        token = token_of(kernel, f"capability-{number % 1_000}")
        vars(kernel)["_router"]._fallback = [f"driver-{number}"]
        vars(kernel)["_drivers"] = Drivers()
        try:
            await kernel.invoke(token, principal=ALICE, args={})
        except Exception:
            pass

    async def use(numbers):
        for number in numbers:
            refuse(number)
            await fail(number)

    async def main():
        await use(range(2_000))
        tracemalloc.start()
        await use(range(2_000, 4_000))
        before = our_memory()
        await use(range(4_000, 7_000))
        print(our_memory() - before < 100_000)
        tracemalloc.stop()
        for number in range(7_000, NUMBER):
            refuse(number)

    asyncio.run(main())
    seen = stats.snapshot()
    by_metric = {}
    for series in seen.counts:
        by_metric[series[0]] = by_metric.get(series[0], 0) + 1
    for name, number in by_metric.items():
        limit = semconv.METRICS[name].series_limit
        assert not limit or number <= limit, (name, number)
    assert seen.denials == NUMBER / 2
    assert sum(seen.denials_by_reason.values()) == seen.denials
    assert len(seen.denials_by_reason) <= 101
    assert seen.invocations == 7_000
    print(sum(by_metric.values()) < 10_000)
    """)
    assert said == ["True", "True"]


def test_kernels_made_for_each_request_leave_no_memory() -> None:
    (said,) = run("""
    import weakref
    KernelInstrumentor().instrument()

    async def requests(number):
        for _ in range(number):
            kernel = make_kernel()
            await invoke(kernel)
        gc.collect()
        return weakref.ref(kernel)

    async def main():
        await requests(1_100)  # Python 3.10 gives a function a cache at its 1,024th call
        tracemalloc.start()
        await requests(200)
        before = our_memory()
        gone = await requests(1_000)
        print(gone() is None, our_memory() - before)
        assert stats.snapshot().invocations == 2_300

    asyncio.run(main())
    """)
    gone, grown = said.split()
    assert gone == "True"
    assert int(grown) < 5_000, "bytes for a thousand kernels"
