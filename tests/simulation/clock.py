# SPDX-License-Identifier: Apache-2.0
"""Time that passes only when the simulation says so, and an event loop that lives in it."""

from __future__ import annotations

import asyncio
import datetime
import random
import selectors
import sys
import time
import types
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import weaver_kernel.kernel._invoke

_START = 1_000 * 10**9
_EPOCH = 1_750_000_000 * 10**9
_PRODUCT = ("agent_kernel_otel.",)
_REAL_TIME_IN = tuple(
    f"agent_kernel_otel.{part}" for part in ("pipeline", "console", "doctor", "distro")
)
"""Parts of the product that wait for other threads and processes, which have real time."""


class SimClock:
    """A monotonic clock, and a wall clock beside it that can jump.

    Attributes:
        now: Nanoseconds of the monotonic clock.
        skew: How far the wall clock has been moved, in nanoseconds.
    """

    def __init__(self) -> None:
        self.now = _START
        self.skew = 0

    def pass_by(self, nanoseconds: int) -> None:
        """Let time pass."""
        self.now += nanoseconds

    def jump(self, nanoseconds: int) -> None:
        """Move the wall clock, in either direction."""
        self.skew += nanoseconds

    def monotonic_ns(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e9

    def time_ns(self) -> int:
        return _EPOCH + self.now + self.skew

    def time(self) -> float:
        return self.time_ns() / 1e9

    def utc(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.time_ns() // 1000 / 1e6, datetime.timezone.utc)


class Deadlock(Exception):  # noqa: N818 - it is what came to pass
    """Every task waits, and nothing will ever wake one."""


class _Sleepless(selectors.SelectSelector):
    """Lets the clock pass instead of waiting. Nothing comes from outside that it could wait for."""

    def __init__(self, clock: SimClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        if timeout > 0:
            self._clock.pass_by(round(timeout * 1e9))
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop in simulated time: a sleep of an hour is over at once."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        super().__init__(_Sleepless(clock))

    def time(self) -> float:
        return self._clock.monotonic()


def _datetime_module(clock: SimClock) -> types.ModuleType:
    class Kind(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime.datetime)

    class Datetime(datetime.datetime, metaclass=Kind):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return clock.utc().astimezone(tz)

    shim = types.ModuleType("datetime")
    shim.__dict__.update(vars(datetime), datetime=Datetime)
    return shim


@contextmanager
def simulated_time(clock: SimClock, rng: random.Random) -> Iterator[None]:
    """The kernel, the product and the SDK take their time from a clock, and ids from a generator.

    Args:
        clock: Where time comes from.
        rng: Where ``uuid4`` comes from.
    """
    fakes = {
        time.monotonic: clock.monotonic,
        time.monotonic_ns: clock.monotonic_ns,
        time.perf_counter: clock.monotonic,
        time.perf_counter_ns: clock.monotonic_ns,
        time.time: clock.time,
        time.time_ns: clock.time_ns,
    }
    wall = {time.time_ns: clock.time_ns}
    shim = _datetime_module(clock)

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=rng.getrandbits(128), version=4)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(uuid, "uuid4", uuid4))
        for name, module in sorted(sys.modules.items()):
            known: dict[Any, Any] = {}
            if name.startswith("opentelemetry.sdk."):
                known = wall
            elif name.startswith(_PRODUCT) and not name.startswith(_REAL_TIME_IN):
                known = fakes
            if known:
                for attribute, value in list(vars(module).items()):
                    if isinstance(value, types.BuiltinFunctionType) and value in known:
                        stack.enter_context(mock.patch.object(module, attribute, known[value]))
                if vars(module).get("datetime") is datetime.datetime:
                    stack.enter_context(mock.patch.object(module, "datetime", shim.datetime))
            if name.startswith("weaver_kernel") and vars(module).get("datetime") is datetime:
                stack.enter_context(mock.patch.object(module, "datetime", shim))
        yield


_ = weaver_kernel  # imported so that its modules are there to be patched
