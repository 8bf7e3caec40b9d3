# SPDX-License-Identifier: Apache-2.0
"""Instrumenting and uninstrumenting are exact inverses, in any order and with others around."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import wrapt
from weaver_kernel import Kernel

from agent_kernel_otel import KernelInstrumentor, instrument_kernel, semconv, uninstrument_kernel
from tests.support.capture import Capture
from tests.support.instrumented import drain, instrumented, open_stream
from tests.support.kernels import ALICE, StreamingDriver, grant, make_kernel
from tests.support.untouched import UNTOUCHED, assert_untouched


@pytest.fixture(autouse=True)
def _the_class_is_as_it_was() -> Iterator[None]:
    yield
    KernelInstrumentor().uninstrument()
    assert_untouched()


async def one_call(kernel: Kernel) -> None:
    await kernel.invoke(grant(kernel).token, principal=ALICE, args={})


async def test_uninstrumenting_puts_back_the_very_objects_and_leaves_the_instance_alone() -> None:
    kernel = make_kernel()
    before = dict(vars(kernel))
    with instrumented() as captured:
        await one_call(kernel)
        assert dict(vars(Kernel)) != UNTOUCHED
    assert vars(Kernel)["invoke"] is UNTOUCHED["invoke"]
    assert {name: vars(kernel)[name] for name in before} == before
    assert vars(kernel).keys() == before.keys()
    captured.clear()
    await one_call(kernel)
    assert captured.spans() == []


async def test_on_and_off_five_times_it_is_one_span() -> None:
    for _ in range(5):
        with instrumented():
            pass
    with instrumented() as captured:
        await one_call(make_kernel())
        assert [node.name for node in captured.roots()] == [semconv.GRANT, semconv.INVOKE]


async def test_instrumenting_twice_is_once() -> None:
    first, second = Capture(), Capture()
    KernelInstrumentor().instrument(**first.providers)
    KernelInstrumentor().instrument(**second.providers)
    await one_call(make_kernel())
    assert [node.name for node in first.roots()] == [semconv.GRANT, semconv.INVOKE]
    assert second.spans() == []


def test_uninstrumenting_what_is_not_instrumented_is_harmless() -> None:
    KernelInstrumentor().uninstrument()
    uninstrument_kernel(make_kernel())


def by_plain_closure(method: Any, seen: list[str]) -> Any:
    def foreign(*args: Any, **kwargs: Any) -> Any:
        seen.append("foreign")
        return method(*args, **kwargs)

    return foreign


def by_functools(method: Any, seen: list[str]) -> Any:
    return functools.wraps(method)(by_plain_closure(method, seen))


def by_wrapt(method: Any, seen: list[str]) -> Any:
    def foreign(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        seen.append("foreign")
        return wrapped(*args, **kwargs)

    return wrapt.FunctionWrapper(method, foreign)


FOREIGN = [by_plain_closure, by_functools, by_wrapt]


@pytest.mark.parametrize("wrap", FOREIGN)
@pytest.mark.parametrize("method", ["invoke", "grant_capability"])
async def test_a_foreign_wrapper_below_ours_survives(
    monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any, list[str]], Any], method: str
) -> None:
    seen: list[str] = []
    foreign = wrap(vars(Kernel)[method], seen)
    monkeypatch.setattr(Kernel, method, foreign)
    kernel = make_kernel()
    with instrumented() as captured:
        await one_call(kernel)
        assert [node.name for node in captured.roots()] == [semconv.GRANT, semconv.INVOKE]
    assert vars(Kernel)[method] is foreign
    await one_call(kernel)
    assert seen == ["foreign", "foreign"]


@pytest.mark.parametrize("wrap", FOREIGN)
@pytest.mark.parametrize("method", ["invoke", "grant_capability", "invoke_stream"])
async def test_a_foreign_wrapper_above_ours_survives_and_ours_under_it_is_one_span(
    wrap: Callable[[Any, list[str]], Any], method: str
) -> None:
    seen: list[str] = []
    kernel = make_kernel(StreamingDriver())
    roots = [semconv.GRANT, semconv.INVOKE, semconv.INVOKE]

    async def calls() -> None:
        await one_call(kernel)
        assert await drain(open_stream(kernel))

    KernelInstrumentor().instrument()
    ours = vars(Kernel)[method]
    foreign = wrap(ours, seen)
    setattr(Kernel, method, foreign)
    KernelInstrumentor().uninstrument()
    assert vars(Kernel)[method] is foreign
    await calls()
    for _ in range(3):
        with instrumented() as captured:
            await calls()
            assert [node.name for node in captured.roots()] == roots
        captured.clear()
        await calls()
        assert captured.spans() == []
    assert vars(Kernel)[method] is foreign
    assert len(seen) == 7
    setattr(Kernel, method, UNTOUCHED[method])


@pytest.mark.parametrize("wrap", FOREIGN)
def test_more_kernels_under_a_foreign_wrapper_above_ours_are_one_span_each(
    wrap: Callable[[Any, list[str]], Any],
) -> None:
    capture, seen = Capture(), list[str]()
    one, two = make_kernel(), make_kernel()
    instrument_kernel(one, **capture.providers)
    vars_before = vars(Kernel)["grant_capability"]
    Kernel.grant_capability = wrap(vars_before, seen)  # type: ignore[method-assign]
    instrument_kernel(two, **capture.providers)
    grant(one)
    grant(two)
    assert [node.name for node in capture.roots()] == [semconv.GRANT, semconv.GRANT]
    uninstrument_kernel(one)
    uninstrument_kernel(two)
    Kernel.grant_capability = UNTOUCHED["grant_capability"]  # type: ignore[method-assign]


async def test_a_method_taken_before_uninstrumenting_goes_on_with_the_next_instrumentation() -> (
    None
):
    kernel = make_kernel()
    with instrumented():
        taken = kernel.invoke
    token = grant(kernel).token
    await taken(token, principal=ALICE, args={})
    with instrumented() as captured:
        await taken(token, principal=ALICE, args={})
        assert len(captured.roots()) == 1


def test_threads_that_switch_it_on_and_off_leave_a_consistent_state() -> None:
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def switch() -> None:
        kernel = make_kernel()
        try:
            start.wait(timeout=10)
            for _ in range(15):
                KernelInstrumentor().instrument()
                instrument_kernel(kernel)
                grant(kernel)
                uninstrument_kernel(kernel)
                KernelInstrumentor().uninstrument()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=switch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    KernelInstrumentor().uninstrument()
    assert failures == []
    assert vars(Kernel)["invoke"] is UNTOUCHED["invoke"]
    with instrumented() as captured:
        grant(make_kernel())
        assert len(captured.roots()) == 1


def run(script: str) -> str:
    """What a new process prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_kernel_imported_afterwards_is_patched() -> None:
    assert run("""
        import sys
        from agent_kernel_otel import KernelInstrumentor
        KernelInstrumentor().instrument(skip_dep_check=True)
        assert "weaver_kernel" not in sys.modules
        from weaver_kernel import Kernel
        print(type(vars(Kernel)["invoke"]).__name__, "_policy" in vars(Kernel))
        KernelInstrumentor().uninstrument()
        print(type(vars(Kernel)["invoke"]).__name__, "_policy" in vars(Kernel))
    """).splitlines() == ["OperationWrapper True", "function False"]


def test_a_kernel_that_is_never_imported_is_not_imported_by_us() -> None:
    assert (
        run("""
        import sys
        from agent_kernel_otel import KernelInstrumentor
        KernelInstrumentor().instrument()
        KernelInstrumentor().uninstrument()
        print([name for name in sys.modules if name.startswith(("weaver_kernel", "agent_kernel."))])
    """)
        == "[]"
    )


def test_a_kernel_imported_after_uninstrumenting_is_not_patched() -> None:
    assert run("""
        from agent_kernel_otel import KernelInstrumentor
        KernelInstrumentor().instrument()
        KernelInstrumentor().uninstrument()
        from weaver_kernel import Kernel
        print(type(vars(Kernel)["invoke"]).__name__, "_policy" in vars(Kernel))
        KernelInstrumentor().instrument()
        print(type(vars(Kernel)["invoke"]).__name__, "_policy" in vars(Kernel))
    """).splitlines() == ["function False", "OperationWrapper True"]
