# SPDX-License-Identifier: Apache-2.0
"""Drivers of several makes that do what the plan says, and write down that they did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from weaver_kernel import InMemoryDriver
from weaver_kernel.drivers.base import ExecutionContext
from weaver_kernel.models import RawResult

from tests.simulation.clock import SimClock
from tests.simulation.faults import exception_of
from tests.simulation.journal import Entry, Run, failure_of
from tests.simulation.plan import ANSWERS, CAPABILITIES, Attempt, Op

RunOf = Callable[[ExecutionContext], Run]


class Behaviour:
    """What all drivers of a world share.

    Args:
        clock: The world's clock.
        run_of: Finds the operation that a driver is asked for.
        on_event: Told of a fork that is due, and of operations that are at work.
        perform: Performs an operation, here and now.
    """

    def __init__(
        self,
        clock: SimClock,
        run_of: RunOf,
        on_event: Callable[[str, Any], None],
        perform: Callable[[Op], Awaitable[None]],
    ) -> None:
        self.clock = clock
        self.run_of = run_of
        self._on_event = on_event
        self._perform = perform

    def begin(self, driver_id: str, ctx: ExecutionContext) -> tuple[Run, Attempt]:
        """Write down that an attempt begins, and look up what it is to do."""
        run = self.run_of(ctx)
        number = run.count("attempt")
        self.note(run, "attempt", driver_id, number)
        if run.op.number % 16 == 0:
            self._on_event("at work", None)
        return run, run.op.attempts[min(number, len(run.op.attempts) - 1)]

    def note(self, run: Run, what: str, *said: Any, error: BaseException | None = None) -> None:
        """Write an entry."""
        failure = None if error is None else failure_of(error, run.injected)
        run.entries.append(Entry(what, self.clock.now, said, failure))

    def fail(self, run: Run, attempt: Attempt) -> None:
        """Raise what the plan says, if anything."""
        if attempt.fault is not None and not attempt.fault.startswith("driver.hangs"):
            error = exception_of(attempt.fault)
            run.injected.append(error)
            raise error

    async def spend(self, run: Run, attempt: Attempt) -> None:
        """Take the time that the plan says, which can be for ever."""
        for pause in attempt.pauses:
            await asyncio.sleep(pause)
            if "forks" in run.op.chances and run.count("fork") == 0:
                self._on_event("fork", None)
            if "wall_clock_jumps" in run.op.chances and run.count("jump") == 0:
                self.clock.jump(run.op.choices["jump"] * 10**9)
        if run.op.nested is not None and run.count("nested") == 0:
            await self._perform(run.op.nested)
        if attempt.fault in {"driver.hangs", "driver.hangs_and_complains"}:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                if attempt.fault == "driver.hangs":
                    raise
                error = ConnectionError("cannot hang up")
                run.injected.append(error)
                raise error from None

    async def execute(self, driver_id: str, ctx: ExecutionContext) -> RawResult:
        """One attempt."""
        run, attempt = self.begin(driver_id, ctx)
        number = run.asked["attempt"] - 1
        try:
            await self.spend(run, attempt)
            self.fail(run, attempt)
        except BaseException as error:
            self.note(run, "attempt over", driver_id, number, error=error)
            raise
        self.note(run, "attempt over", driver_id, number)
        return RawResult(capability_id=ctx.capability_id, data=ANSWERS[attempt.answer])

    def stream(self, driver_id: str, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
        """One attempt, in chunks, which begins with the call."""
        run, attempt = self.begin(driver_id, ctx)
        return self._chunks(driver_id, run, attempt, run.asked["attempt"] - 1)

    async def _chunks(
        self, driver_id: str, run: Run, attempt: Attempt, number: int
    ) -> AsyncIterator[dict[str, Any]]:
        try:
            for chunk in range(attempt.chunks):
                if chunk == attempt.chunks - 1:
                    await self.spend(run, attempt)
                    self.fail(run, attempt)
                data: dict[str, Any] = {"n": chunk, "text": "mail a@example.com now"[: 5 * chunk]}
                if chunk == 0 and attempt.answer % 3 == 0:
                    data["rows"] = [{"email": "a@example.com"}]
                if chunk == attempt.chunks - 1 and attempt.answer % 2:
                    data["__is_final__"] = True
                yield data
        except BaseException as error:
            self.note(run, "attempt over", driver_id, number, error=error)
            raise
        self.note(run, "attempt over", driver_id, number)


class AsyncDriver:
    """A driver as most are."""

    def __init__(self, driver_id: str, behaviour: Behaviour) -> None:
        self.driver_id = driver_id
        self._behaviour = behaviour

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return await self._behaviour.execute(self.driver_id, ctx)


class SlottedDriver:
    """A driver to which no attribute can be added."""

    __slots__ = ("_behaviour", "_id")

    def __init__(self, driver_id: str, behaviour: Behaviour) -> None:
        self._id = driver_id
        self._behaviour = behaviour

    @property
    def driver_id(self) -> str:
        return self._id

    async def execute(self, ctx: ExecutionContext) -> RawResult:
        return await self._behaviour.execute(self._id, ctx)


class StreamingDriver(AsyncDriver):
    """A driver that can stream."""

    def execute_stream(self, ctx: ExecutionContext) -> AsyncIterator[dict[str, Any]]:
        return self._behaviour.stream(self.driver_id, ctx)


def _instance_driver(driver_id: str, behaviour: Behaviour) -> Any:
    async def execute(ctx: ExecutionContext) -> RawResult:
        return await behaviour.execute(driver_id, ctx)

    return SimpleNamespace(driver_id=driver_id, execute=execute)


def _memory_driver(driver_id: str, behaviour: Behaviour) -> InMemoryDriver:
    driver: Any = InMemoryDriver(driver_id)

    def answer(ctx: ExecutionContext) -> Any:
        run = behaviour.run_of(ctx)
        attempt = run.op.attempts[min(run.asked["attempt"] - 1, len(run.op.attempts) - 1)]
        behaviour.fail(run, attempt)
        return ANSWERS[attempt.answer]

    original = driver.execute

    async def execute(ctx: ExecutionContext) -> Any:
        run, _ = behaviour.begin(driver_id, ctx)
        number = run.asked["attempt"] - 1
        try:
            result = await original(ctx)
        except BaseException as error:
            behaviour.note(run, "attempt over", driver_id, number, error=error)
            raise
        behaviour.note(run, "attempt over", driver_id, number)
        return result

    for capability in CAPABILITIES:
        driver.register_handler(capability, answer)
    driver.execute = execute
    return driver  # type: ignore[no-any-return]


MAKES: dict[str, Callable[[str, Behaviour], Any]] = {
    "async": AsyncDriver,
    "slotted": SlottedDriver,
    "streaming": StreamingDriver,
    "instance": _instance_driver,
    "memory": _memory_driver,
}
"""By the first part of a driver's id, what makes it."""
