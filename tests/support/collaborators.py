# SPDX-License-Identifier: Apache-2.0
"""Collaborators of a kernel as applications write them: of any make, and unlike the kernel's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

from weaver_kernel import (
    Capability,
    CapabilityRequest,
    CapabilityToken,
    DefaultPolicyEngine,
    Firewall,
    Frame,
    HMACTokenProvider,
    InMemoryDriver,
    Principal,
)
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import PolicyDecision, RawResult, RoutePlan

from tests.support.kernels import ROWS, memory_driver


def raw(ctx: Any) -> RawResult:
    """An answer of :data:`ROWS`."""
    return RawResult(capability_id=ctx.capability_id, data=list(ROWS))


class SlottedDriver:
    """No attribute can be put on it."""

    __slots__ = ("_id",)

    def __init__(self, driver_id: str = "slotted") -> None:
        self._id = driver_id

    @property
    def driver_id(self) -> str:
        return self._id

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return raw(ctx)


class InstanceDriver:
    """Its class has no ``execute``: each instance does."""

    def __init__(self) -> None:
        self.driver_id = "instance"

        async def execute(ctx: ExecutionContext) -> RawResult:
            return raw(ctx)

        self.execute = execute


class CallingSuper(InMemoryDriver):
    """A subclass of a driver of the kernel's."""

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return await super().execute(ctx)


class RetryingDriver:
    """Hands on to another driver, twice where it must."""

    driver_id = "retrying"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        try:
            result: RawResult = await self.inner.execute(ctx)
        except ConnectionError:
            result = await self.inner.execute(ctx)
        return result


class FailingOnce:
    """Fails, then serves."""

    driver_id = "failing-once"

    def __init__(self) -> None:
        self.calls = 0

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError
        return raw(ctx)


def async_mock_driver() -> Any:
    driver = Mock(spec=["driver_id", "execute"])
    driver.driver_id = "async-mock"
    driver.execute = AsyncMock(return_value=RawResult(capability_id="mocked", data=list(ROWS)))
    return driver


def magic_mock_driver() -> Any:
    driver = MagicMock()
    driver.driver_id = "magic-mock"
    driver.execute = AsyncMock(return_value=RawResult(capability_id="mocked", data=list(ROWS)))
    return driver


def namespace_driver() -> Any:
    async def execute(ctx: ExecutionContext) -> RawResult:
        return raw(ctx)

    return SimpleNamespace(driver_id="namespace", execute=execute)


def calling_super() -> InMemoryDriver:
    driver = CallingSuper("calling-super")
    driver.register_handler("tasks.list", lambda _: list(ROWS))
    return driver


DRIVERS = {
    "slotted": SlottedDriver,
    "execute on the instance": InstanceDriver,
    "AsyncMock": async_mock_driver,
    "MagicMock": magic_mock_driver,
    "SimpleNamespace": namespace_driver,
    "subclass calling super": calling_super,
    "delegating": lambda: RetryingDriver(memory_driver()),
    "retrying": lambda: RetryingDriver(FailingOnce()),
}
"""Makers of drivers, each of which answers ``tasks.list`` in one attempt of the kernel's."""


class SlottedEngine:
    """A third-party policy engine without ``explain``."""

    __slots__ = ("calls", "inner")

    def __init__(self) -> None:
        self.inner = DefaultPolicyEngine()
        self.calls = 0

    def evaluate(
        self,
        request: CapabilityRequest,
        capability: Capability,
        principal: Principal,
        *,
        justification: str,
    ) -> PolicyDecision:
        self.calls += 1
        return self.inner.evaluate(request, capability, principal, justification=justification)


def mock_engine() -> Any:
    engine = Mock(spec=["evaluate"])
    engine.evaluate.return_value = PolicyDecision(allowed=True, reason="mocked")
    return engine


class DuckFirewall:
    """Quacks like a firewall, and is none of the kernel's classes."""

    def __init__(self) -> None:
        self._inner = Firewall()
        self.budgets = self._inner.budgets

    def transform(self, *args: Any, **kwargs: Any) -> Frame:
        return self._inner.transform(*args, **kwargs)

    def apply_stream(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.apply_stream(*args, **kwargs)


class FirewallSubclass(Firewall):
    def transform(self, *args: Any, **kwargs: Any) -> Frame:
        return super().transform(*args, **kwargs)


class TracingProvider:
    """A third-party token provider that opens spans of its own."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._inner = HMACTokenProvider(secret="third-party")

    def issue(self, *args: Any, **kwargs: Any) -> CapabilityToken:
        return self._inner.issue(*args, **kwargs)

    def verify(self, *args: Any, **kwargs: Any) -> None:
        with self._tracer.start_as_current_span("key server"):
            self._inner.verify(*args, **kwargs)

    def revoke(self, token_id: str) -> None:
        self._inner.revoke(token_id)


class Forwarding:
    """Hands everything to another object; what it lacks, this lacks."""

    def __init__(self, inner: Any, without: str = "") -> None:
        self._inner = inner
        self._without = without

    def __getattr__(self, name: str) -> Any:
        if name == self._without:
            raise AttributeError(name)
        return getattr(self._inner, name)


class FalsyForwarding(Forwarding):
    """The same, and false: to be put on the kernel's attribute, whose constructor refuses it."""

    def __len__(self) -> int:
        return 0


class FixedRouter:
    """Routes everything to the same drivers, and takes no routes."""

    def __init__(self, *driver_ids: str) -> None:
        self._driver_ids = list(driver_ids)

    def route(self, capability_id: str) -> RoutePlan:
        return RoutePlan(capability_id=capability_id, driver_ids=self._driver_ids)
