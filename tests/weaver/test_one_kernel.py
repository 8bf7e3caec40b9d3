# SPDX-License-Identifier: Apache-2.0
"""One kernel traced, opted out, opted in again, or under a configuration of its own."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from weaver_kernel import BudgetManager, HMACTokenProvider, Kernel

from agent_kernel_otel import (
    ConfigurationError,
    InstrumentationConfig,
    KernelInstrumentor,
    instrument_kernel,
    semconv,
    uninstrument_kernel,
)
from agent_kernel_otel.weaver.activation import activation
from agent_kernel_otel.weaver.sessions import SessionNames
from tests.support.capture import Capture
from tests.support.instrumented import instrumented
from tests.support.kernels import ALICE, grant, make_kernel, memory_driver, registry
from tests.support.untouched import UNTOUCHED, assert_untouched


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    KernelInstrumentor().uninstrument()
    for kernel in [*activation.kernels(), make_kernel()]:
        uninstrument_kernel(kernel)
    assert_untouched()


def spans_of(capture: Capture) -> list[str]:
    names = [node.name for node in capture.roots()]
    capture.clear()
    return names


def test_one_kernel_is_traced_and_no_other() -> None:
    capture, ours, other = Capture(), make_kernel(), make_kernel()
    instrument_kernel(ours, **capture.providers)
    grant(ours)
    grant(other)
    assert spans_of(capture) == [semconv.GRANT]
    uninstrument_kernel(ours)
    grant(ours)
    assert spans_of(capture) == []


def test_the_class_is_untouched_once_nobody_needs_it() -> None:
    one, two = make_kernel(), make_kernel()
    instrument_kernel(one)
    instrument_kernel(two)
    uninstrument_kernel(one)
    assert dict(vars(Kernel)) != UNTOUCHED
    uninstrument_kernel(two)
    assert_untouched()


def test_instrumenting_twice_gives_one_span_in_the_first_destination() -> None:
    capture, kernel = Capture(), make_kernel()
    instrument_kernel(kernel, **capture.providers)
    instrument_kernel(kernel)
    grant(kernel)
    assert spans_of(capture) == [semconv.GRANT]


def test_under_a_global_instrumentation_it_is_one_span() -> None:
    with instrumented() as everywhere:
        kernel = make_kernel()
        instrument_kernel(kernel)
        grant(kernel)
        assert spans_of(everywhere) == [semconv.GRANT]


def test_a_kernel_opts_out_and_in_again_under_a_global_instrumentation() -> None:
    with instrumented() as everywhere:
        kernel, other = make_kernel(), make_kernel()
        uninstrument_kernel(kernel)
        grant(kernel)
        assert spans_of(everywhere) == []
        grant(other)
        assert spans_of(everywhere) == [semconv.GRANT]
        instrument_kernel(kernel)
        grant(kernel)
        assert spans_of(everywhere) == [semconv.GRANT]


def test_an_opt_out_ends_with_the_global_instrumentation_it_was_from() -> None:
    kernel = make_kernel()
    with instrumented():
        uninstrument_kernel(kernel)
    with instrumented() as again:
        grant(kernel)
        assert spans_of(again) == [semconv.GRANT]


def test_a_kernels_own_configuration_wins_and_outlives_the_global_one() -> None:
    own, kernel = Capture(), make_kernel()
    with instrumented() as everywhere:
        instrument_kernel(kernel, **own.providers, span_level="debug", principal_id="off")
        grant(kernel)
        assert spans_of(everywhere) == []
        instrument_kernel(kernel)  # asks for nothing new
        grant(kernel)
        assert everywhere.spans() == []
        assert semconv.PRINCIPAL_ID not in own.roots()[0].attributes
    own.clear()
    grant(kernel)
    assert spans_of(own) == [semconv.GRANT]
    own.check()


def test_a_configuration_object_can_be_given_and_changed_by_keyword() -> None:
    capture, kernel = Capture(), make_kernel()
    config = InstrumentationConfig(principal_id="off")
    instrument_kernel(kernel, config=config, **capture.providers)
    grant(kernel)
    assert semconv.PRINCIPAL_ID not in capture.root().attributes
    capture.clear()
    instrument_kernel(kernel, config=config, principal_id="raw", **capture.providers)
    grant(kernel)
    assert capture.root()[semconv.PRINCIPAL_ID] == "alice"


@pytest.mark.parametrize("thing", [None, object(), "kernel", Kernel, MagicMock(spec=Kernel)])
@pytest.mark.parametrize("change", [instrument_kernel, uninstrument_kernel])
def test_what_is_no_kernel_is_refused(change: Callable[[Any], None], thing: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a weaver_kernel\.Kernel"):
        change(thing)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"span_levle": "info"}, "did you mean 'span_level'"),
        ({"span_level": "loud"}, "expected one of"),
        ({"capability_id_limit": 0}, "at least 1"),
        ({"config": {"span_level": "info"}}, "expected an InstrumentationConfig"),
        ({"config": InstrumentationConfig(), "span_level": "loud"}, "expected one of"),
    ],
)
def test_a_setting_that_cannot_be_read_patches_nothing(
    settings: dict[str, Any], message: str
) -> None:
    kernel = make_kernel()
    with pytest.raises(ConfigurationError, match=message):
        instrument_kernel(kernel, **settings)
    with pytest.raises(ConfigurationError, match=message):
        KernelInstrumentor().instrument(**settings)
    assert_untouched()
    assert activation.kernels() == []
    assert not KernelInstrumentor().is_instrumented_by_opentelemetry


def test_a_subclass_that_is_unhashable_and_equal_to_all_is_told_apart() -> None:
    class Odd(Kernel):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    capture = Capture()
    ours = Odd(registry(), token_provider=HMACTokenProvider(secret="s"))
    other = Odd(registry(), token_provider=HMACTokenProvider(secret="s"))
    instrument_kernel(ours, **capture.providers)
    grant(ours)
    grant(other)
    assert spans_of(capture) == [semconv.GRANT]


async def test_dead_kernels_leave_no_memory() -> None:
    capture = Capture()
    kept = make_kernel()
    instrument_kernel(kept, **capture.providers)
    tables = (activation.choices,)
    sizes = [len(table) for table in tables]
    gone = []
    for _ in range(20):
        kernel = make_kernel(budget_manager=BudgetManager(total_budget=10_000))
        instrument_kernel(kernel, **capture.providers)
        await kernel.invoke(grant(kernel).token, principal=ALICE, args={})
        gone.append(weakref.ref(kernel))
        del kernel
    gc.collect()
    assert [reference() for reference in gone] == [None] * 20
    assert [len(table) for table in tables] == sizes


async def test_dead_kernels_leave_no_memory_under_a_global_instrumentation() -> None:
    with instrumented() as everywhere:
        instrumentation = activation.everywhere
        assert instrumentation is not None
        gone, names = [], set()
        for _ in range(20):
            kernel = make_kernel(budget_manager=BudgetManager(total_budget=10_000))
            await kernel.invoke(grant(kernel).token, principal=ALICE, args={})
            names.add(everywhere.root(semconv.INVOKE)[semconv.SESSION])
            everywhere.clear()
            gone.append(weakref.ref(kernel))
            del kernel
            gc.collect()
        assert [reference() for reference in gone] == [None] * 20
        assert names == {"agent-kernel-1"}
        assert instrumentation.kernels.facts == {}
        assert instrumentation.kernels.facts.owners == {}


def test_a_copy_of_a_kernel_follows_what_holds_for_all() -> None:
    capture, kernel = Capture(), make_kernel()
    instrument_kernel(kernel, **capture.providers)
    grant(copy.copy(kernel))
    assert spans_of(capture) == []


def test_threads_name_a_kernels_session_the_same() -> None:
    kernel = make_kernel(budget_manager=BudgetManager(total_budget=1))
    both_asked = threading.Barrier(2)

    def name(_: Any) -> str:
        both_asked.wait(timeout=10)
        return threading.current_thread().name

    sessions = SessionNames(name)
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(sessions.of(kernel))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1
    assert sessions.of(kernel) == got[0]


def test_a_driver_may_be_registered_while_traced() -> None:
    with instrumented():
        kernel = make_kernel()
        kernel.register_driver(memory_driver("second"))
    assert list(vars(kernel)["_drivers"]) == ["memory", "second"]
