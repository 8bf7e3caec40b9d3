# SPDX-License-Identifier: Apache-2.0
"""An app that puts secrets wherever telemetry has a place, in its kernel's calls and by its own hand.

    python tests/gateway/secretive.py SECRET

Each secret has SECRET in it, so that it is known wherever it comes out.
"""

from __future__ import annotations

import asyncio
import json
import runpy
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import weaver_kernel as wk
from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
from opentelemetry.trace import Status, StatusCode
from weaver_kernel.models import CapabilityRequest

TOUR = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "tour.py"))
SECRET = sys.argv[1]
SHAPES = {
    "bearer": "Bearer sk-live-{}",
    "key": "sk-proj-{}abcdef",
    "url": "postgres://user:{}@db.example/orders",
    "mail": "{}@example.com",
    "jwt": "eyJhbGciOi.eyJ{}.c2lnbmF0dXJl",
    "named": "api_key={}",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\n{}\n",
}
"""By which a secret can be known."""
CONTENT_KEYS = (
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "agent_kernel.goal",
    "agent_kernel.justification",
    "exception.message",
    "exception.stacktrace",
)


def shaped(place: str) -> dict[str, str]:
    """A secret of each shape."""
    return {name: shape.format(f"{SECRET}{place}") for name, shape in SHAPES.items()}


def plain(place: str) -> dict[str, str]:
    """Text that nothing but its key gives away."""
    return dict.fromkeys(CONTENT_KEYS, f"the word {SECRET}{place} and no more")


async def call_the_kernel() -> None:
    """With content capture on; what is patterned has been scrubbed here already."""
    kernel, _ = TOUR["make_kernel"]()
    agent = TOUR["AGENT"]

    def token(capability_id: str) -> Any:
        request = CapabilityRequest(capability_id, goal=f"find {SECRET}goal")
        why = f"somebody asked for {SECRET}justification"
        return kernel.get_token(request, agent, justification=why)

    await kernel.invoke(token("orders.list"), principal=agent, args={"note": f"{SECRET}argument"})
    failing = wk.InMemoryDriver("crm")
    failing.register_handler("orders.list", fail)
    kernel.register_driver(failing)
    with suppress(wk.AgentKernelError):
        await kernel.invoke(token("orders.list"), principal=agent, args={})


def fail(_: object) -> None:
    raise wk.DriverError(f"no such order: {SECRET}exception")


def trace_by_hand() -> None:
    tracer = trace.get_tracer("an.app", attributes={"note": SHAPES["key"].format(f"{SECRET}scope")})
    for name, secret in shaped("span").items():
        with tracer.start_as_current_span(f"GET {secret}") as span:
            span.set_attribute("note", f"it is {secret}")
            span.set_attribute("notes", ["nothing", secret])
            span.set_attributes(plain("key"))
            span.add_event(f"saw {secret}", {"note": secret, "notes": [secret], **plain("event")})
            span.set_status(Status(StatusCode.ERROR, f"failed with {secret}"))
            span.set_attribute("shape", name)


def log_by_hand() -> None:
    logger = get_logger("an.app")
    for name, secret in shaped("log").items():
        nested: Any = {"list": [{"deep": secret}], "inner": plain("nested"), "text": secret}
        bodies: tuple[Any, ...] = (f"it is {secret}", nested, [secret, {"again": nested}])
        for body in bodies:
            logger.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    severity_number=SeverityNumber.INFO,
                    severity_text=f"INFO {secret}",
                    event_name=f"saw {secret}",
                    body=body,
                    attributes={"note": secret, "nested": nested, "shape": name, **plain("log")},
                )
            )


def count_by_hand() -> None:
    counter = metrics.get_meter("an.app").create_counter("an.app.orders")
    for secret in shaped("metric").values():
        counter.add(1, {"note": secret, **plain("metric")})


if __name__ == "__main__":
    asyncio.run(call_the_kernel())
    trace_by_hand()
    log_by_hand()
    count_by_hand()
    print(json.dumps({}))
