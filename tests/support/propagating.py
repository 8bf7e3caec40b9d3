# SPDX-License-Identifier: Apache-2.0
"""Calls whose requests carry a trace context, and contexts for them to carry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator, default_setter
from weaver_kernel import HTTPDriver
from weaver_kernel.drivers.http import HTTPEndpoint

from tests.support.capture import Node
from tests.support.kernels import ALICE, READ, make_kernel, token_of
from tests.support.peer import Peer

THEIRS = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
"""A context of the app's own."""


def http_driver(peer: Peer, kind: type[HTTPDriver] = HTTPDriver, **options: Any) -> HTTPDriver:
    """A driver of the kernel's whose one endpoint is the peer."""
    endpoint = HTTPEndpoint(
        peer.url, method=options.pop("method", "GET"), headers=options.pop("headers", {})
    )
    driver = kind(**options)
    driver.register_endpoint(READ, endpoint)
    return driver


async def invoke(driver: Any, **options: Any) -> None:
    """One invocation over a kernel of its own."""
    kernel = make_kernel(driver)
    await kernel.invoke(token_of(kernel), principal=ALICE, args={}, **options)
    if isinstance(driver, HTTPDriver):
        await driver.aclose()


def traceparent(node: Node) -> str:
    """What a span looks like to those below it."""
    span = node.span.context
    assert span is not None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


@contextmanager
def theirs(flags: int = 1) -> Iterator[str]:
    """A span that the app's own server instrumentation has made current."""
    parent = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(flags))
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
    try:
        yield f"00-{0xABC:032x}-{0xDEF:016x}-{flags:02x}"
    finally:
        context.detach(token)


class OwnPropagator(TextMapPropagator):
    """A propagator of the app's, which writes one header or raises."""

    fails = False

    def inject(self, carrier: Any, context: Any = None, setter: Any = default_setter) -> None:
        if self.fails:
            raise ValueError("no propagation today")
        setter.set(carrier, "X-Own-Trace", "1")

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        raise AssertionError

    @property
    def fields(self) -> set[str]:
        return {"X-Own-Trace"}


@contextmanager
def own_propagator() -> Iterator[None]:
    """The app's propagator is the global one."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(OwnPropagator())
    try:
        yield
    finally:
        propagate.set_global_textmap(before)
