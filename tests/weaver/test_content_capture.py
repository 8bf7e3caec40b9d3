# SPDX-License-Identifier: Apache-2.0
"""What is captured only where the user asks for it: of that kind alone, cut, and scrubbed."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import pytest
from weaver_kernel import CapabilityRequest, DriverError

from agent_kernel_otel import semconv
from tests.support.canaries import PATTERNED, Canaries
from tests.support.capture import Capture
from tests.support.instrumented import instrumented
from tests.support.kernels import ALICE, READ, make_kernel, memory_driver, token_of

KINDS = {
    "arguments": semconv.GEN_AI_TOOL_CALL_ARGUMENTS,
    "results": semconv.GEN_AI_TOOL_CALL_RESULT,
    "goals": semconv.GOAL,
    "justifications": semconv.JUSTIFICATION,
}


async def run(text: str) -> None:
    """A grant and an invocation with the same text in every kind of content."""
    kernel = make_kernel(memory_driver("memory", lambda _: [{"said": text}]))
    token = kernel.grant_capability(CapabilityRequest(READ, text), ALICE, justification=text).token
    await kernel.invoke(token, principal=ALICE, args={"said": text}, response_mode="table")


def captured_kinds(capture: Capture) -> dict[str, str]:
    found = {}
    for span in capture.spans():
        for kind, key in KINDS.items():
            value = (span.attributes or {}).get(key)
            if value is not None:
                found[kind] = str(value)
    return found


async def test_nothing_is_captured_by_default(capture: Capture) -> None:
    await run("the weekly report")
    assert captured_kinds(capture) == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_is_captured_alone(kind: str) -> None:
    with instrumented(capture_content={kind}) as captured:
        await run("the weekly report")
        assert list(captured_kinds(captured)) == [kind]
        assert "the weekly report" in captured_kinds(captured)[kind]


@pytest.mark.parametrize("shape", PATTERNED)
async def test_captured_content_is_scrubbed(shape: str) -> None:
    canaries = Canaries(shape)
    with instrumented(capture_content=[*KINDS]) as captured:
        await run(f"see {canaries.plant('content')} for the weekly report")
        assert captured_kinds(captured).keys() == KINDS.keys()
        assert canaries.places_in(captured) == []


async def test_captured_content_is_cut() -> None:
    with instrumented(capture_content=[*KINDS]) as captured:
        await run("word " * 20_000)
        assert captured_kinds(captured).keys() >= {"arguments", "goals", "justifications"}
        assert max(map(len, captured_kinds(captured).values())) <= 4096


@pytest.mark.parametrize("kind", ["arguments", "results"])
async def test_a_dry_run_and_a_failure_capture_no_result(kind: str) -> None:
    def fail(_: Any) -> Any:
        raise ConnectionError("down")

    with instrumented(capture_content={kind}) as captured:
        kernel = make_kernel(memory_driver("memory", fail))
        token = token_of(kernel)
        await kernel.invoke(token, principal=ALICE, args={"a": 1}, dry_run=True)
        with pytest.raises(DriverError):
            await kernel.invoke(token, principal=ALICE, args={"a": 1})
        assert "results" not in captured_kinds(captured)


async def fail_with(text: str) -> None:
    def fail(_: Any) -> Any:
        raise ConnectionError(text)

    kernel = make_kernel(memory_driver("memory", fail))
    with pytest.raises(DriverError):
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})


def message(capture: Capture) -> Any:
    (event,) = capture.events(semconv.INVOKE_EXCEPTION)
    return event.attributes.get(semconv.EXCEPTION_MESSAGE)


async def test_an_exceptions_text_is_not_captured_by_default(capture: Capture) -> None:
    await fail_with("the replica is down")
    assert message(capture) is None


async def test_an_exceptions_text_is_captured_where_asked_for() -> None:
    with instrumented(capture_exception_text=True) as captured:
        await fail_with("the replica is down")
        assert "the replica is down" in message(captured)
        assert "the replica is down" not in str([span.to_json() for span in captured.spans()])


@pytest.mark.parametrize("shape", PATTERNED)
@pytest.mark.parametrize("before", ["", "word " * 98])
async def test_a_captured_text_is_cut_and_scrubbed(shape: str, before: str) -> None:
    canaries = Canaries(shape)
    with instrumented(capture_exception_text=True) as captured:
        await fail_with(before + canaries.plant("text") + " word" * 400)
        assert len(message(captured)) <= 512
        assert canaries.places_in(captured) == []


async def test_a_huge_unbroken_text_costs_no_more_than_the_kernel_itself_spends_on_it() -> None:
    # The kernel redacts the same text for its audit record, in quadratic time: what we add to it
    # must not be of that kind. Spaces keep the kernel's own share small.
    async def cost(text: str) -> float:
        best = 1e9
        for _ in range(3):
            started = perf_counter()
            await fail_with(text)
            best = min(best, perf_counter() - started)
        return best

    text = "a" * 100 + " "
    huge = text * 1_000
    bare = await cost(huge)
    with instrumented(capture_exception_text=True):
        assert await cost(huge) < 3 * bare + 0.01


async def test_an_exception_that_cannot_be_printed_leaves_no_text() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            return "\ud800" + "quiet"

    class Engine:
        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            raise SilentError

    with instrumented(capture_exception_text=True) as captured:
        with pytest.raises(SilentError):
            make_kernel(policy=Engine()).grant_capability(
                CapabilityRequest(READ, "goal"), ALICE, justification="j"
            )
        (event,) = captured.events(semconv.GRANT_EXCEPTION)
        assert event.attributes[semconv.EXCEPTION_MESSAGE] == "?quiet"
