# SPDX-License-Identifier: Apache-2.0
"""Spans are switched off and on again while kernels work; nothing else changes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from weaver_kernel import Kernel, PolicyDenied

from agent_kernel_otel import (
    ConfigurationError,
    KernelInstrumentor,
    instrument_kernel,
    semconv,
    set_span_level,
    uninstrument_kernel,
)
from tests.support.capture import Capture
from tests.support.instrumented import AsyncDriver, drain, instrumented, open_stream
from tests.support.kernels import ALICE, WRITE, StreamingDriver, grant, make_kernel, token_of

INNER = {semconv.ROUTE, semconv.HANDLE, semconv.AUDIT}


@pytest.fixture(autouse=True)
def _as_configured() -> Iterator[None]:
    yield
    set_span_level(None)


async def work(kernel: Kernel) -> None:
    """A grant, a denial and an invocation."""
    token = grant(kernel).token
    with pytest.raises(PolicyDenied):
        grant(kernel, WRITE)
    await kernel.invoke(token, principal=ALICE, args={})


def shown(capture: Capture) -> tuple[int, int]:
    """How many spans and how many events came out since the last time."""
    counts = len(capture.spans()), len(capture.events())
    capture.clear()
    return counts


async def test_a_kernel_at_work_shows_spans_then_none_then_spans_again(capture: Capture) -> None:
    kernel = make_kernel()
    await work(kernel)
    spans, events = shown(capture)
    assert (spans, events) == (8, 1)
    assert set_span_level("off") is None
    for _ in range(3):
        await work(kernel)
    assert shown(capture) == (0, 3 * events)
    assert set_span_level("info") == "off"
    await work(kernel)
    assert shown(capture) == (spans, events)


async def test_debug_adds_the_inner_steps_and_info_takes_them_away(capture: Capture) -> None:
    kernel = make_kernel()
    seen = []
    for level in ("debug", "info"):
        set_span_level(level)
        await work(kernel)
        seen.append({node.name for root in capture.roots() for node in root.walk()} & INNER)
        capture.clear()
    assert seen == [INNER, set()]


async def test_it_acts_on_every_kernel_and_gives_each_its_own_level_back() -> None:
    everywhere, own = Capture(), Capture()
    KernelInstrumentor().instrument(**everywhere.providers)
    one, other = make_kernel(), make_kernel()
    instrument_kernel(other, **own.providers, span_level="debug")
    levels: list[Any] = [None, "off", "info", "debug", None]
    seen = []
    for level in levels:
        set_span_level(level)
        await work(one)
        await work(other)
        seen.append((shown(everywhere)[0], shown(own)[0]))
    uninstrument_kernel(other)
    KernelInstrumentor().uninstrument()
    info, debug = seen[0]
    assert debug > info
    assert seen == [(info, debug), (0, 0), (info, info), (debug, debug), (info, debug)]


async def test_kernels_instrumented_later_follow_it_too() -> None:
    set_span_level("off")
    with instrumented(span_level="debug") as capture:
        await work(make_kernel())
        assert shown(capture) == (0, 1)
    assert set_span_level(None) == "off"
    with instrumented(span_level="debug") as capture:
        await work(make_kernel())
        assert shown(capture)[0] > 8


async def test_a_running_operation_ends_as_it_began(capture: Capture) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: Any) -> list[Any]:
        started.set()
        await go_on.wait()
        return []

    kernel = make_kernel(AsyncDriver("waiting", wait))
    token = token_of(kernel)
    began: Any = [("info", "off"), ("off", "debug")]
    for before, after in began:
        set_span_level(before)
        started.clear()
        go_on.clear()
        running = asyncio.create_task(kernel.invoke(token, principal=ALICE, args={}))
        await started.wait()
        set_span_level(after)
        go_on.set()
        await running
    (root,) = capture.roots()
    assert root.outline() == (semconv.INVOKE, [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL])
    assert root[semconv.STATUS] == "success"


async def test_a_stream_that_has_begun_ends_as_it_began(capture: Capture) -> None:
    kernel = make_kernel(StreamingDriver())
    stream = open_stream(kernel)
    await anext(stream)
    set_span_level("off")
    await drain(stream)
    assert capture.root()[semconv.STREAM_END] == "exhausted"
    capture.clear()
    await drain(open_stream(kernel))
    assert not capture.spans()


@pytest.mark.parametrize("wrong", ["on", "", "OFFF", 1, True, ["off"]])
def test_a_wrong_level_is_refused_in_one_line_and_changes_nothing(wrong: Any) -> None:
    set_span_level("debug")
    with pytest.raises(ConfigurationError) as raised:
        set_span_level(wrong)
    assert str(raised.value) == (
        f"span_level={wrong!r} cannot be read: expected one of off, info, debug"
    )
    assert set_span_level(None) == "debug"


def test_the_level_is_read_as_the_setting_is() -> None:
    set_span_level(" Debug ")
    assert set_span_level(None) == "debug"


def test_nothing_instrumented_is_no_error() -> None:
    assert set_span_level("off") is None
    assert set_span_level(None) == "off"


def test_each_of_many_threads_gets_the_level_of_the_one_before_it() -> None:
    start = threading.Barrier(4)
    levels = ("off", "info", "debug")
    taken: list[str | None] = []

    def turn() -> None:
        start.wait(timeout=10)
        taken.extend([set_span_level(level) for level in levels * 200])

    threads = [threading.Thread(target=turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.append(set_span_level(None))
    assert [taken.count(level) for level in (None, *levels)] == [1, 800, 800, 800]


async def test_switching_while_threads_work_leaves_whole_traces_or_none(capture: Capture) -> None:
    done = threading.Event()

    def turn() -> None:
        levels = ("off", "info")
        turned = 0
        while not done.is_set():
            set_span_level(levels[turned % 2])
            turned += 1

    turning = threading.Thread(target=turn)
    turning.start()
    try:
        kernel = make_kernel()
        token = token_of(kernel)
        for _ in range(200):
            await kernel.invoke(token, principal=ALICE, args={})
            with pytest.raises(PolicyDenied):
                grant(kernel, WRITE)
    finally:
        done.set()
        turning.join()
    assert len(capture.events()) == 200
    whole = {
        str((semconv.GRANT, [semconv.POLICY])),
        str((semconv.INVOKE, [semconv.POLICY, semconv.DRIVER, semconv.FIREWALL])),
    }
    assert {str(root.outline()) for root in capture.roots()} <= whole


async def test_an_app_can_turn_it_from_a_signal_handler_of_its_own(capture: Capture) -> None:
    kernel = make_kernel()
    before = signal.signal(signal.SIGUSR1, lambda *_: set_span_level("off") and None)
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    await work(kernel)
    assert not capture.spans()


def test_it_needs_no_opentelemetry() -> None:
    script = """
        import sys
        sys.modules["opentelemetry"] = None
        from agent_kernel_otel import set_span_level
        set_span_level("off")
        print(set_span_level(None))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "off"
