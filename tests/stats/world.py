# SPDX-License-Identifier: Apache-2.0
"""A real kernel, whose collaborators do what an operation says, and what the app saw of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from weaver_kernel import (
    BudgetManager,
    CapabilityRequest,
    CapabilityToken,
    DefaultPolicyEngine,
    Firewall,
    Frame,
    Handle,
    HMACTokenProvider,
    Kernel,
    PolicyDenied,
    Principal,
    SafetyClass,
    StaticRouter,
    TraceStore,
)
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.errors import DriverError
from weaver_kernel.firewall.budgets import Budgets
from weaver_kernel.models import RawResult

from tests.support.kernels import READ, WRITE, registry

Mode = Literal["summary", "table", "raw", "handle_only"]
Attempt = Literal["answer", "fail", "crash", "hang"]
Data = Literal["plain", "secret", "long"]
Token = Literal["good", "revoked", "expired", "foreign", "unknown", "bad deadline"]
Decision = Literal["usual", "own code", "no code", "foreign", "crash", "not enforced"]

DATA: dict[Data, dict[str, Any]] = {
    "plain": {"n": 1},
    "secret": {"mail": "ann@example.com"},
    "long": {"text": "many words " * 100},
}


class OwnRefusalError(Exception):
    """An app's own exception, which says why in the kernel's manner."""

    reason_code = "own_refusal"


@dataclass(frozen=True)
class Grant:
    """Ask for a capability."""

    writes: bool = False
    writer: bool = False
    justification: str = "needed for the weekly report"
    decision: Decision = "usual"
    issuing_refused: bool = False


@dataclass(frozen=True)
class Invoke:
    """Invoke a capability, by drivers that are tried in turn."""

    attempts: tuple[Attempt, ...] = ("answer",)
    data: Data = "plain"
    mode: Mode = "summary"
    admin: bool = False
    token: Token = "good"
    dry_run: bool = False
    audit_fails: bool = False
    firewall: Literal["usual", "crash", "refuse", "stricter"] = "usual"
    storing_fails: bool = False
    stopped: Literal["cancelled", "closed"] = "cancelled"
    """How an attempt that hangs is ended."""


@dataclass(frozen=True)
class Stream:
    """Stream a capability, and stop somewhere."""

    chunks: int = 3
    data: Data = "plain"
    mode: Mode = "summary"
    admin: bool = False
    token: Token = "good"
    then: Literal["end", "fail", "refuse", "hang"] = "end"
    """What the driver does after its chunks."""
    close_after: int | None = None
    audit_fails: bool = False
    firewall: Literal["usual", "crash", "stricter"] = "usual"
    streams: bool = True
    """Whether there is a driver that does; if not, the kernel makes one frame of an answer."""


@dataclass(frozen=True)
class Expand:
    """Expand the newest handle."""

    by_owner: bool = True
    gone: bool = False
    audit_fails: bool = False


@dataclass(frozen=True)
class Spend:
    """Have the budget be that full."""

    percent: int


@dataclass(frozen=True)
class Reset:
    """Reset the kernel's counters and ours."""


Operation = Grant | Invoke | Stream | Expand | Spend | Reset


@dataclass
class Seen:
    """What the app can tell of an operation.

    Attributes:
        error: What it raised.
        attempts: How many drivers began.
        frames: The frames that the app got.
        made: The frames that the firewall made, which a failure keeps from the app.
        foreseen: The response mode that the kernel was to choose before a driver began.
        audited: Whether every audit record that the kernel tried to write was written.
        reached: Whether the kernel came as far as its drivers.
        closed: Whether its coroutine was closed before it came to an end.
    """

    operation: Operation
    error: BaseException | None = None
    attempts: int = 0
    frames: list[Frame] = field(default_factory=list)
    made: list[Frame] = field(default_factory=list)
    foreseen: Mode = "summary"
    audited: bool = True
    reached: bool = False
    closed: bool = False


class _Policy:
    def __init__(self) -> None:
        self.decision: Decision = "usual"
        self.code = "not_on_sundays"

    def evaluate(self, request: Any, capability: Any, principal: Any, *, justification: str) -> Any:
        if self.decision == "own code":
            raise PolicyDenied("no", reason_code=self.code)
        if self.decision == "no code":
            raise PolicyDenied("no")
        if self.decision == "foreign":
            raise OwnRefusalError
        if self.decision == "crash":
            raise ValueError("a defect")
        decided = DefaultPolicyEngine().evaluate(
            request, capability, principal, justification=justification
        )
        if self.decision == "not enforced":
            return dataclasses.replace(decided, allowed=False)
        return decided


class _Tokens(HMACTokenProvider):
    refusing = False

    def issue(self, *args: Any, **kwargs: Any) -> CapabilityToken:
        if self.refusing:
            raise PolicyDenied("too many tokens", reason_code="too_many_tokens")
        return super().issue(*args, **kwargs)


class _Traces(TraceStore):
    failing = False
    failed = 0

    def record(self, trace: Any) -> None:
        if self.failing:
            self.failed += 1
            raise OSError("disk full")
        super().record(trace)


class _Firewall(Firewall):
    doing = "usual"

    def __init__(self) -> None:
        super().__init__(budgets=Budgets(max_chars=300))
        self.made: list[Frame] = []

    def transform(self, *args: Any, **kwargs: Any) -> Frame:
        if self.doing == "crash":
            raise ValueError("a defect")
        if self.doing == "refuse":
            raise PolicyDenied("not this one", reason_code="not_this_one")
        if self.doing == "stricter":
            kwargs["response_mode"] = "handle_only"
        frame = super().transform(*args, **kwargs)
        self.made.append(frame)
        return frame


class _Driver:
    def __init__(self, driver_id: str, world: World) -> None:
        self.driver_id = driver_id
        self._world = world

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        doing = self._world.script.pop(0)
        self._world.seen.attempts += 1
        if doing == "fail":
            raise DriverError("no answer")
        if doing == "crash":
            raise ValueError("a defect")
        if doing == "hang":
            self._world.hanging.set()
            await asyncio.Event().wait()
        return RawResult(capability_id=ctx.capability_id, data=self._world.data)


class _Streamer(_Driver):
    async def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
        operation = self._world.seen.operation
        assert isinstance(operation, Stream)
        self._world.seen.attempts += 1
        for number in range(operation.chunks):
            yield {**self._world.data, "number": number}
        if operation.then == "fail":
            raise DriverError("the line went dead")
        if operation.then == "refuse":
            raise OwnRefusalError
        if operation.then == "hang":
            self._world.hanging.set()
            await asyncio.Event().wait()


class World:
    """One kernel and the app that uses it."""

    def __init__(self) -> None:
        self.policy = _Policy()
        self.tokens = _Tokens(secret="test-signing-key")
        self.traces = _Traces()
        self.firewall = _Firewall()
        self.budget = BudgetManager(1_000_000, default_request=1)
        self.router = StaticRouter(fallback=[])
        self.kernel = Kernel(
            registry(),
            policy=self.policy,
            token_provider=self.tokens,
            router=self.router,
            firewall=self.firewall,
            trace_store=self.traces,
            budget_manager=self.budget,
        )
        for number in range(3):
            self.kernel.register_driver(_Driver(f"driver-{number}", self))
        self.kernel.register_driver(_Streamer("streamer", self))
        self.handle: Handle | None = None
        self.script: list[Attempt] = []
        self.data: dict[str, Any] = {}
        self.seen = Seen(Reset())
        self.hanging = asyncio.Event()

    async def do(self, operation: Operation) -> Seen:
        """Do one thing, and wait until nothing of it is running."""
        self.seen = seen = Seen(operation)
        self.hanging = asyncio.Event()
        self.firewall.made = seen.made
        self.traces.failing = getattr(operation, "audit_fails", False)
        failed = self.traces.failed
        try:
            if isinstance(operation, Grant):
                self._grant(operation)
            elif isinstance(operation, Invoke):
                await self._invoke(operation)
            elif isinstance(operation, Stream):
                await self._stream(operation)
            elif isinstance(operation, Expand):
                self._expand(operation)
            elif isinstance(operation, Spend):
                self.budget._state.used = self.budget.total_budget * operation.percent // 100
            else:
                self.kernel.reset_stats()
        except (Exception, asyncio.CancelledError) as error:
            seen.error = error
        # The kernel leaves it to the event loop to close what is inside of a stream.
        for _ in range(10):
            await asyncio.sleep(0)
        self.traces.failing = False
        seen.audited = self.traces.failed == failed
        return seen

    def _grant(self, operation: Grant) -> None:
        self.policy.decision = operation.decision
        self.tokens.refusing = operation.issuing_refused
        try:
            self.kernel.grant_capability(
                CapabilityRequest(WRITE if operation.writes else READ, goal="see"),
                Principal("alice", roles=["writer"] if operation.writer else ["reader"]),
                justification=operation.justification,
            )
        finally:
            self.policy.decision, self.tokens.refusing = "usual", False

    def _token(self, kind: Token) -> CapabilityToken:
        capability = "none.such" if kind == "unknown" else READ
        principal = "bob" if kind == "foreign" else "alice"
        constraints = {"invoke_timeout_s": -1} if kind == "bad deadline" else {}
        ttl = -1 if kind == "expired" else 60
        token = self.tokens.issue(capability, principal, constraints=constraints, ttl_seconds=ttl)
        if kind == "revoked":
            self.tokens.revoke(token.token_id)
        return token

    def _prepare(self, operation: Invoke | Stream) -> dict[str, Any]:
        self.data = DATA[operation.data]
        self.firewall.doing = operation.firewall
        mode: Mode = (
            "summary" if operation.mode == "raw" and not operation.admin else operation.mode
        )
        self.seen.foreseen = self.budget.suggested_mode(mode)
        roles = ["reader", "admin"] if operation.admin else ["reader"]
        self.seen.reached = operation.token == "good"
        return {
            "principal": Principal("alice", roles=roles),
            "args": {},
            "response_mode": operation.mode,
        }

    async def _invoke(self, operation: Invoke) -> None:
        self.script = list(operation.attempts)
        drivers = [f"driver-{number}" for number in range(len(operation.attempts))]
        self.router._fallback = drivers or ["nobody"]
        options = self._prepare(operation)
        if not self.budget.remaining:
            self.seen.reached = False
        token = self._token(operation.token)
        if operation.dry_run:
            await self.kernel.invoke(token, **options, dry_run=True)
            return
        handles: Any = self.kernel._handle_store
        if operation.storing_fails:
            handles.store = _fail
        try:
            frame = await self._awaited(self.kernel.invoke(token, **options), operation)
        finally:
            vars(handles).pop("store", None)
        if frame is not None:
            self.seen.frames.append(frame)
            self.handle = frame.handle or self.handle

    async def _awaited(self, invoking: Any, operation: Invoke) -> Frame | None:
        if "hang" not in operation.attempts:
            return cast("Frame", await invoking)
        if operation.stopped == "closed":
            try:
                invoking.send(None)  # up to where it hangs, since nothing else here ever waits
            except StopIteration as done:
                return cast("Frame", done.value)
            invoking.close()
            self.seen.closed = True
            return None
        task: asyncio.Task[Frame] = asyncio.ensure_future(invoking)
        await self._until_it_hangs(task)
        task.cancel()
        return await task

    async def _until_it_hangs(self, task: asyncio.Task[Any]) -> None:
        hanging = asyncio.ensure_future(self.hanging.wait())
        await asyncio.wait([task, hanging], return_when=asyncio.FIRST_COMPLETED)
        hanging.cancel()

    async def _stream(self, operation: Stream) -> None:
        self.script = ["answer"]
        self.router._fallback = ["streamer" if operation.streams else "driver-0"]
        options = self._prepare(operation)
        stream: Any = self.kernel.invoke_stream(self._token(operation.token), **options)
        task = asyncio.ensure_future(self._consume(stream, operation.close_after))
        if operation.then == "hang":
            await self._until_it_hangs(task)
            task.cancel()
        await task

    async def _consume(self, stream: Any, close_after: int | None) -> None:
        if close_after == 0:
            await stream.aclose()
            return
        async for frame in stream:
            self.seen.frames.append(frame)
            if len(self.seen.frames) == close_after:
                await stream.aclose()
                return

    def _expand(self, operation: Expand) -> None:
        if self.handle is None:
            return
        handle = self.handle
        if operation.gone:
            handle = dataclasses.replace(handle, handle_id="gone")
        who = Principal("alice" if operation.by_owner else "mallory", roles=["reader"])
        self.kernel.expand(handle, query={}, principal=who)
        self.seen.reached = True


def _fail(*args: Any, **kwargs: Any) -> Any:
    raise OSError("no room")


def patient() -> DefaultPolicyEngine:
    """The kernel's usual policy, without its limit of so many calls in a minute."""
    return DefaultPolicyEngine(rate_limits=dict.fromkeys(SafetyClass, (10**9, 1.0)))
