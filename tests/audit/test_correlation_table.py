# SPDX-License-Identifier: Apache-2.0
"""The table of actions and their live spans: bounded, shared by threads, known to children."""

from __future__ import annotations

import os
import threading

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags

from agent_kernel_otel import trace_context
from agent_kernel_otel.correlation import Correlations, correlations
from agent_kernel_otel.scrub import identifier
from tests.support.hostile import odd_ids


def context(number: int) -> SpanContext:
    return SpanContext(number + 1, number + 1, False, TraceFlags(TraceFlags.SAMPLED))


def test_the_last_ones_are_known_and_never_more_than_the_limit() -> None:
    table = Correlations()
    limit = table.LIMIT
    for number in range(3 * limit + 7):
        table.remember(str(number), context(number))
        assert len(table._young) + len(table._old) <= limit
    last = 3 * limit + 6
    for number in range(last - limit // 2 + 1, last + 1):
        assert table.trace_context(str(number)) == context(number)
        assert table.action_id(context(number)) == str(number)
    assert table.trace_context("0") is None
    assert table.action_id(context(0)) is None


def test_threads_share_the_table() -> None:
    table = Correlations()
    threads_number, each = 8, 4_000
    wrong: list[int] = []
    start = threading.Barrier(threads_number)

    def fill(thread: int) -> None:
        start.wait()
        for number in range(thread * each, (thread + 1) * each):
            table.remember(str(number), context(number))
            if table.trace_context(str(number)) not in [None, context(number)]:
                wrong.append(number)
            if table.action_id(context(number)) not in [None, str(number)]:
                wrong.append(number)

    threads = [threading.Thread(target=fill, args=(n,)) for n in range(threads_number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for actions in (table._young | table._old, table._young_actions | table._old_actions):
        assert table.LIMIT // 2 <= len(actions) <= table.LIMIT + threads_number


def test_the_first_span_that_is_told_of_stays() -> None:
    table = Correlations()
    table.remember("a", context(1))
    table.remember("a", context(2))
    assert table.trace_context("a") == context(1)


def test_a_span_of_another_trace_is_another_span() -> None:
    table = Correlations()
    table.remember("a", context(1))
    other = SpanContext(99, context(1).span_id, False)
    assert table.action_id(other) is None
    assert table.action_id(INVALID_SPAN_CONTEXT) is None


@pytest.mark.parametrize("name", odd_ids())
def test_whatever_is_no_action_has_no_span(name: str) -> None:
    assert trace_context(odd_ids()[name]) is None


@pytest.mark.parametrize("action", ["a" * 100_000, "lone \ud800 surrogate", "naïve"])
def test_ids_of_any_length_are_found_as_they_came(action: str) -> None:
    correlations.remember(identifier(action) or "", context(1))
    assert trace_context(action) == context(1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_knows_its_parents_actions_and_its_own() -> None:
    correlations.remember("the parent's", context(1))
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with correlations._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        known = trace_context("the parent's") == context(1)
        for number in range(Correlations.LIMIT):
            correlations.remember(str(number), context(number))
        os._exit(0 if known and trace_context(str(Correlations.LIMIT - 1)) is not None else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert trace_context("0") is None
