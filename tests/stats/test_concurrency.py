# SPDX-License-Identifier: Apache-2.0
"""Counts are exact whoever counts, reads and resets meanwhile."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from weaver_kernel import HandleStore, Kernel, PolicyDenied
from weaver_kernel.errors import DriverError

from agent_kernel_otel import counts, instrument_kernel, kernel_stats, stats, uninstrument_kernel
from tests.stats.world import patient
from tests.support.instrumented import AsyncDriver, open_stream
from tests.support.interrupting import interrupted_by, needs_timers
from tests.support.kernels import (
    ALICE,
    WRITE,
    StreamingDriver,
    grant,
    make_kernel,
    memory_driver,
)

THREADS, TASKS, ROUNDS = 4, 5, 20
CALLS = THREADS * TASKS * ROUNDS


def kernel_with_fallback() -> Kernel:
    """Each invocation tries two drivers, of which the first fails."""

    async def fail(_: Any) -> Any:
        await asyncio.sleep(0)
        raise DriverError("no answer")

    drivers = AsyncDriver("first", fail), memory_driver("second")
    handles = HandleStore()
    handles._EVICT_INTERVAL = 1_000_000  # the kernel's own walk of them is not safe under threads
    return make_kernel(*drivers, policy=patient(), handle_store=handles)


async def use(kernel: Kernel, rounds: int) -> None:
    """One grant, one denial and one invocation in each round."""
    for _ in range(rounds):
        token = grant(kernel).token
        with pytest.raises(PolicyDenied):
            grant(kernel, capability=WRITE)
        await kernel.invoke(token, principal=ALICE, args={})


def in_threads(work: Callable[[], Any], beside: Callable[[threading.Event], Any]) -> Any:
    """Do some work in several threads, and return what is done beside it until they are through."""
    done = threading.Event()
    with ThreadPoolExecutor(THREADS + 1) as pool:
        other = pool.submit(beside, done)
        working = [pool.submit(work) for _ in range(THREADS)]
        wait(working)
        done.set()
    for future in working:
        future.result()
    return other.result()


@pytest.fixture
def switching_often() -> Any:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching_often")
def test_threads_and_tasks_are_counted_exactly_and_a_snapshot_is_of_one_moment() -> None:
    kernel = kernel_with_fallback()
    instrument_kernel(kernel)

    async def tasks() -> None:
        await asyncio.gather(*(use(kernel, ROUNDS) for _ in range(TASKS)))

    def watch(done: threading.Event) -> list[Any]:
        seen = []
        while not done.is_set():
            seen += [kernel_stats(kernel).snapshot(), stats.snapshot()]
        return seen

    snapshots = in_threads(lambda: asyncio.run(tasks()), watch)
    begun = {True: 0, False: 0}
    for number, seen in enumerate(snapshots):
        assert seen.driver_attempts == 2 * seen.invocations
        assert seen.handle_stores == seen.fallback_activations == seen.invocations
        assert seen.denials == seen.denials_by_reason.get("missing_role", 0)
        assert 0 <= seen.invocations_active <= THREADS * TASKS
        # An invocation is running or over: it never is neither.
        whose = bool(number % 2)
        assert seen.invocations + seen.invocations_active >= begun[whose]
        begun[whose] = seen.invocations + seen.invocations_active
    last = kernel_stats(kernel).snapshot()
    assert (last.grants, last.denials, last.invocations) == (CALLS, CALLS, CALLS)
    assert last.audit_records == 2 * CALLS
    assert last.invocations_active == 0
    assert stats.snapshot().invocations == CALLS
    uninstrument_kernel(kernel)


@pytest.mark.usefixtures("switching_often")
def test_resets_by_another_thread_lose_nothing_and_leave_no_number_below_zero() -> None:
    kernel = kernel_with_fallback()
    instrument_kernel(kernel)

    def reset(done: threading.Event) -> list[int]:
        lowest = [0]
        while not done.is_set():
            kernel_stats(kernel).reset()
            seen = kernel_stats(kernel).snapshot()
            lowest.append(min(seen.counts.values(), default=0))
        return lowest

    lowest = in_threads(lambda: asyncio.run(use(kernel, ROUNDS)), reset)
    assert min(lowest) == 0
    assert stats.snapshot().invocations == THREADS * ROUNDS
    uninstrument_kernel(kernel)


@pytest.mark.usefixtures("switching_often")
def test_kernels_that_come_and_go_in_threads_leave_their_counts_and_nothing_else() -> None:
    def requests() -> None:
        for _ in range(ROUNDS):
            kernel = kernel_with_fallback()
            instrument_kernel(kernel)
            asyncio.run(use(kernel, 1))

    def watch(done: threading.Event) -> list[int]:
        seen = [0]
        while not done.is_set():
            seen.append(stats.snapshot().invocations)
        return seen

    gc.collect()
    kept_by_others = sum(len(group._kernels) for group in counts.groups())
    seen = in_threads(requests, watch)
    assert seen == sorted(seen)
    gc.collect()
    last = stats.snapshot()
    assert (last.grants, last.invocations) == (THREADS * ROUNDS, THREADS * ROUNDS)
    assert sum(len(group._kernels) for group in counts.groups()) <= kept_by_others
    assert sum(len(group._finishing) for group in counts.groups()) == 0


@needs_timers
def test_a_signal_handler_may_count_read_and_reset_in_the_midst_of_counting() -> None:
    kernel, other = make_kernel(policy=patient()), make_kernel(policy=patient())
    for one in (kernel, other):
        instrument_kernel(one)
    handled = 0

    def handle() -> None:
        nonlocal handled
        handled += 1
        grant(other)  # the kernel's own locks do not let it be called from a handler
        kernel_stats(kernel).snapshot()
        kernel_stats(kernel).reset()

    calls = 0
    with interrupted_by(handle):
        while handled < 200:
            grant(kernel)
            calls += 1
    assert stats.snapshot().grants == calls + handled
    assert kernel_stats(other).snapshot().grants == handled
    for one in (kernel, other):
        uninstrument_kernel(one)


def test_a_stream_that_is_collected_in_the_midst_of_counting_is_counted() -> None:
    kernel = make_kernel(StreamingDriver())
    instrument_kernel(kernel)
    loop = asyncio.new_event_loop()
    stream = open_stream(kernel)
    loop.run_until_complete(anext(stream))
    loop.close()
    with counts.process.lock:
        del stream
        gc.collect()
    seen = kernel_stats(kernel).snapshot()
    assert (seen.invocations, seen.invocations_active) == (1, 0)
    uninstrument_kernel(kernel)


def test_a_stream_that_goes_away_together_with_its_kernel_is_counted() -> None:
    kernel = make_kernel(StreamingDriver())
    instrument_kernel(kernel)
    loop = asyncio.new_event_loop()
    stream = open_stream(kernel)
    loop.run_until_complete(anext(stream))
    loop.close()
    kept = [kernel, stream]
    kept.append(kept)
    del kernel, stream, kept
    gc.collect()
    seen = stats.snapshot()
    assert (seen.invocations, seen.invocations_active) == (1, 0)
