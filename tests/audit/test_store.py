# SPDX-License-Identifier: Apache-2.0
"""A trace store that tells of its records: alone, and beside live instrumentation."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import get_current_span
from weaver_kernel import AgentKernelError, Kernel, TraceStore
from weaver_kernel.models import ActionTrace
from weaver_kernel.stores import JsonlTraceStore, SQLiteTraceStore, TraceStoreProtocol
from weaver_kernel.trace_query import TraceQuery

from agent_kernel_otel import (
    InstrumentationConfig,
    OTelTraceStore,
    action_id,
    replayed_context,
    trace_context,
)
from agent_kernel_otel.faults import faults
from tests.audit.scenes import SCENES, is_replayed, kernel_with, spans_of, succeed
from tests.audit.traces import trace
from tests.support.capture import Capture
from tests.support.instrumented import AsyncDriver
from tests.support.kernels import ALICE, make_kernel, token_of

SECRET = "a-signing-key-for-tests"


class Slotted:
    """A third-party store, to which no attribute can be added."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: list[ActionTrace] = []

    def record(self, trace: ActionTrace) -> None:
        self.kept.append(trace)

    def get(self, action_id: str) -> ActionTrace:
        for each in self.kept:
            if each.action_id == action_id:
                return each
        raise AgentKernelError("no such action")

    def list_all(self) -> list[ActionTrace]:
        return list(self.kept)

    def query(self, query: TraceQuery) -> list[ActionTrace]:
        return self.list_all()


class Falsy(Slotted):
    """The kernel takes a store without length for none, and makes one of its own."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.kept)


class Untrue(Slotted):
    __slots__ = ()

    def __bool__(self) -> bool:
        return False


STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda _: TraceStore(),
    "SQLite": lambda folder: SQLiteTraceStore(folder / "audit.db", secret=SECRET),
    "JSONL": lambda folder: JsonlTraceStore(folder / "audit.jsonl", secret=SECRET),
    "third-party": lambda _: Slotted(),
    "empty and therefore falsy": lambda _: Falsy(),
    "untrue": lambda _: Untrue(),
}


@pytest.fixture(params=STORES)
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    store = STORES[request.param](tmp_path)
    yield store
    _close(store)


def _close(store: Any) -> None:
    if isinstance(store, SQLiteTraceStore):
        store.close()


def test_of_a_span_with_several_actions_the_last_one_is_found() -> None:
    capture = Capture()
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
    records = [trace() for _ in range(5)]
    with capture.tracer_provider.get_tracer("app").start_as_current_span("request") as request:
        for record in records:
            store.record(record)
    around = request.get_span_context()
    assert [trace_context(record.action_id) for record in records] == [around] * 5
    assert action_id(around) == records[-1].action_id


@pytest.mark.parametrize("scene", SCENES)
async def test_each_record_of_any_store_becomes_one_span(inner: Any, scene: str) -> None:
    capture = Capture()
    store = OTelTraceStore(inner, tracer_provider=capture.tracer_provider)
    await SCENES[scene](store)
    records = inner.list_all()
    assert records
    for record in records:
        (span,) = spans_of(record.action_id, capture.spans())
        assert span.context is not None
        assert span.context.span_id == replayed_context(record.action_id).span_id
        assert is_replayed(span)
    assert len(capture.spans()) == len(records)
    capture.check()


async def test_a_kernel_uses_it_and_what_it_keeps_is_in_the_inner_store(inner: Any) -> None:
    store = OTelTraceStore(inner)
    kernel = kernel_with(store)
    assert vars(kernel)["_trace_store"] is store
    frame = await kernel.invoke(token_of(kernel), principal=ALICE, args={})
    assert kernel.explain(frame.action_id) == inner.get(frame.action_id)
    assert kernel.list_traces() == inner.list_all()
    query = TraceQuery(principal_id="alice")
    assert kernel.query_traces(query) == inner.query(query)


def test_it_is_what_the_kernel_asks_for(inner: Any) -> None:
    assert isinstance(OTelTraceStore(inner), TraceStoreProtocol)
    assert bool(OTelTraceStore(inner))


def test_all_else_that_a_store_has_is_had(tmp_path: Path) -> None:
    small = TraceStore(max_entries=1)
    store = OTelTraceStore(small)
    for _ in range(3):
        store.record(trace())
    assert store.evicted_count == small.evicted_count == 2
    database = SQLiteTraceStore(tmp_path / "audit.db", secret=SECRET)
    store = OTelTraceStore(database)
    store.record(trace())
    assert store.verify_chain().ok
    assert len(store.list_records()) == 1
    assert store.prune(datetime(2030, 1, 1, tzinfo=timezone.utc)) == 1
    store.close()
    with pytest.raises(AttributeError, match="evicted_count"):
        OTelTraceStore(database).evicted_count  # noqa: B018 - asked for by name
    assert not hasattr(store, "__len__")


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
@pytest.mark.parametrize("live", [True, False], ids=["live", "alone"])
async def test_files_are_the_same_bytes_as_without_us(
    kind: str, live: bool, tmp_path: Path
) -> None:
    from agent_kernel_otel import KernelInstrumentor

    make: Any = {"jsonl": JsonlTraceStore, "sqlite": SQLiteTraceStore}[kind]
    capture = Capture()
    ours = make(tmp_path / "ours", secret=SECRET)
    store = OTelTraceStore(ours, tracer_provider=capture.tracer_provider)
    if live:
        KernelInstrumentor().instrument(**capture.providers)
    try:
        for scene in SCENES.values():
            await scene(store)
    finally:
        KernelInstrumentor().uninstrument()
    assert ours.verify_chain().ok
    plain = make(tmp_path / "plain", secret=SECRET)
    for record in ours.list_all():
        plain.record(record)
    assert plain.list_records() == ours.list_records()
    if kind == "jsonl":
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "plain").read_bytes()
    _close(ours)
    _close(plain)


class Refusing(TraceStore):
    def __init__(self) -> None:
        super().__init__()
        self.error = OSError("disk full")

    def record(self, trace: ActionTrace) -> None:
        raise self.error


def test_what_the_inner_store_raises_is_raised_and_no_span_tells_of_a_record() -> None:
    capture = Capture()
    inner = Refusing()
    store = OTelTraceStore(inner, tracer_provider=capture.tracer_provider)
    record = trace()
    with (
        capture.tracer_provider.get_tracer("app").start_as_current_span("app"),
        pytest.raises(OSError, match="disk full") as caught,
    ):
        store.record(record)
    assert caught.value is inner.error
    assert [span.name for span in capture.spans()] == ["app"]
    assert trace_context(record.action_id) is None


def test_what_the_inner_store_returns_is_returned() -> None:
    class Answering(TraceStore):
        def record(self, trace: ActionTrace) -> Any:
            return self

    inner = Answering()
    assert OTelTraceStore(inner).record(trace()) is inner


class Raising(TracerProvider):
    def get_tracer(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize("record", [trace(), trace(event_type="a kind to come"), object(), None])
def test_no_fault_of_ours_reaches_the_app(record: Any) -> None:
    faults.reraise = False
    before = faults.count
    inner = Slotted()
    OTelTraceStore(inner, tracer_provider=Raising(shutdown_on_exit=False)).record(record)
    assert inner.kept == [record]
    assert faults.count == before + 1


def test_a_record_that_nobody_can_read_is_kept_all_the_same() -> None:
    faults.reraise = False
    capture = Capture()
    inner = Slotted()
    store = OTelTraceStore(inner, tracer_provider=capture.tracer_provider)
    unknown: Any = object()
    store.record(unknown)
    store.record(trace())
    assert len(inner.kept) == 2
    assert len(capture.spans()) == 1


def test_without_an_sdk_it_is_a_store_and_no_more() -> None:
    store = OTelTraceStore(TraceStore())
    store.record(trace())
    assert len(store.list_all()) == 1


class Copyable(Slotted):
    """A store that says how it is copied, which is no word on its decorator."""

    __slots__ = ()

    def __deepcopy__(self, memo: Any) -> Copyable:
        return Copyable()

    def __getstate__(self) -> Any:
        raise AssertionError

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Copyable, ()


def test_a_copy_is_a_decorator_too() -> None:
    store = OTelTraceStore(Copyable())
    assert isinstance(copy.copy(store), OTelTraceStore)
    assert copy.copy(store).inner is store.inner
    deep = copy.deepcopy(store)
    assert isinstance(deep, OTelTraceStore)
    assert deep.inner is not store.inner
    assert isinstance(pickle.loads(pickle.dumps(store)), OTelTraceStore)
    bare = object.__new__(OTelTraceStore)
    with pytest.raises(AttributeError, match="inner"):
        bare.anything  # noqa: B018 - asked for by name


async def test_it_links_to_the_callers_span_which_is_found_by_the_action_id() -> None:
    capture = Capture()
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
    with capture.tracer_provider.get_tracer("app").start_as_current_span("request") as request:
        frame = await succeed(store)
    (span,) = spans_of(frame.action_id, capture.spans())
    around = request.get_span_context()
    assert [link.context for link in span.links] == [around]
    assert span.parent is None
    assert trace_context(frame.action_id) == around


async def test_an_unsampled_caller_is_linked_to_by_nothing() -> None:
    capture = Capture(ALWAYS_OFF)
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
    with capture.tracer_provider.get_tracer("app").start_as_current_span("request"):
        frame = await succeed(store)
    (span,) = spans_of(frame.action_id, capture.spans())
    assert not span.links
    assert trace_context(frame.action_id) is None


def test_a_caller_who_wants_no_spans_gets_none() -> None:
    capture = Capture()
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
    with suppress_instrumentation():
        store.record(trace())
    assert capture.spans() == []
    store.record(trace())
    assert len(capture.spans()) == 1


async def test_a_kernel_in_a_driver_of_another_is_linked_to_the_span_around_it() -> None:
    capture = Capture()
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
    tracer = capture.tracer_provider.get_tracer("app")
    within = make_kernel(trace_store=store)
    seen: list[Any] = []

    async def call_another(ctx: Any) -> Any:
        with tracer.start_as_current_span("inside"):
            seen.append(get_current_span().get_span_context())
            frame = await within.invoke(token_of(within), principal=ALICE, args={})
        seen.append(frame.action_id)
        return [{"n": 1}]

    around = kernel_with(store, AsyncDriver("outer", call_another))
    with tracer.start_as_current_span("outside") as outside:
        frame = await around.invoke(token_of(around), principal=ALICE, args={})
    inside, inner_action = seen
    assert trace_context(inner_action) == inside
    assert trace_context(frame.action_id) == outside.get_span_context()
    assert len(store.list_all()) == 2


async def test_two_kernels_can_share_it() -> None:
    capture = Capture()
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider)
    for _ in range(2):
        await succeed(store)
    assert len(capture.spans()) == len(store.list_all()) == 2


def test_its_configuration_is_that_of_its_spans() -> None:
    capture = Capture()
    config = InstrumentationConfig(span_naming="gen_ai", principal_id="off")
    store = OTelTraceStore(TraceStore(), tracer_provider=capture.tracer_provider, config=config)
    store.record(trace())
    (span,) = capture.spans()
    assert span.name == "execute_tool tasks.list"
    assert "agent_kernel.principal_id" not in (span.attributes or {})


def test_a_kernel_without_it_makes_a_store_of_its_own_where_one_is_falsy() -> None:
    plain = Kernel(make_kernel()._registry, trace_store=Falsy())
    assert isinstance(vars(plain)["_trace_store"], TraceStore)  # why it must be truthy
    decorated = Kernel(make_kernel()._registry, trace_store=OTelTraceStore(Falsy()))
    assert isinstance(vars(decorated)["_trace_store"], OTelTraceStore)
