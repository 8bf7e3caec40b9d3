# SPDX-License-Identifier: Apache-2.0
"""An app that uses a Weaver kernel and knows nothing of telemetry.

It plants a secret, made from its environment when it runs, everywhere where the kernel meets
one, and prints what its own log handler was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import Any

import weaver_kernel as wk
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import CapabilityRequest

NONCE = os.environ["ORDERS_NONCE"]
TOKEN = "Bearer sk-" + "live-" + NONCE
_logger = logging.getLogger("orders")


class Printer(logging.Handler):
    """The app's own log: the message as formatted, and each extra that the kernel gave."""

    def emit(self, record: logging.LogRecord) -> None:
        extras = {
            name: getattr(record, name)
            for name in ("goal", "error", "endpoint", "principal_id", "capability_id")
            if hasattr(record, name)
        }
        print(record.name, record.getMessage(), extras, bool(record.exc_info), flush=True)


def answer(context: ExecutionContext) -> Any:
    _logger.warning("listing orders")
    return [{"id": 1, "note": TOKEN}]


def fail(context: ExecutionContext) -> Any:
    raise wk.DriverError(f"GET https://api.example/?access_token={NONCE} refused {TOKEN}")


class BrokenTraceStore(wk.TraceStore):
    def record_denial(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"disk full at /data/{NONCE}")

    record = record_denial


def make_kernel(**collaborators: Any) -> wk.Kernel:
    """A kernel whose signing key is the kernel's own development one, which it warns of."""
    registry = wk.CapabilityRegistry()
    registry.register(wk.Capability("orders.list", "List", "List the orders", wk.SafetyClass.READ))
    registry.register(wk.Capability("orders.fail", "Fail", "Always fails", wk.SafetyClass.READ))
    registry.register(
        wk.Capability("orders.purge", "Purge", "Delete all", wk.SafetyClass.DESTRUCTIVE)
    )
    kernel = wk.Kernel(
        registry,
        router=wk.StaticRouter(fallback=["memory"]),
        **collaborators,
    )
    driver = wk.InMemoryDriver("memory")
    driver.register_handler("orders.list", answer)
    driver.register_handler("orders.fail", fail)
    kernel.register_driver(driver)
    return kernel


async def main() -> None:
    logging.basicConfig(level=logging.DEBUG, handlers=[Printer()])
    # The HTTP client logs the addresses that it calls: its business, and its user's.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.ERROR)
    agent = wk.Principal(
        "alice@example.com", roles=["reader", f"role-{NONCE}"], attributes={"tenant": NONCE}
    )
    kernel = make_kernel()
    kernel.request_capabilities(f"list orders of {NONCE}")

    def token(capability: str) -> Any:
        request = CapabilityRequest(
            capability, goal=f"goal {NONCE}", constraints={"note": NONCE, "max_rows": 7}
        )
        granted = kernel.grant_capability(
            request, agent, justification=f"because customer {NONCE} asked for it"
        )
        return granted.token

    frame = await kernel.invoke(
        token("orders.list"), principal=agent, args={"customer": NONCE, "auth": TOKEN}
    )
    assert frame.handle is not None
    kernel.expand(frame.handle, query={"filter": {"note": TOKEN}}, principal=agent)
    await kernel.invoke(
        token("orders.list"), principal=agent, args={"customer": NONCE}, dry_run=True
    )
    async for _ in kernel.invoke_stream(
        token("orders.list"), principal=agent, args={"customer": NONCE}
    ):
        pass
    with contextlib.suppress(wk.DriverError):
        await kernel.invoke(token("orders.fail"), principal=agent, args={"customer": NONCE})
    with contextlib.suppress(wk.PolicyDenied):
        token("orders.purge")
    with contextlib.suppress(wk.PolicyDenied):
        make_kernel(trace_store=BrokenTraceStore()).grant_capability(
            CapabilityRequest("orders.purge", goal=NONCE), agent, justification=NONCE
        )
    endpoint = f"https://user:{NONCE}@peer.example/kernel"
    manifest = kernel.advertise(endpoint=endpoint)
    importer = wk.Kernel(wk.CapabilityRegistry(), router=wk.StaticRouter())
    importer.import_remote(manifest, driver=wk.InMemoryDriver("remote"))
    with contextlib.suppress(wk.DiscoveryError):
        await kernel.discover_peers(registry_url=f"http://user:{NONCE}@127.0.0.1:1/peers")


if __name__ == "__main__":
    asyncio.run(main())
    sys.stdout.flush()
