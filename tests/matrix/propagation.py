# SPDX-License-Identifier: Apache-2.0
"""Lets one release of weaver-kernel make its requests to real servers, and looks for the context.

Runs inside the environment of that release, which has the ``mcp`` package and OpenTelemetry's own
instrumentation of httpx besides. Prints what is wrong as a JSON list.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from opentelemetry.instrumentation.httpx import (  # type: ignore[import-not-found, unused-ignore]
    HTTPXClientInstrumentor,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_kernel_otel import KernelInstrumentor, semconv
from agent_kernel_otel.faults import faults
from tests.matrix.scenario import every_attribute, not_restored
from tests.matrix.scenes import ask
from tests.matrix.world import AGENT, FEATURES, lib, make_kernel
from tests.support.peer import listening

exporter = InMemorySpanExporter()
tracer_provider = TracerProvider(shutdown_on_exit=False)
tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))

Play = Callable[[], Coroutine[Any, Any, list[Any]]]


def traceparent(name: str) -> str:
    """What the one span of that name looks like to those below it."""
    spans: list[ReadableSpan] = [
        span
        for span in exporter.get_finished_spans()
        if span.name == name and (span.attributes or {}).get(semconv.STATUS) != "error"
    ]
    (context,) = (span.context for span in spans)
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


async def invoke(driver: Any) -> Any:
    kernel = make_kernel()
    kernel.register_driver(driver)
    token = ask(kernel, "items.list").token
    kernel._router.add_route("items.list", [driver.driver_id])
    frame = await kernel.invoke(token, principal=AGENT, args={}, response_mode="table")
    if hasattr(driver, "aclose"):
        await driver.aclose()
    return frame


async def over_http() -> list[Any]:
    drivers = importlib.import_module(f"{lib.__name__}.drivers.http")
    with listening() as peer:
        driver = drivers.HTTPDriver()
        driver.register_endpoint("items.list", drivers.HTTPEndpoint(peer.url))
        await invoke(driver)
        return peer.values("traceparent")


async def over_mcp() -> list[Any]:
    server = str(Path(__file__).with_name("mcp_server.py"))
    frame = await invoke(lib.MCPDriver.from_stdio(sys.executable, [server]))
    text = json.dumps(frame.table_preview) + json.dumps(frame.facts)
    parts = text.replace("\\", "").split('"')
    # As mcp_server.py spells them; letters up to f are hexadecimal digits.
    in_digits = str.maketrans("ghijklmnop", "0123456789")
    return [sorted({part.translate(in_digits) for part in parts if part.startswith("gg-")})]


async def to_peers() -> list[Any]:
    with listening() as peer:
        peer.answers["/"] = make_kernel().advertise(endpoint=peer.url).to_dict()
        await make_kernel().discover_peers(peer_urls=[peer.url])
        return peer.values("traceparent")


class Warnings(logging.Handler):
    """Our warnings of propagation that has no effect."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def sent(path: str, play: Play, parent: str, *, by_httpx: bool = False) -> list[str]:
    """What is wrong with the context of one kind of request."""
    exporter.clear()
    KernelInstrumentor().instrument(tracer_provider=tracer_provider, propagate_context=path)
    if by_httpx:
        HTTPXClientInstrumentor().instrument(tracer_provider=tracer_provider)
    try:
        found = await play()
    finally:
        KernelInstrumentor().uninstrument()
        if by_httpx:
            HTTPXClientInstrumentor().uninstrument()
    expected = [[traceparent(parent)]]
    return [] if found == expected else [f"{path} sent {found} under {expected}"]


async def absent(path: str, warnings: Warnings) -> list[str]:
    """What is wrong where a release makes no such requests: one warning is right."""
    before = len(warnings.lines)
    KernelInstrumentor().instrument(tracer_provider=tracer_provider, propagate_context=path)
    for _ in range(2):
        kernel = make_kernel()
        await kernel.invoke(ask(kernel, "items.list").token, principal=AGENT, args={})
    KernelInstrumentor().uninstrument()
    new = warnings.lines[before:]
    return [] if len(new) == 1 and path in new[0] else [f"{path} is absent, and was said: {new}"]


async def problems() -> list[str]:
    warnings = Warnings()
    logging.getLogger("agent_kernel_otel").addHandler(warnings)
    found = await sent("http", over_http, semconv.DRIVER)
    found += await sent("http", over_http, "GET", by_httpx=True)
    if hasattr(lib, "MCPDriver"):
        found += await sent("mcp", over_mcp, semconv.DRIVER)
    else:
        found += await absent("mcp", warnings)
    if FEATURES["federation"]:
        found += await sent("federation", to_peers, semconv.DISCOVER)
        found += await sent("federation", to_peers, "GET", by_httpx=True)
    else:
        found += await absent("federation", warnings)
    expected = (not hasattr(lib, "MCPDriver")) + (not FEATURES["federation"])
    if len(warnings.lines) != expected:
        found.append(f"warnings: {warnings.lines}")
    return found


def main() -> None:
    faults.reraise = True
    before = every_attribute()
    found = asyncio.run(problems())
    print(json.dumps([*found, *(f"{name} is not what it was" for name in not_restored(before))]))


if __name__ == "__main__":
    main()
