# SPDX-License-Identifier: Apache-2.0
"""A web app, as gunicorn serves it (``app``) and as uvicorn does (``asgi``).

Each request is one real invocation of a kernel; the answer is its action id.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import weaver_kernel as wk
from opentelemetry import metrics
from weaver_kernel.models import CapabilityRequest

_customers = itertools.count()
_requests = metrics.get_meter("web_app").create_counter("requests")


def make_kernel() -> wk.Kernel:
    registry = wk.CapabilityRegistry()
    registry.register(wk.Capability("orders.list", "List", "List orders", wk.SafetyClass.READ))
    kernel = wk.Kernel(registry, router=wk.StaticRouter(fallback=["memory"]))
    driver = wk.InMemoryDriver("memory")
    driver.register_handler("orders.list", lambda context: [{"id": 1}])
    kernel.register_driver(driver)
    return kernel


KERNEL = make_kernel()


async def serve() -> bytes:
    # The kernel limits what one principal may do in a minute.
    agent = wk.Principal(f"agent-{next(_customers)}", roles=["reader"])
    request = CapabilityRequest("orders.list", goal="serve")
    token = KERNEL.grant_capability(request, agent, justification="a customer asks").token
    frame = await KERNEL.invoke(token, principal=agent, args={})
    _requests.add(1)
    return frame.action_id.encode()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = asyncio.run(serve())
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        os.write(1, b"ready\n")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    if scope["type"] == "http":
        body = await serve()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
