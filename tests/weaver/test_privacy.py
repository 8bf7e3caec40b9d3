# SPDX-License-Identifier: Apache-2.0
"""Canaries in every place that holds what must not leave, on every path a call can take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from weaver_kernel import (
    AgentKernelError,
    BudgetManager,
    CapabilityManifest,
    CapabilityRequest,
    DeclarativePolicyEngine,
    DriverError,
    Firewall,
    Frame,
    HTTPDriver,
    Kernel,
    PolicyDenied,
    Principal,
)
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.drivers.http import HTTPEndpoint
from weaver_kernel.models import PolicyDecision, RawResult

from agent_kernel_otel import semconv
from tests.support.canaries import SHAPES, Canaries
from tests.support.capture import Capture
from tests.support.instrumented import AsyncDriver, drain, instrumented, turns_until
from tests.support.kernels import READ, grant, make_kernel, memory_driver, token_of

PRINCIPAL = "an-id-that-may-leave"


class World:
    """A kernel with a secret in every place, and the calls that carry them."""

    def __init__(self, canaries: Canaries) -> None:
        plant = self.plant = canaries.plant
        self.principal = Principal(
            PRINCIPAL,
            roles=["reader", plant("role")],
            attributes={"tenant": plant("attribute"), plant("attribute key"): "x"},
        )
        self.args = {"q": plant("argument"), plant("argument key"): 1, "deep": [plant("deep")]}
        self.constraints = {"scope": {"customer": plant("constraint")}, plant("constraint key"): 1}

    def request(self, **more: Any) -> CapabilityRequest:
        return CapabilityRequest(
            READ,
            self.plant("goal"),
            constraints={"note": self.plant("request constraint")},
            intent=self.plant("intent"),
            scope={"customer": self.plant("scope")},
            **more,
        )

    def answer(self, _: Any) -> Any:
        return [{"value": self.plant("value"), self.plant("result key"): "v",
                 "email": self.plant("redacted"), "n": {"a": {"b": {"c": self.plant("depth")}}}}]  # fmt: skip

    def token(self, kernel: Kernel, principal: Principal | None = None) -> Any:
        token = token_of(kernel, READ, principal or self.principal, **self.constraints)
        self.plant("signature")
        return token

    async def invoke(self, kernel: Kernel, **options: Any) -> Any:
        options.setdefault("principal", self.principal)
        token = options.pop("token", None) or self.token(kernel)
        return await kernel.invoke(token, args=self.args, **options)

    def error(self, place: str) -> Exception:
        error = RuntimeError(self.plant(place))
        error.__cause__ = ValueError(self.plant(f"{place}, its cause"))
        error.add_note(self.plant("note")) if hasattr(error, "add_note") else None
        return error


async def success(world: World) -> None:
    kernel = make_kernel(memory_driver("memory", world.answer))
    token = kernel.grant_capability(
        world.request(), world.principal, justification=world.plant("justification")
    ).token
    for mode in ("summary", "table", "handle_only", "raw"):
        frame = await world.invoke(kernel, token=token, response_mode=mode)
    frame = await world.invoke(kernel, token=token, response_mode="table")
    assert frame.handle is not None
    kernel.expand(frame.handle, query={"limit": 1}, principal=world.principal)


async def denied_at_grant(world: World) -> None:
    class Engine:
        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            raise PolicyDenied(world.plant("policy reason"), reason_code="custom")

    rules = {"rules": [{"name": "r", "match": {}, "action": "deny",
                        "reason": world.plant("rule reason")}]}  # fmt: skip
    for engine in (Engine(), DeclarativePolicyEngine.from_dict(rules)):
        with pytest.raises(PolicyDenied):
            make_kernel(policy=engine).grant_capability(
                world.request(), world.principal, justification=world.plant("justification")
            )


async def crashed_at_grant(world: World) -> None:
    class Engine:
        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            raise world.error("engine")

    with pytest.raises(RuntimeError):
        grant(make_kernel(policy=Engine()), principal=world.principal)


async def allowed_false(world: World) -> None:
    class Engine:
        def evaluate(self, *args: Any, **kwargs: Any) -> PolicyDecision:
            return PolicyDecision(
                allowed=False, reason=world.plant("reason"), constraints=world.constraints
            )

    grant(make_kernel(policy=Engine()), principal=world.principal)


async def denied_at_enforcement(world: World) -> None:
    kernel = make_kernel()
    token = world.token(kernel)
    token.signature = world.plant("forged signature")
    with pytest.raises(AgentKernelError):
        await world.invoke(kernel, token=token)
    with pytest.raises(AgentKernelError):
        await world.invoke(kernel, principal=Principal("someone else"))


async def denied_at_expansion(world: World) -> None:
    kernel = make_kernel(memory_driver("memory", world.answer))
    frame = await world.invoke(kernel, response_mode="table")
    query = {"filter": {world.plant("filter key"): world.plant("filter")},
             "fields": [world.plant("field")], "offset": 0}  # fmt: skip
    assert frame.handle is not None
    frame.handle.constraints["allowed_fields"] = ["other"]
    with pytest.raises(AgentKernelError):
        kernel.expand(frame.handle, query=query, principal=Principal("someone else"))
    with suppress(AgentKernelError):
        kernel.expand(frame.handle, query=query, principal=world.principal)


async def failing_drivers(world: World) -> None:
    def handler(_: Any) -> Any:
        raise world.error("handler")

    async def own(_: ExecutionContext) -> Any:
        raise world.error("driver")

    fallback = make_kernel(AsyncDriver("own", own), memory_driver())
    await world.invoke(fallback)
    for driver in (memory_driver("memory", handler), AsyncDriver("own", own)):
        with pytest.raises(DriverError):
            await world.invoke(make_kernel(driver))


async def failing_http(world: World) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, text=world.plant("body"))

    driver = HTTPDriver("http", base_headers={"authorization": world.plant("base header")})
    driver._client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    url = f"https://u:{world.plant('url password').rpartition('/')[2]}@h/?token="
    driver.register_endpoint(
        READ, HTTPEndpoint(url=url + "x", headers={"x-key": world.plant("header")})
    )
    with pytest.raises(DriverError):
        await world.invoke(make_kernel(driver))
    await driver.aclose()


async def exhausted_budget(world: World) -> None:
    kernel = make_kernel(budget_manager=BudgetManager(total_budget=1))
    with suppress(AgentKernelError):
        await world.invoke(kernel)
    with suppress(AgentKernelError):
        await world.invoke(kernel)


async def cancelled(world: World) -> None:
    reached = asyncio.Event()

    async def wait(_: ExecutionContext) -> Any:
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(world.invoke(make_kernel(AsyncDriver("waiting", wait))))
    await reached.wait()
    task.cancel(world.plant("cancel message"))
    await turns_until(task.done)


async def broken_firewall(world: World) -> None:
    class Broken(Firewall):
        def transform(self, *args: Any, **kwargs: Any) -> Frame:
            raise world.error("firewall")

    with pytest.raises(RuntimeError):
        await world.invoke(make_kernel(firewall=Broken()))


class Streaming:
    driver_id = "streaming"

    def __init__(self, world: World, *, fails: bool) -> None:
        self.world, self.fails = world, fails

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        raise NotImplementedError

    async def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
        for _ in range(3):
            yield {"text": self.world.plant("chunk"), self.world.plant("chunk key"): 1}
        if self.fails:
            raise self.world.error("stream")


async def streams(world: World) -> None:
    def stream(*, fails: bool = False) -> Any:
        kernel = make_kernel(Streaming(world, fails=fails))
        return kernel.invoke_stream(world.token(kernel), principal=world.principal, args=world.args)

    await drain(stream())
    with pytest.raises(RuntimeError):
        await drain(stream(fails=True))
    closed = stream()
    await anext(closed)
    await closed.aclose()
    thrown = stream()
    await anext(thrown)
    with pytest.raises(RuntimeError):
        await thrown.athrow(world.error("thrown"))
    await asyncio.sleep(0)


async def dry_run(world: World) -> None:
    await world.invoke(make_kernel(), dry_run=True)


async def federation(world: World) -> None:
    kernel = make_kernel()
    manifest = CapabilityManifest(
        world.plant("remote id"), "1", [], f"https://{world.plant('endpoint')}"
    )
    kernel.import_remote(manifest, driver=memory_driver("remote"))
    with pytest.raises(AgentKernelError):
        await kernel.discover_peers(peer_urls=[f"bad://{world.plant('peer')}"])
    with pytest.raises(AgentKernelError):
        await kernel.discover_peers(
            registry_url=f"bad://{world.plant('registry')}", secret=world.plant("secret")
        )


PATHS: list[Callable[[World], Awaitable[None]]] = [
    success, denied_at_grant, crashed_at_grant, allowed_false, denied_at_enforcement,
    denied_at_expansion, failing_drivers, failing_http, exhausted_budget, cancelled,
    broken_firewall, streams, dry_run, federation,
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", ["info", "debug", "off"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
async def test_no_canary_leaves_by_default(
    path: Callable[[World], Awaitable[None]], level: str, shape: str
) -> None:
    canaries = Canaries(shape)
    with instrumented(span_level=level) as captured:
        await path(World(canaries))
        assert canaries.planted
        assert captured.spans() or captured.events() or level == "off"
        assert canaries.places_in(captured) == []


async def test_no_canary_leaves_where_nothing_is_sampled() -> None:
    canaries = Canaries()
    with instrumented(sampler=ALWAYS_OFF) as captured:
        await denied_at_grant(World(canaries))
        assert captured.events()
        assert canaries.places_in(captured) == []


async def test_a_canary_is_found_where_it_does_leave(capture: Capture) -> None:
    canaries = Canaries()
    grant(make_kernel(), principal=Principal(canaries.plant("principal"), roles=["reader"]))
    assert canaries.places_in(capture) == ["principal"]


def principals(capture: Capture) -> list[Any]:
    spans: list[Any] = [span.attributes or {} for span in capture.spans()]
    records = [*spans, *(event.attributes for event in capture.events())]
    return [each[semconv.PRINCIPAL_ID] for each in records if semconv.PRINCIPAL_ID in each]


async def everything_of(world: World) -> None:
    for path in (success, denied_at_grant, denied_at_enforcement, denied_at_expansion, streams):
        await path(world)


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_a_principal_can_be_left_out_everywhere(level: str) -> None:
    with instrumented(span_level=level, principal_id="off") as captured:
        await everything_of(World(Canaries()))
        assert principals(captured) == []
        assert PRINCIPAL not in captured.exported_text()


async def hashes(**settings: Any) -> set[Any]:
    with instrumented(principal_id="hash", span_level="debug", **settings) as captured:
        await everything_of(World(Canaries()))
        assert PRINCIPAL not in captured.exported_text()
        assert "someone else" not in captured.exported_text()
        return set(principals(captured))


async def test_a_principals_hash_is_keyed_and_stable_within_a_key() -> None:
    one, again = await hashes(principal_hash_key="k1"), await hashes(principal_hash_key="k1")
    other = await hashes(principal_hash_key="k2")
    assert one == again
    assert len(one) == 2  # PRINCIPAL and someone else
    assert not one & other
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in one | other)
    assert not await hashes() & (one | other)  # a random key of the process


async def test_ids_leave_as_they_are_whatever_is_captured() -> None:
    with instrumented(
        capture_exception_text=True, capture_content="arguments,results,goals,justifications"
    ) as captured:
        for _ in range(40):
            kernel = make_kernel()
            token = grant(kernel).token
            frame = await kernel.invoke(token, principal=Principal("alice"), args={})
            granted, invoked = captured.roots()
            assert granted[semconv.TOKEN_ID] == invoked[semconv.TOKEN_ID] == token.token_id
            assert invoked[semconv.ACTION_ID] == frame.action_id
            assert frame.handle is not None
            assert invoked[semconv.HANDLE_ID] == frame.handle.handle_id
            captured.clear()
