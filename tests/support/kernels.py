# SPDX-License-Identifier: Apache-2.0
"""Real Weaver kernels of the newest release, small enough to read at a glance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from weaver_kernel import (
    Capability,
    CapabilityGrant,
    CapabilityRegistry,
    CapabilityRequest,
    CapabilityToken,
    HMACTokenProvider,
    InMemoryDriver,
    Kernel,
    Principal,
    SafetyClass,
    StaticRouter,
)
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import RawResult

READ = "tasks.list"
WRITE = "tasks.add"
DESTROY = "tasks.delete_all"

ALICE = Principal("alice", roles=["reader"])
BOB = Principal("bob", roles=["reader"])
ADMIN = Principal("root", roles=["reader", "writer", "admin"])

ROWS: list[dict[str, Any]] = [{"id": 1, "title": "write"}, {"id": 2, "title": "test"}]


def registry() -> CapabilityRegistry:
    """Three capabilities, one of each safety class."""
    capabilities = CapabilityRegistry()
    capabilities.register(Capability(READ, "List", "List the tasks", SafetyClass.READ))
    capabilities.register(Capability(WRITE, "Add", "Add a task", SafetyClass.WRITE))
    capabilities.register(Capability(DESTROY, "Purge", "Delete all tasks", SafetyClass.DESTRUCTIVE))
    return capabilities


def memory_driver(
    driver_id: str = "memory", answer: Callable[[ExecutionContext], Any] | None = None
) -> InMemoryDriver:
    """A driver that answers every capability, with :data:`ROWS` unless told otherwise."""
    driver = InMemoryDriver(driver_id)
    for capability in (READ, WRITE, DESTROY):
        driver.register_handler(capability, answer or (lambda _: list(ROWS)))
    return driver


def make_kernel(*drivers: Any, route: Sequence[str] | None = None, **collaborators: Any) -> Kernel:
    """A kernel over :func:`registry`, whose route is all of its drivers in order."""
    used = drivers or (memory_driver(),)
    order = list(route) if route is not None else [driver.driver_id for driver in used]
    collaborators.setdefault("token_provider", HMACTokenProvider(secret="test-signing-key"))
    collaborators.setdefault("router", StaticRouter(fallback=order))
    kernel = Kernel(registry(), **collaborators)
    for driver in used:
        kernel.register_driver(driver)
    return kernel


def grant(
    kernel: Kernel,
    capability: str = READ,
    principal: Principal = ALICE,
    justification: str = "needed for the weekly report",
    **request: Any,
) -> CapabilityGrant:
    """Ask for a capability."""
    return kernel.grant_capability(
        CapabilityRequest(capability, goal="see the tasks", **request),
        principal,
        justification=justification,
    )


def token_of(
    kernel: Kernel, capability: str = READ, principal: Principal = ALICE, **constraints: Any
) -> CapabilityToken:
    """A token by the kernel's own provider, without a grant by the kernel."""
    provider: Any = vars(kernel)["_token_provider"]
    token: CapabilityToken = provider.issue(
        capability, principal.principal_id, constraints=constraints
    )
    return token


class StreamingDriver:
    """A driver that streams; what it does before, between and after is the test's to say."""

    def __init__(
        self,
        chunks: Sequence[dict[str, Any]] = ({"n": 0}, {"n": 1}, {"n": 2}),
        driver_id: str = "streamer",
        before_chunk: Callable[[int], Any] | None = None,
    ) -> None:
        self.driver_id = driver_id
        self.chunks = chunks
        self.before_chunk = before_chunk
        self.closed = 0

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return RawResult(capability_id=ctx.capability_id, data=list(self.chunks))

    async def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
        try:
            for number, chunk in enumerate(self.chunks):
                if self.before_chunk is not None:
                    waiting = self.before_chunk(number)
                    if waiting is not None:
                        await waiting
                yield dict(chunk)
        finally:
            self.closed += 1
