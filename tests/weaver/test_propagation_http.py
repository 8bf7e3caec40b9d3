# SPDX-License-Identifier: Apache-2.0
"""The trace context in the requests of the kernel's own HTTP driver, where that is switched on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from weaver_kernel import DriverError, HTTPDriver
from weaver_kernel.models import RawResult

from agent_kernel_otel import (
    KernelInstrumentor,
    instrument_kernel,
    semconv,
    set_span_level,
    uninstrument_kernel,
)
from agent_kernel_otel.weaver import propagation
from tests.support.capture import Capture
from tests.support.instrumented import drain, instrumented, open_stream
from tests.support.kernels import ALICE, READ, make_kernel, token_of
from tests.support.peer import Peer, listening
from tests.support.propagating import (
    THEIRS,
    http_driver,
    invoke,
    own_propagator,
    theirs,
    traceparent,
)


@pytest.fixture(autouse=True)
def _each_warning_counts() -> Iterator[None]:
    propagation.warn_without_effect.cache_clear()
    yield
    set_span_level(None)


# The HTTP driver ------------------------------------------------------------------------------


async def test_nothing_is_written_by_default(peer: Peer, capture: Capture) -> None:
    await invoke(http_driver(peer))
    assert peer.value("traceparent") is None
    assert capture.root().name == semconv.INVOKE


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_the_server_becomes_a_child_of_the_driver_span(peer: Peer, method: str) -> None:
    with instrumented(propagate_context="http") as capture:
        await invoke(http_driver(peer, method=method))
        assert peer.value("traceparent") == traceparent(capture.root().only(semconv.DRIVER))


async def test_what_is_current_around_the_call_is_its_parent(peer: Peer) -> None:
    with instrumented(propagate_context="http") as capture, theirs() as outer:
        await invoke(http_driver(peer))
        span = capture.root(semconv.INVOKE).span
        assert span.parent is not None
        assert span.parent.span_id == 0xDEF
        assert str(peer.value("traceparent"))[:36] == outer[:36]


async def test_each_attempt_is_the_parent_of_its_own_request() -> None:
    with (
        listening() as first,
        listening() as second,
        instrumented(propagate_context="http") as capture,
    ):
        failing = http_driver(first, driver_id="first")

        async def not_served(*_: Any, **__: Any) -> bytes:
            raise httpx.ReadError("cut off")

        failing._read_bounded = not_served  # type: ignore[method-assign]
        serving = http_driver(second, driver_id="second")
        kernel = make_kernel(failing, serving)
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})
        await failing.aclose()
        await serving.aclose()
        attempts = capture.root().named(semconv.DRIVER)
        sent = [first.value("traceparent"), second.value("traceparent")]
        assert sent == [traceparent(attempt) for attempt in attempts]
        assert [attempt[semconv.STATUS] for attempt in attempts] == ["error", "success"]


async def test_a_stream_over_the_driver_writes_it_too(peer: Peer) -> None:
    with instrumented(propagate_context="http") as capture:
        driver = http_driver(peer)
        await drain(open_stream(make_kernel(driver)))
        await driver.aclose()
        assert peer.value("traceparent") == traceparent(capture.root().only(semconv.DRIVER))


async def test_all_that_the_propagators_know_is_written(peer: Peer) -> None:
    with instrumented(propagate_context="http"):
        token = context.attach(baggage.set_baggage("tenant", "t1"))
        await invoke(http_driver(peer))
        context.detach(token)
    assert peer.value("traceparent") is not None
    assert peer.value("baggage") == "tenant=t1"


class _OwnClient(HTTPDriver):
    """A subclass with a client of its own, whose requests the kernel's code makes."""

    def _get_client(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(headers={"TraceParent": THEIRS})
        return self._client


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TRACEPARENT"])
@pytest.mark.parametrize("where", ["headers", "base_headers"])
async def test_a_context_of_the_apps_own_is_not_overwritten_or_mixed_with_ours(
    peer: Peer, where: str, name: str
) -> None:
    headers = {name: THEIRS, "x-app": "1"}
    options: dict[str, Any] = {where: headers}
    with instrumented(propagate_context="http"):
        token = context.attach(baggage.set_baggage("tenant", "t1"))
        await invoke(http_driver(peer, **options))
        context.detach(token)
    assert peer.value("traceparent") == THEIRS
    assert peer.value("tracestate") is None
    assert peer.value("baggage") == "tenant=t1"
    assert headers == {name: THEIRS, "x-app": "1"}


async def test_headers_of_a_subclasses_own_client_are_not_overwritten(peer: Peer) -> None:
    with instrumented(propagate_context="http"):
        await invoke(http_driver(peer, _OwnClient))
    assert peer.value("traceparent") == THEIRS


async def test_baggage_of_the_apps_own_stays_beside_our_trace(peer: Peer) -> None:
    with instrumented(propagate_context="http"):
        token = context.attach(baggage.set_baggage("tenant", "t1"))
        await invoke(http_driver(peer, headers={"Baggage": "mine=1"}))
        context.detach(token)
    assert peer.value("baggage") == "mine=1"
    assert peer.value("traceparent") is not None


async def test_the_app_finds_its_driver_as_it_left_it(peer: Peer) -> None:
    headers, base = {"x-app": "1"}, {"x-base": "2"}
    driver = http_driver(peer, headers=headers, base_headers=base)
    kernel = make_kernel(driver)
    before, of_class = dict(vars(driver)), dict(vars(HTTPDriver))
    endpoint = driver._endpoints[READ]
    with instrumented(propagate_context="http"):
        for _ in range(2):
            await kernel.invoke(token_of(kernel), principal=ALICE, args={})
        # The connections are the driver's own, made once and kept.
        client = driver._client
        assert client is not None
        assert "traceparent" not in client.headers
        await driver.aclose()
    assert dict(vars(driver)) == before
    assert driver._endpoints[READ] is endpoint
    assert endpoint.headers is headers
    assert (headers, base) == ({"x-app": "1"}, {"x-base": "2"})
    assert dict(vars(HTTPDriver)) == of_class
    assert len({values[0] for values in peer.values("traceparent")}) == 2


async def test_no_endpoint_is_the_drivers_own_error() -> None:
    async def error() -> str:
        with pytest.raises(DriverError, match="no endpoint") as raised:
            await invoke(HTTPDriver())
        return str(raised.value)

    without = await error()
    with instrumented(propagate_context="http"):
        assert await error() == without


class _Overriding(HTTPDriver):
    async def execute(self, ctx: Any) -> RawResult:
        return await super().execute(ctx)


class _Inheriting(HTTPDriver):
    pass


class _Foreign:
    """A third party's driver, which happens to have a name and parts like the kernel's."""

    driver_id = "foreign"

    def __init__(self, driver: HTTPDriver) -> None:
        self._endpoints = driver._endpoints

    async def execute(self, ctx: Any) -> RawResult:
        endpoint = self._endpoints[READ]
        async with httpx.AsyncClient(headers=endpoint.headers) as client:
            answer = await client.get(endpoint.url)
        return RawResult(capability_id=ctx.capability_id, data=answer.json())


_Foreign.__name__ = "HTTPDriver"


def _with_execute_on_the_instance(peer: Peer) -> HTTPDriver:
    driver = http_driver(peer)
    driver.execute = driver.execute  # type: ignore[method-assign]
    return driver


@pytest.mark.parametrize(
    ("make", "written"),
    [
        (lambda peer: http_driver(peer, _Inheriting), True),
        (lambda peer: http_driver(peer, _Overriding), False),
        (lambda peer: _Foreign(http_driver(peer)), False),
        (_with_execute_on_the_instance, False),
    ],
    ids=["inheriting subclass", "overriding subclass", "foreign", "execute on the instance"],
)
async def test_only_requests_of_the_kernels_own_code_are_written_into(
    peer: Peer, make: Any, written: bool
) -> None:
    with instrumented(propagate_context="http, mcp, federation"):
        await invoke(make(peer))
    assert (peer.value("traceparent") is not None) is written


async def test_a_method_that_somebody_has_replaced_is_called_as_it_is(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = HTTPDriver.execute
    selves: list[object] = []

    async def replaced(self: Any, ctx: Any) -> RawResult:
        selves.append(self)
        return await own(self, ctx)

    monkeypatch.setattr(HTTPDriver, "execute", replaced)
    driver = http_driver(peer)
    with instrumented(propagate_context="http"):
        await invoke(driver)
    assert selves == [driver]
    assert peer.value("traceparent") is None


async def test_an_unsampled_call_says_so_to_the_server(peer: Peer) -> None:
    with instrumented(ALWAYS_OFF, propagate_context="http") as capture, theirs(0) as outer:
        await invoke(http_driver(peer))
        sent = str(peer.value("traceparent"))
        assert sent[:36] == outer[:36]
        assert sent.endswith("-00")
        assert not capture.spans()


@pytest.mark.parametrize("by", ["configuration", "switch"])
async def test_without_spans_the_apps_own_context_is_handed_on(peer: Peer, by: str) -> None:
    level = "off" if by == "configuration" else "info"
    with instrumented(propagate_context="http", span_level=level), theirs() as outer:
        if by == "switch":
            set_span_level("off")
        await invoke(http_driver(peer))
        assert peer.value("traceparent") == outer


async def test_without_an_sdk_the_apps_own_context_is_handed_on(peer: Peer) -> None:
    KernelInstrumentor().instrument(
        tracer_provider=trace.NoOpTracerProvider(), propagate_context="http"
    )
    try:
        with theirs() as outer:
            await invoke(http_driver(peer))
    finally:
        KernelInstrumentor().uninstrument()
    assert peer.value("traceparent") == outer


async def test_a_caller_who_wants_silence_gets_it(peer: Peer) -> None:
    with instrumented(propagate_context="http"), theirs(), suppress_instrumentation():
        await invoke(http_driver(peer))
    assert peer.value("traceparent") is None


async def test_a_dry_run_makes_no_request(peer: Peer) -> None:
    with instrumented(propagate_context="http") as capture:
        await invoke(http_driver(peer), dry_run=True)
        assert capture.root()[semconv.DRY_RUN] is True
    assert peer.requests == []


async def test_one_kernel_can_want_it_for_itself() -> None:
    with listening() as one, listening() as other, instrumented() as capture:
        wanting, plain = http_driver(one), http_driver(other)
        kernels = make_kernel(wanting), make_kernel(plain)
        instrument_kernel(kernels[0], **capture.providers, propagate_context="http")
        for kernel in kernels:
            await kernel.invoke(token_of(kernel), principal=ALICE, args={})
        uninstrument_kernel(kernels[0])
        await wanting.aclose()
        await plain.aclose()
    assert one.value("traceparent") is not None
    assert other.value("traceparent") is None


@pytest.mark.parametrize("own", [{}, {"x-own-trace": "mine"}])
async def test_the_global_propagator_decides_what_is_written(
    peer: Peer, own: dict[str, str]
) -> None:
    with own_propagator(), instrumented(propagate_context="http"):
        await invoke(http_driver(peer, headers=own))
    assert peer.value("x-own-trace") == ("mine" if own else "1")
    assert peer.value("traceparent") is None
