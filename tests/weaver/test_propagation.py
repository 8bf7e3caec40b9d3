# SPDX-License-Identifier: Apache-2.0
"""The trace context in the requests that the kernel's own code makes, MCP and federation included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from types import FunctionType
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from weaver_kernel import DiscoveryError, MCPDriver
from weaver_kernel.models import RawResult

from agent_kernel_otel import (
    instrument_kernel,
    semconv,
    set_span_level,
    uninstrument_kernel,
)
from agent_kernel_otel.faults import faults
from agent_kernel_otel.weaver import propagation
from tests.support.instrumented import AsyncDriver, instrumented
from tests.support.kernels import READ, make_kernel
from tests.support.peer import Peer
from tests.support.propagating import (
    OwnPropagator,
    http_driver,
    invoke,
    own_propagator,
    theirs,
    traceparent,
)


@pytest.fixture(autouse=True)
def _each_warning_counts() -> Iterator[None]:
    propagation.warn_without_effect.cache_clear()
    yield
    set_span_level(None)


# The MCP driver, with a session of the shape of mcp.ClientSession; the real one is in tests.matrix


class Session:
    """Notes what it is asked to call."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: Any = None,
        progress_callback: Any = None,
        *,
        meta: dict[str, Any] | None = None,
    ) -> Any:
        self.calls.append({"name": name, "arguments": arguments, "meta": meta})
        return None


class OlderSession(Session):
    """Of a release of ``mcp`` that knows no ``meta`` here."""

    async def call_tool(  # type: ignore[override]
        self, name: str, arguments: dict[str, Any] | None = None, read_timeout_seconds: Any = None
    ) -> Any:
        self.calls.append({"name": name, "arguments": arguments, "meta": None})
        return None


def mcp_driver(session: Any) -> Any:
    @asynccontextmanager
    async def factory() -> AsyncIterator[Any]:
        yield session

    return MCPDriver(
        driver_id="mcp", session_factory=factory, server_name="test", transport="stdio"
    )


async def test_the_meta_of_a_tool_call_has_the_driver_span() -> None:
    session = Session()
    with instrumented(propagate_context="mcp") as capture:
        driver = mcp_driver(session)
        before = dict(vars(driver))
        await invoke(driver)
        driver_span = capture.root().only(semconv.DRIVER)
        assert session.calls == [
            {"name": READ, "arguments": {}, "meta": {"traceparent": traceparent(driver_span)}}
        ]
    assert dict(vars(driver)) == before


@pytest.mark.parametrize("paths", ["", "http", "federation"])
async def test_there_is_no_meta_unless_mcp_is_named(paths: str) -> None:
    session = Session()
    with instrumented(propagate_context=paths):
        await invoke(mcp_driver(session))
    assert session.calls[0]["meta"] is None


async def test_a_session_that_takes_no_meta_is_called_as_before_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = OlderSession()
    with instrumented(propagate_context="mcp"):
        for _ in range(3):
            await invoke(mcp_driver(session))
    assert len(session.calls) == 3
    warnings = [record.getMessage() for record in caplog.records if "mcp" in record.getMessage()]
    assert warnings == [
        (
            "propagate_context=mcp: no trace context is written, because "
            "call_tool() of the MCP session takes no meta"
        )
    ]


# Federation -----------------------------------------------------------------------------------


def manifest() -> dict[str, Any]:
    served: dict[str, Any] = make_kernel().advertise(endpoint="http://peer.invalid").to_dict()
    return served


async def test_each_request_of_a_discovery_has_its_span(peer: Peer) -> None:
    peer.answers = {"/registry": [f"{peer.url}/a", f"{peer.url}/b"]}
    peer.answers |= {"/a": manifest(), "/b": manifest()}
    with instrumented(propagate_context="federation") as capture:
        found = await make_kernel().discover_peers(registry_url=f"{peer.url}/registry")
        assert len(found) == 2
        span = traceparent(capture.root(semconv.DISCOVER))
    assert peer.values("traceparent") == [[span]] * 3


@pytest.mark.parametrize("paths", ["", "http,mcp"])
async def test_a_discovery_is_as_before_unless_federation_is_named(peer: Peer, paths: str) -> None:
    from weaver_kernel import kernel as module

    original = vars(module)["perform_discover_peers"]
    peer.answers["/"] = manifest()
    with instrumented(propagate_context=paths):
        assert vars(module)["perform_discover_peers"] is original
        await make_kernel().discover_peers(peer_urls=[peer.url])
    assert peer.value("traceparent") is None


async def test_only_the_kernel_that_wants_it_sends_it_and_the_function_comes_back(
    peer: Peer,
) -> None:
    from weaver_kernel import kernel as module

    original = vars(module)["perform_discover_peers"]
    peer.answers["/"] = manifest()
    wanting = make_kernel()
    with instrumented() as capture:
        instrument_kernel(wanting, **capture.providers, propagate_context="federation")
        assert vars(module)["perform_discover_peers"] is not original
        for kernel in (wanting, make_kernel()):
            await kernel.discover_peers(peer_urls=[peer.url])
        uninstrument_kernel(wanting)
    assert [len(values) for values in peer.values("traceparent")] == [1, 0]
    assert vars(module)["perform_discover_peers"] is original


@pytest.mark.parametrize(
    ("current", "expected"), [("unsampled", "-00"), ("off", "-01"), ("suppressed", None)]
)
async def test_a_discovery_without_a_span_of_ours(
    peer: Peer, current: str, expected: str | None
) -> None:
    peer.answers["/"] = manifest()
    sampler = ALWAYS_OFF if current == "unsampled" else None
    level = "off" if current == "off" else "info"
    quiet = suppress_instrumentation() if current == "suppressed" else nullcontext()
    settings = {"propagate_context": "federation", "span_level": level}
    with instrumented(sampler, **settings), theirs() as outer, quiet:
        await make_kernel().discover_peers(peer_urls=[peer.url])
    sent = peer.value("traceparent")
    if expected is None:
        assert sent is None
    else:
        assert str(sent)[:36] == outer[:36]
        assert str(sent).endswith(expected)


@pytest.mark.parametrize("proxy", ["", "not-a-proxy://nowhere"])
async def test_a_discovery_that_fails_raises_what_it_raised(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def errors() -> list[str]:
        texts = []
        for urls in ([], ["http://127.0.0.1:9/closed"]):
            with pytest.raises((DiscoveryError, ValueError)) as raised:
                await make_kernel().discover_peers(peer_urls=urls)
            texts.append(f"{type(raised.value).__name__}: {raised.value}")
        return texts

    if proxy:
        monkeypatch.setenv("ALL_PROXY", proxy)
    without = await errors()
    with instrumented(propagate_context="federation"):
        assert await errors() == without


# What goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["http", "federation"])
async def test_a_propagator_that_raises_costs_the_context_and_not_the_request(
    peer: Peer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnPropagator, "fails", True)
    faults.reraise = False
    before = faults.count
    with own_propagator(), instrumented(propagate_context=path):
        if path == "http":
            await invoke(http_driver(peer, headers={"x-app": "1"}))
            assert peer.value("x-app") == "1"
        else:
            peer.answers["/"] = manifest()
            assert await make_kernel().discover_peers(peer_urls=[peer.url])
    assert faults.count == before + 1
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    ("path", "module", "name"),
    [
        ("http", "weaver_kernel", "HTTPDriver"),
        ("mcp", "weaver_kernel", "MCPDriver"),
        ("federation", "weaver_kernel.kernel", "perform_discover_peers"),
    ],
)
async def test_a_release_without_such_requests_is_told_of_once(
    path: str,
    module: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delattr(f"{module}.{name}")

    async def nothing(_: Any) -> list[Any]:
        return []

    with instrumented(propagate_context=path):
        for _ in range(3):
            await invoke(AsyncDriver("any", nothing))
    warnings = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert warnings == [
        (
            f"propagate_context={path}: no trace context is written, because "
            f"this release of the kernel has no {name}"
        )
    ]


@pytest.mark.parametrize("path", ["http", "mcp"])
async def test_a_driver_that_makes_its_request_in_an_unknown_way_is_told_of_once(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, peer: Peer
) -> None:
    driver = http_driver(peer) if path == "http" else mcp_driver(Session())
    kind = type(driver)

    async def otherwise(self: Any, ctx: Any) -> RawResult:
        return RawResult(capability_id=ctx.capability_id, data=[])

    own = FunctionType(otherwise.__code__, {**globals(), "__name__": kind.__module__}, "execute")
    monkeypatch.setattr(kind, "execute", own)
    with instrumented(propagate_context=path) as capture:
        for _ in range(3):
            await invoke(driver)
        assert all(node[semconv.STATUS] == "success" for node in capture.roots())
    warnings = [record.getMessage() for record in caplog.records if path in record.getMessage()]
    assert len(warnings) == 1
    assert "this release makes no" in warnings[0]
