# SPDX-License-Identifier: Apache-2.0
"""The kernel under test, whichever release it is, and an app's own parts around it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def _import_kernel() -> Any:
    for name in ("weaver_kernel", "agent_kernel"):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise SystemExit("no release of weaver-kernel is installed")


lib = _import_kernel()
models = importlib.import_module(f"{lib.__name__}.models")
Kernel: Any = lib.Kernel

FEATURES = {
    "budget": hasattr(lib, "BudgetManager"),
    "deny_trace": "event_type" in {field.name for field in dataclasses.fields(lib.ActionTrace)},
    "dry_run": "dry_run" in inspect.signature(Kernel.invoke).parameters,
    "expand_principal": "principal" in inspect.signature(Kernel.expand).parameters,
    "federation": hasattr(Kernel, "import_remote"),
    "handle_constraints": hasattr(lib, "HandleConstraintViolation"),
    "kernel_id": hasattr(Kernel, "kernel_id"),
    "reason_codes": hasattr(lib, "DenialReason"),
    "streams": hasattr(Kernel, "invoke_stream"),
}

AGENT = lib.Principal("agent-1", roles=["reader"], attributes={"tenant": "acme"})
OTHER = lib.Principal("agent-2", roles=["reader"], attributes={"tenant": "acme"})
ROUTES = {
    "mail.send": ["broken", "memory"],
    "doomed.run": ["broken", "broken-too"],
    "slotted.run": ["slotted"],
    "slow.run": ["slow"],
    "crash.run": ["crashing"],
    "stream.run": ["streamer"],
    "stream.fail": ["streamer"],
    "stream.fail-at-once": ["streamer"],
    "stream.stall": ["streamer"],
    "stream.stall-at-once": ["streamer"],
}


class Slotted:
    """A driver that can take no attribute, with a method that no class attribute names."""

    __slots__ = ("driver_id", "execute")

    def __init__(self) -> None:
        self.driver_id = "slotted"
        self.execute = self._run

    async def _run(self, ctx: Any) -> Any:
        return lib.RawResult(ctx.capability_id, {"slots": True})


class Slow:
    driver_id = "slow"

    def __init__(self) -> None:
        self.running = asyncio.Event()

    async def execute(self, ctx: Any) -> Any:
        self.running.set()
        await asyncio.sleep(60)


class Crashing:
    driver_id = "crashing"

    async def execute(self, ctx: Any) -> Any:
        raise OSError("the disk is full")


class Streamer:
    def __init__(self) -> None:
        self.driver_id = "streamer"
        self.stalled = asyncio.Event()

    async def execute(self, ctx: Any) -> Any:
        raise lib.DriverError("a streaming driver must be streamed")

    async def execute_stream(self, ctx: Any) -> AsyncIterator[dict[str, Any]]:
        fate = ctx.capability_id.removeprefix("stream.")
        if fate == "stall-at-once":
            await self._stall()
        if fate == "fail-at-once":
            raise lib.DriverError("nobody is there")
        yield {"part": 1}
        if fate == "stall":
            await self._stall()
        if fate == "fail":
            raise lib.DriverError("the line went dead")
        yield {"part": 2}
        yield {"part": 3, "__is_final__": True}

    async def _stall(self) -> None:
        self.stalled.set()
        await asyncio.sleep(60)


class SlottedPolicy:
    """A third party's policy engine that lets everything pass."""

    __slots__ = ()

    def evaluate(self, request: Any, capability: Any, principal: Any, *, justification: str) -> Any:
        return lib.PolicyDecision(allowed=True, reason="yes", constraints={})


kernels: list[Any] = []
"""All that were made."""


options_of_all: dict[str, Any] = {}
"""What every kernel is made with, unless it is made with something else."""


def audited() -> int:
    """How many audit records there are."""
    return sum(len(kernel._trace_store.list_all()) for kernel in kernels)


def make_kernel(**options: Any) -> Any:
    read, write = lib.SafetyClass.READ, lib.SafetyClass.WRITE
    registry = lib.CapabilityRegistry()
    for name in ("items.list", *ROUTES):
        registry.register(lib.Capability(name, name, f"The capability {name}.", read))
    registry.register(lib.Capability("items.write", "write", "Writes.", write))
    registry.register(
        lib.Capability(
            "people.list",
            "people",
            "The capability people.list.",
            read,
            lib.SensitivityTag.PII,
            allowed_fields=["id", "note"],
        )
    )
    memory = lib.InMemoryDriver("memory")
    memory.register_handler("items.list", lambda _: [{"id": n} for n in range(30)])
    memory.register_handler("mail.send", lambda _: {"sent": True})
    memory.register_handler(
        "people.list", lambda _: [{"id": 1, "phone": "555", "note": "mail a@example.com"}]
    )
    kernel = Kernel(
        registry,
        token_provider=lib.HMACTokenProvider(secret="matrix"),
        router=lib.StaticRouter(routes=dict(ROUTES)),
        **{**options_of_all, **options},
    )
    # The broken ones have no handler, and say so with a DriverError.
    broken = [lib.InMemoryDriver("broken"), lib.InMemoryDriver("broken-too")]
    for driver in (memory, *broken, Crashing(), Slotted(), Slow(), Streamer()):
        kernel.register_driver(driver)
    kernels.append(kernel)
    return kernel
