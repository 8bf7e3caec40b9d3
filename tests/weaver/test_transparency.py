# SPDX-License-Identifier: Apache-2.0
"""The application sees what it sees without us: objects, types, results, errors, signatures."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from weaver_kernel import (
    AgentKernelError,
    CapabilityGrant,
    CapabilityManifest,
    CapabilityRequest,
    CapabilityToken,
    DefaultPolicyEngine,
    DriverError,
    FederationError,
    Firewall,
    Frame,
    Handle,
    Kernel,
    Principal,
)
from weaver_kernel.drivers.base import ExecutionContext

from agent_kernel_otel import KernelInstrumentor, semconv
from agent_kernel_otel.faults import faults
from tests.support.capture import Capture
from tests.support.collaborators import FixedRouter, SlottedDriver, SlottedEngine, raw
from tests.support.hostile import HostileObject, odd_ids
from tests.support.instrumented import drain, instrumented, open_stream, turns_until
from tests.support.kernels import (
    ALICE,
    BOB,
    DESTROY,
    READ,
    StreamingDriver,
    grant,
    make_kernel,
    memory_driver,
    token_of,
)

PRIVATE = (
    "_policy", "_token_provider", "_router", "_firewall", "_handle_store", "_trace_store",
    "_drivers", "_budget_manager",
)  # fmt: skip


def private(kernel: Any) -> list[Any]:
    return [getattr(kernel, name) for name in PRIVATE]


class Looking:
    """Looks at the kernel's private attributes wherever the kernel calls it."""

    driver_id = "looking"

    def __init__(self) -> None:
        self.kernel: Any = None
        self.seen: list[list[Any]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.may_go_on = asyncio.Event()

    def look(self) -> None:
        self.seen.append(private(self.kernel))

    async def _later(self) -> None:
        await self.may_go_on.wait()
        self.look()

    async def execute(self, ctx: ExecutionContext) -> Any:
        self.look()
        self.tasks.append(asyncio.ensure_future(self._later()))
        return raw(ctx)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self.look()
        return DefaultPolicyEngine().evaluate(*args, **kwargs)


class LookingFirewall(Firewall):
    def __init__(self, looking: Looking) -> None:
        super().__init__()
        self.looking = looking

    def transform(self, *args: Any, **kwargs: Any) -> Frame:
        self.looking.look()
        return super().transform(*args, **kwargs)


async def test_the_apps_own_code_meets_raw_objects_also_in_a_task_that_outlives_the_call(
    capture: Capture,
) -> None:
    looking = Looking()
    firewall = LookingFirewall(looking)
    kernel = looking.kernel = make_kernel(looking, policy=looking, firewall=firewall)
    real = [vars(kernel)[name] for name in PRIVATE]
    await kernel.invoke(grant(kernel).token, principal=ALICE, args={})
    spans = len(capture.spans())
    looking.may_go_on.set()
    await asyncio.gather(*looking.tasks)
    assert len(looking.seen) == 4
    for seen in [*looking.seen, private(kernel)]:
        assert all(now is then for now, then in zip(seen, real, strict=True))
    assert len(capture.spans()) == spans


async def test_results_are_exactly_the_kernels_types_and_can_be_copied(capture: Capture) -> None:
    kernel = make_kernel()
    granted = grant(kernel)
    frame = await kernel.invoke(granted.token, principal=ALICE, args={})
    handle = frame.handle
    assert handle is not None
    expanded = kernel.expand(handle, query={"limit": 1}, principal=ALICE)
    things = [granted, granted.token, frame, handle, expanded]
    kinds = [CapabilityGrant, CapabilityToken, Frame, Handle, Frame]
    assert [type(thing) for thing in things] == kinds
    for thing in things:
        assert copy.deepcopy(thing) == thing
        assert pickle.loads(pickle.dumps(thing)) == thing


def test_a_kernel_copies_and_pickles_as_before() -> None:
    def attempts() -> list[str]:
        kernel = make_kernel()
        shallow = copy.copy(kernel)
        assert vars(shallow).keys() == vars(kernel).keys()
        assert all(vars(shallow)[name] is vars(kernel)[name] for name in vars(kernel))
        said = []
        for attempt in (copy.deepcopy, pickle.dumps):
            with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as raised:
                attempt(kernel)
            said.append(f"{raised.type.__name__}: {raised.value}")
        return said

    before = attempts()
    with instrumented():
        assert attempts() == before


def test_a_private_attribute_of_the_class_does_not_exist_as_before(capture: Capture) -> None:
    for name in PRIVATE:
        with pytest.raises(AttributeError, match=f"type object 'Kernel' has no attribute '{name}'"):
            getattr(Kernel, name)
        assert not hasattr(Kernel, name)


def test_signatures_and_kinds_of_the_methods_are_as_before() -> None:
    names = ["grant_capability", "invoke", "invoke_stream", "expand", "discover_peers",
             "import_remote"]  # fmt: skip

    def facts() -> list[Any]:
        kernel = make_kernel()
        return [
            fact(method)
            for name in names
            for method in (getattr(Kernel, name), getattr(kernel, name))
            for fact in (
                inspect.signature, inspect.iscoroutinefunction, inspect.isasyncgenfunction,
                inspect.isroutine, inspect.getdoc, lambda m: m.__name__, lambda m: m.__qualname__,
                lambda m: m.__module__, callable, inspect.getsource,
            )
        ]  # fmt: skip

    before = facts()
    with instrumented():
        assert facts() == before
        kernel = make_kernel()
        assert kernel.invoke == kernel.invoke
        assert hash(kernel.invoke) == hash(kernel.invoke)
        assert isinstance(kernel.invoke(token_of(kernel), principal=ALICE, args={}).close(), object)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2), {}), ((1,), {"principal": ALICE}), ((1,), {"unknown": 1}),
     ((), {"token": 1, "principal": ALICE, "args": {}, "response": "raw"})],
)  # fmt: skip
@pytest.mark.parametrize("method", ["invoke", "invoke_stream", "grant_capability", "expand"])
def test_a_wrong_call_fails_at_the_call_with_the_kernels_own_text_and_gives_no_span(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    def text() -> str:
        with pytest.raises(TypeError) as raised:
            getattr(make_kernel(), method)(*args, **kwargs)
        return str(raised.value)

    before = text()
    with instrumented() as captured:
        assert text() == before
        assert captured.spans() == []


async def test_an_exception_is_the_same_object_with_the_same_cause(capture: Capture) -> None:
    class RefusalError(AgentKernelError):
        pass

    cause, error = ValueError("why"), RefusalError("what")

    class Refusing(FixedRouter):
        def route(self, capability_id: str) -> Any:
            raise error from cause

    kernel = make_kernel(router=Refusing())
    with pytest.raises(RefusalError) as raised:
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    assert raised.value is error
    assert error.__cause__ is cause
    assert vars(error) == {}


async def test_an_error_text_that_names_a_collaborator_names_the_users_class() -> None:
    manifest = CapabilityManifest("peer", "1", [], "mcp://nowhere")

    def texts() -> list[str]:
        kernel = make_kernel(policy=SlottedEngine(), router=FixedRouter("memory"))
        with pytest.raises(AgentKernelError) as no_explain:
            kernel.explain_denial(CapabilityRequest(READ, "goal"), ALICE)
        with pytest.raises(FederationError) as no_routes:
            kernel.import_remote(manifest, driver=memory_driver("remote"))
        return [str(no_explain.value), str(no_routes.value)]

    before = texts()
    assert "SlottedEngine" in before[0]
    assert "FixedRouter" in before[1]
    with instrumented(span_level="debug"):
        assert texts() == before


@pytest.mark.parametrize("name", odd_ids())
async def test_odd_ids_are_the_kernels_problem_and_survive_encoding(name: str) -> None:
    async def outcomes() -> list[str]:
        odd = odd_ids()[name]
        kernel = make_kernel(memory_driver())
        token = token_of(kernel)
        principal = Principal(odd, roles=["reader"])
        request = CapabilityRequest(odd, odd)
        handle = Handle(odd, odd, None, None)  # type: ignore[arg-type]
        calls: list[Callable[[], Any]] = [
            lambda: kernel.grant_capability(request, ALICE, justification="j"),
            lambda: kernel.grant_capability(CapabilityRequest(READ, odd), principal,
                                            justification=odd),
            lambda: kernel.grant_capability(odd, odd, justification=odd),
            lambda: kernel.expand(handle, query={}, principal=principal),
            lambda: kernel.expand(odd, query=odd, principal=odd),
        ]  # fmt: skip
        odd_tokens = []
        for field in ("token_id", "capability_id", "principal_id"):
            changed = copy.copy(token)
            setattr(changed, field, odd)
            odd_tokens.append(changed)
        said = [await outcome(call) for call in calls]
        for each in (*odd_tokens, odd):
            said += [
                await outcome(partial(kernel.invoke, each, principal=ALICE, args={})),
                await outcome(partial(kernel.invoke, each, principal=principal, args={})),
            ]
        said += [
            await outcome(lambda: kernel.invoke(token, principal=odd, args={})),
            await outcome(lambda: kernel.invoke(token, principal=ALICE, args=odd)),
            await outcome(
                lambda: kernel.invoke(token, principal=ALICE, args={}, response_mode=odd)
            ),
            await outcome(lambda: drain(kernel.invoke_stream(token, principal=odd, args={}))),
        ]
        return said

    before = await outcomes()
    with instrumented(span_level="debug", capture_content="goals,justifications") as captured:
        # A fault of ours that is swallowed here would hide what the test is about.
        faults.reraise = False
        count = faults.count
        assert await outcomes() == before
        assert faults.count - count <= (8 if "hostile" in name else 0)
        encode_spans(captured.span_exporter.get_finished_spans()).SerializeToString()
        encode_logs(captured.log_exporter.get_finished_logs()).SerializeToString()
        for span in captured.spans():
            texts = [value for value in (span.attributes or {}).values() if isinstance(value, str)]
            assert max(map(len, texts)) <= 512


async def outcome(call: Callable[[], Any]) -> str:
    """How a call ended: the result's or the exception's type, the latter with its text."""
    try:
        result = call()
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:
        try:
            text = str(error)
        except Exception:
            text = "(no text)"
        # Ids and addresses differ from run to run.
        text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+", "…", text)
        return f"{type(error).__qualname__}: {text}"
    return type(result).__qualname__


def test_a_megabyte_for_an_id_is_cut(capture: Capture) -> None:
    everyone = Principal("m" * 1_000_000, roles=["reader"])
    grant(make_kernel(), principal=everyone)
    assert capture.root()[semconv.PRINCIPAL_ID] == "m" * 256


async def test_with_no_sdk_configured_nothing_changes() -> None:
    KernelInstrumentor().instrument()
    try:
        kernel = make_kernel()
        frame = await kernel.invoke(grant(kernel).token, principal=ALICE, args={})
        assert frame.response_mode == "summary"
        with pytest.raises(AgentKernelError):
            grant(kernel, DESTROY)
        assert len(await drain(open_stream(make_kernel(StreamingDriver())))) == 4
    finally:
        KernelInstrumentor().uninstrument()


async def test_a_collaborator_can_be_patched_with_mock(capture: Capture) -> None:
    kernel: Any = make_kernel()
    token = token_of(kernel)
    real = vars(kernel)["_firewall"]
    fake = mock.Mock(wraps=Firewall())
    fake.budgets = real.budgets
    with mock.patch.object(kernel, "_firewall", fake):
        assert kernel._firewall is fake
        await kernel.invoke(token, principal=ALICE, args={})
    assert fake.transform.call_count == 1
    assert kernel._firewall is real
    assert vars(kernel)["_firewall"] is real
    assert capture.root().only(semconv.FIREWALL)


async def test_a_task_cancelled_before_it_starts_leaves_no_coroutine_behind(
    capture: Capture,
) -> None:
    kernel = make_kernel()
    token = token_of(kernel)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        task = asyncio.ensure_future(kernel.invoke(token, principal=ALICE, args={}))
        task.cancel()
        await turns_until(task.done)
        assert task.cancelled()
        del task
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
    assert capture.spans() == []


async def test_a_call_that_is_never_awaited_warns_as_often_as_before(capture: Capture) -> None:
    kernel = make_kernel()

    def forget() -> None:
        kernel.invoke(token_of(kernel), principal=ALICE, args={})  # type: ignore[unused-coroutine]
        gc.collect()

    with pytest.warns(RuntimeWarning, match="never awaited") as warned:
        forget()
    assert len(warned) == 1
    assert capture.spans() == []


async def test_the_engine_is_asked_exactly_as_often_as_before(capture: Capture) -> None:
    engine = SlottedEngine()
    kernel = make_kernel(policy=engine)
    token = grant(kernel).token
    with pytest.raises(AgentKernelError):
        grant(kernel, DESTROY)
    await kernel.invoke(token, principal=ALICE, args={})
    with pytest.raises(AgentKernelError):
        await kernel.invoke(token, principal=BOB, args={})
    assert engine.calls == 2


async def test_what_an_engine_returns_or_raises_is_not_ours_to_trip_over(
    capture: Capture,
) -> None:
    engine = mock.Mock(spec=["evaluate"])
    engine.evaluate.return_value = HostileObject()
    faults.reraise = False
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the object's own
        grant(make_kernel(policy=engine))
    assert type(raised.value).__name__ == "Refusing"
    assert capture.root()[semconv.STATUS] == "error"


async def test_a_mocks_decision_goes_through(capture: Capture) -> None:
    engine = mock.MagicMock()
    engine.evaluate.return_value.constraints = {}
    grant(make_kernel(policy=engine))
    assert capture.root()[semconv.STATUS] == "success"


async def test_a_driver_and_its_errors_keep_their_identity(capture: Capture) -> None:
    class Broken(SlottedDriver):
        async def execute(self, ctx: ExecutionContext) -> Any:
            raise error

    error = DriverError("down")
    driver = Broken("broken")
    kernel = make_kernel(driver)
    with pytest.raises(DriverError, match="Last error: down"):
        await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    assert kernel._drivers["broken"] is driver
    assert error.__cause__ is None
