# SPDX-License-Identifier: Apache-2.0
"""What an app does with its kernel, scene by scene, and what it saw of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from tests.matrix.recording import Seen, forget
from tests.matrix.world import (
    AGENT,
    FEATURES,
    OTHER,
    Kernel,
    SlottedPolicy,
    lib,
    make_kernel,
    models,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator


def ask(kernel: Any, capability_id: str, principal: Any = AGENT) -> Any:
    request = models.CapabilityRequest(capability_id, goal="test")
    return kernel.grant_capability(request, principal, justification="for the matrix of releases")


def granted(kernel: Any, capability_id: str) -> Any:
    """A token that was granted before the scene begins."""
    token = ask(kernel, capability_id).token
    forget()
    return token


async def raised(call: Awaitable[Any]) -> str:
    try:
        await call
    except (Exception, asyncio.CancelledError) as error:
        return type(error).__name__
    return "nothing"


def framed(frame: Any, token: Any) -> Seen:
    return {
        "token": token.token_id,
        "action": frame.action_id,
        "handle": frame.handle.handle_id if frame.handle else None,
        "mode": frame.response_mode,
        "facts": len(frame.facts),
        "rows": len(frame.table_preview),
        "warnings": len([line for line in frame.warnings if "raw" not in line]),
    }


# The scenes -----------------------------------------------------------------------------------

Scenes = dict[str, tuple[str | None, Any]]

SCENES: Scenes = {}


def scene(needs: str | None = None, *, among: Scenes = SCENES) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        among[function.__name__] = (needs, function)
        return function

    return register


# Made when the module is imported, which is before anything is instrumented.
early_kernel = make_kernel()


@scene()
async def grant_allowed() -> Seen:
    return {"token": ask(make_kernel(), "items.list").token.token_id}


@scene()
async def grant_denied() -> Seen:
    try:
        ask(make_kernel(), "items.write")
    except lib.PolicyDenied as error:
        return {"raised": type(error).__name__}
    return {}


@scene()
async def grant_of_unknown_capability() -> Seen:
    try:
        ask(make_kernel(), "no.such")
    except lib.CapabilityNotFound as error:
        return {"raised": type(error).__name__}
    return {}


@scene()
async def get_token() -> Seen:
    request = models.CapabilityRequest("items.list", goal="test")
    token = make_kernel().get_token(request, AGENT, justification="")
    return {"token": token.token_id}


@scene()
async def grant_by_slotted_policy() -> Seen:
    return {"token": ask(make_kernel(policy=SlottedPolicy()), "items.write").token.token_id}


@scene()
async def invoke_success() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    return framed(
        await kernel.invoke(token, principal=AGENT, args={}, response_mode="table"), token
    )


@scene()
async def invoke_on_early_kernel() -> Seen:
    token = granted(early_kernel, "items.list")
    return framed(await early_kernel.invoke(token, principal=AGENT, args={}), token)


@scene()
async def invoke_slotted_driver() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "slotted.run")
    return framed(await kernel.invoke(token, principal=AGENT, args={}), token)


@scene()
async def invoke_fallback() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "mail.send")
    return framed(await kernel.invoke(token, principal=AGENT, args={}), token)


@scene()
async def invoke_all_drivers_fail() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "doomed.run")
    call = kernel.invoke(token, principal=AGENT, args={})
    return {"raised": await raised(call), "token": token.token_id}


@scene()
async def invoke_redacted() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "people.list")
    return framed(
        await kernel.invoke(token, principal=AGENT, args={}, response_mode="table"), token
    )


@scene()
async def invoke_raw_by_non_admin() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    return framed(await kernel.invoke(token, principal=AGENT, args={}, response_mode="raw"), token)


@scene()
async def invoke_revoked_token() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    kernel._token_provider.revoke(token.token_id)
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}))}


@scene()
async def invoke_expired_token() -> Seen:
    kernel = make_kernel()
    token = kernel._token_provider.issue("items.list", AGENT.principal_id, ttl_seconds=-1)
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}))}


@scene()
async def invoke_forged_token() -> Seen:
    kernel = make_kernel()
    token = dataclasses.replace(granted(kernel, "items.list"), signature="0" * 64)
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}))}


@scene()
async def invoke_token_of_another_principal() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    return {"raised": await raised(kernel.invoke(token, principal=OTHER, args={}))}


@scene()
async def invoke_unknown_capability() -> Seen:
    kernel = make_kernel()
    token = kernel._token_provider.issue("no.such", AGENT.principal_id)
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}))}


@scene()
async def invoke_cancelled() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "slow.run")
    task = asyncio.ensure_future(kernel.invoke(token, principal=AGENT, args={}))
    await kernel._drivers["slow"].running.wait()
    task.cancel()
    return {"raised": await raised(task)}


@scene("dry_run")
async def dry_run() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    result = await kernel.invoke(token, principal=AGENT, args={}, dry_run=True)
    return {"token": token.token_id, "type": type(result).__name__}


@scene("dry_run")
async def dry_run_refused() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    kernel._token_provider.revoke(token.token_id)
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}, dry_run=True))}


@scene("budget")
async def budget_downgrade() -> Seen:
    budget = lib.BudgetManager(100, default_request=1)
    await budget.record_usage(85)
    kernel = make_kernel(budget_manager=budget)
    token = granted(kernel, "items.list")
    return framed(
        await kernel.invoke(token, principal=AGENT, args={}, response_mode="table"), token
    )


@scene("budget")
async def budget_exhausted() -> Seen:
    budget = lib.BudgetManager(100)
    await budget.record_usage(100)
    kernel = make_kernel(budget_manager=budget)
    token = granted(kernel, "items.list")
    return {"raised": await raised(kernel.invoke(token, principal=AGENT, args={}))}


@scene()
async def expand() -> Seen:
    kernel, handle = await _with_handle()
    frame = kernel.expand(handle, query={"limit": 5}, **_as(AGENT))
    return {"handle": handle.handle_id, "action": frame.action_id}


@scene()
async def expand_gone() -> Seen:
    _, handle = await _with_handle()
    try:
        make_kernel().expand(handle, query={}, **_as(AGENT))
    except lib.HandleNotFound as error:
        return {"raised": type(error).__name__, "handle": handle.handle_id}
    return {}


@scene("handle_constraints")
async def expand_by_another_principal() -> Seen:
    kernel, handle = await _with_handle()
    try:
        kernel.expand(handle, query={}, **_as(OTHER))
    except lib.HandleConstraintViolation as error:
        return {"raised": type(error).__name__, "handle": handle.handle_id}
    return {}


async def _with_handle() -> tuple[Any, Any]:
    kernel = make_kernel()
    token = ask(kernel, "items.list").token
    frame = await kernel.invoke(token, principal=AGENT, args={})
    forget()
    return kernel, frame.handle


def _as(principal: Any) -> dict[str, Any]:
    return {"principal": principal} if FEATURES["expand_principal"] else {}


@scene("streams")
async def stream_exhausted() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "stream.run")
    frames, current = [], []
    async for frame in kernel.invoke_stream(token, principal=AGENT, args={}):
        frames.append(frame)
        current.append(trace.get_current_span().get_span_context().is_valid)
    return {
        "action": frames[0].action_id,
        "frames": len(frames),
        "facts": sum(len(frame.facts) for frame in frames),
        "span current between chunks": any(current),
    }


@scene("streams")
async def stream_closed_early() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "stream.run")
    stream = kernel.invoke_stream(token, principal=AGENT, args={})
    frame = await anext(stream)
    await stream.aclose()
    await asyncio.sleep(0.01)
    return {"action": frame.action_id}


@scene("streams")
async def stream_failed() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "stream.fail")
    stream = kernel.invoke_stream(token, principal=AGENT, args={})
    frame = await anext(stream)
    return {"action": frame.action_id, "raised": await raised(exhaust(stream))}


@scene("streams")
async def stream_refused() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "stream.run")
    kernel._token_provider.revoke(token.token_id)
    return {"raised": await raised(exhaust(kernel.invoke_stream(token, principal=AGENT, args={})))}


@scene("streams")
async def stream_of_plain_driver() -> Seen:
    kernel = make_kernel()
    token = granted(kernel, "items.list")
    frames = await exhaust(kernel.invoke_stream(token, principal=AGENT, args={}))
    return {**framed(frames[0], token), "frames": len(frames)}


async def exhaust(stream: AsyncIterator[Any]) -> list[Any]:
    return [frame async for frame in stream]


@scene("federation")
async def federation_import() -> Seen:
    manifest = make_kernel(kernel_id="far").advertise(
        endpoint="https://far.example", trust_level="verified"
    )
    near = Kernel(lib.CapabilityRegistry(), kernel_id="near")
    imported = near.import_remote(
        manifest, driver=lib.InMemoryDriver("far"), trust_policy="most_restrictive"
    )
    return {"capabilities": len(imported)}


@scene("federation")
async def federation_discover() -> Seen:
    far = make_kernel(kernel_id="far")
    manifest = far.advertise(endpoint="https://far.example", trust_level="verified")
    payload = json.dumps(lib.serve_manifest_payload(manifest)).encode()
    with _served(payload) as url:
        found = await make_kernel(kernel_id="near").discover_peers(peer_urls=[url])
    return {"peers": len(found), "capabilities": len(found[0].capabilities)}


@contextlib.contextmanager
def _served(payload: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
