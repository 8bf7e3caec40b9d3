# SPDX-License-Identifier: Apache-2.0
"""What the application does to a kernel: its calls, and all the ways in which it leaves them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from weaver_kernel import CapabilityRequest, Handle

from tests.simulation.collaborators import redactions_of
from tests.simulation.journal import Entry, Run, failure_of
from tests.simulation.plan import Op

if TYPE_CHECKING:
    from tests.simulation.world import Site, World


class ThrownIn(Exception):  # noqa: N818 - it says where it came from
    """What a consumer throws into a stream."""


class CancelledAt:
    """Awaits something, and cancels the running task at the n-th time that it waits.

    Args:
        awaited: The coroutine.
        turn: Which time.
    """

    def __init__(self, awaited: Coroutine[Any, Any, Any], turn: int) -> None:
        self._awaited = awaited
        self._turn = turn

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaited.__await__()
        waits, send, value = 0, steps.send, None
        argument: Any = None
        while True:
            try:
                value = send(argument)
            except StopIteration as done:
                return done.value
            waits += 1
            if waits == self._turn:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                argument = yield value
                send = steps.send
            except BaseException as error:
                argument = error
                send = steps.throw


class Operations:
    """Performs the operations of a plan.

    Args:
        world: Whose kernels they concern.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._clock = world.clock

    @contextmanager
    def surroundings(self, op: Op) -> Iterator[None]:
        """What is current around an operation: a span of the application's, or none."""
        base = otel_context.Context()
        if "rootless" not in op.chances:
            flags = trace.TraceFlags(0 if "unsampled" in op.chances else 1)
            parent = trace.SpanContext(op.number, op.number, is_remote=True, trace_flags=flags)
            base = trace.set_span_in_context(trace.NonRecordingSpan(parent), base)
        token = otel_context.attach(base)
        try:
            if "suppressed" in op.chances:
                with suppress_instrumentation():
                    yield
            else:
                yield
        finally:
            otel_context.detach(token)

    async def perform(self, run: Run, site: Site) -> None:
        """Perform one, and write down what its caller sees."""
        run.began = self._clock.now
        result: Any = None
        try:
            result = await getattr(self, f"_{run.op.kind}")(run, site)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            run.failure = failure_of(error, run.injected)
            if isinstance(error, asyncio.CancelledError):
                self._take_back_cancellation()
            error.__traceback__ = None
        else:
            run.result = repr(result)
        run.ended = self._clock.now

    @staticmethod
    def _take_back_cancellation() -> None:
        task = asyncio.current_task()
        if sys.version_info >= (3, 11) and task is not None:
            while task.cancelling():
                task.uncancel()

    async def _unless_cancelled(self, run: Run, call: Coroutine[Any, Any, Any]) -> Any:
        if "cancelled" in run.op.chances:
            return await CancelledAt(call, run.op.choices.get("cancel_at", 1))
        return await call

    # Calls ----------------------------------------------------------------------------------

    async def _grant(self, run: Run, site: Site) -> Any:
        from tests.simulation.world import PEOPLE

        choices, who = run.op.choices, PEOPLE[run.op.principal]
        request = CapabilityRequest(
            choices["capability"], "goal", constraints=dict(choices["constraints"])
        )
        run.facts["capability"] = choices["capability"]
        kernel, justification = site.kernel, choices["justification"]
        if choices["get_token"]:
            result = kernel.get_token(request, who, justification=justification)
            site.tokens.append((result, run.op.principal))
        elif choices["positional"]:
            result = kernel.grant_capability(request, who, justification=justification)
            site.tokens.append((result.token, run.op.principal))
        else:
            result = kernel.grant_capability(
                principal=who, request=request, justification=justification
            )
            site.tokens.append((result.token, run.op.principal))
        return result

    async def _invoke(self, run: Run, site: Site) -> Any:
        arguments = self._arguments(run, site)
        if run.op.number % 2:
            call = site.kernel.invoke(arguments.pop("token"), **arguments)
        else:
            call = site.kernel.invoke(**arguments)
        self._world.running += 1
        try:
            frame = await self._unless_cancelled(run, call)
        finally:
            self._world.running -= 1
        run.facts["frame"] = (frame.response_mode, redactions_of(frame))
        self._keep_handle(frame, run, site)
        return frame

    async def _dry_run(self, run: Run, site: Site) -> Any:
        return await site.kernel.invoke(**self._arguments(run, site), dry_run=True)

    async def _unstarted(self, run: Run, site: Site) -> Any:
        arguments = self._arguments(run, site)
        if run.op.choices["stream"]:
            await site.kernel.invoke_stream(**arguments).aclose()
        else:
            site.kernel.invoke(**arguments).close()

    async def _wrong(self, run: Run, site: Site) -> Any:
        return getattr(site.kernel, run.op.choices["method"])(1, unknown=2)

    async def _expand(self, run: Run, site: Site) -> Any:
        from tests.simulation.world import PEOPLE

        choices = run.op.choices
        if choices["handle"] == "known" and site.handles:
            latest = len(site.handles) - 1 - choices["pick"] % 4
            place = max(0, latest) if choices["recent"] else choices["pick"] % len(site.handles)
            handle, owner = site.handles[place]
        else:
            now = self._clock.utc()
            handle, owner = Handle("made-up", "cap.00", now, now, 0), run.op.principal
        principal: Any = {"owner": PEOPLE[owner], "another": PEOPLE[(owner + 1) % len(PEOPLE)]}.get(
            choices["who"]
        )
        run.facts["capability"] = handle.capability_id
        query = {**choices["query"], "op": run.op.number}
        return site.kernel.expand(handle, query=query, principal=principal)

    # Streams --------------------------------------------------------------------------------

    async def _stream(self, run: Run, site: Site) -> Any:
        stream = site.kernel.invoke_stream(**self._arguments(run, site))
        holder = [stream]
        del stream
        return await self._unless_cancelled(run, self._consume(run, holder, site))

    async def _consume(self, run: Run, holder: list[Any], site: Site) -> Any:
        choices, taken = run.op.choices, 0
        frames: list[Any] = []
        before = dict(copy_context().items())
        try:
            while choices["end"] == "drain" or taken < choices["after"]:
                frame = await self._next(run, holder[0])
                if frame is None:
                    return frames
                frames.append(frame)
                taken += 1
                self._keep_handle(frame, run, site)
                if dict(copy_context().items()) != before:
                    run.leaks.append("between two frames")
                if choices["rest"] == "forever":
                    await asyncio.get_running_loop().create_future()
                elif choices["rest"] is not None:
                    await asyncio.sleep(choices["rest"])
            if choices["end"] == "throw":
                await self._throw(run, holder[0])
        finally:
            stream = cast("AsyncGenerator[Any, Any]", holder.pop())
            if choices["end"] == "drop":
                self._note(run, "dropped")
                dropped = run.facts.pop("running", 0)
                self._world.lingering += dropped
                self._world.running -= dropped
            else:
                self._note(run, "closed")
                await stream.aclose()
            self._world.running -= run.facts.pop("running", 0)
            del stream
        return frames

    async def _next(self, run: Run, stream: Any) -> Any:
        self._note(run, "step")
        if run.count("step") == 0:
            self._world.running += 1
            run.facts["running"] = 1
        try:
            frame = await stream.__anext__()
        except StopAsyncIteration:
            self._note(run, "exhausted")
            self._world.running -= run.facts.pop("running")
            return None
        except BaseException as error:
            self._note(run, "broke", error=error)
            self._world.running -= run.facts.pop("running")
            raise
        self._note(run, "frame", frame.response_mode, redactions_of(frame), frame.is_final)
        return frame

    async def _throw(self, run: Run, stream: Any) -> None:
        error = ThrownIn("enough")
        run.injected.append(error)
        self._note(run, "thrown")
        try:
            await stream.athrow(error)
        except BaseException as seen:
            self._note(run, "broke", error=seen)
            self._world.running -= run.facts.pop("running", 0)
            raise

    # Arguments ------------------------------------------------------------------------------

    def _note(self, run: Run, what: str, *said: Any, error: BaseException | None = None) -> None:
        failure = None if error is None else failure_of(error, run.injected)
        run.entries.append(Entry(what, self._clock.now, said, failure))

    def _keep_handle(self, frame: Any, run: Run, site: Site) -> None:
        if frame.handle is not None:
            site.handles.append((frame.handle, run.facts["owner"]))

    def _arguments(self, run: Run, site: Site) -> dict[str, Any]:
        from tests.simulation.world import PEOPLE

        choices = run.op.choices
        token, owner = self._token(run, site)
        if choices["token"] == "another's":
            owner = (owner + 1) % len(PEOPLE)
        run.facts.update(
            capability=token.capability_id, owner=owner, token=choices["token"],
            admin="admin" in PEOPLE[owner].roles,
        )  # fmt: skip
        return {
            "token": token,
            "principal": PEOPLE[owner],
            "args": {"op": run.op.number},
            "response_mode": choices["mode"],
        }

    def _token(self, run: Run, site: Site) -> tuple[Any, int]:
        choices, owner = run.op.choices, run.op.principal
        kind = choices["token"]
        if kind == "granted" and site.tokens:
            # Older ones have mostly expired.
            latest: tuple[Any, int] = site.tokens[-1 - choices["pick"] % min(30, len(site.tokens))]
            return latest
        from tests.simulation.world import PEOPLE

        capability = "made.up" if kind == "unknown capability" else choices["capability"]
        token = site.issue(
            capability,
            PEOPLE[owner].principal_id,
            constraints=choices["constraints"],
            ttl_seconds=-1 if kind == "expired" else 3600,
        )
        if kind == "revoked":
            site.provider.revoke(token.token_id)
        elif kind == "tampered":
            token = replace(token, capability_id=choices["capability"] + ".x")
        return token, owner
