# SPDX-License-Identifier: Apache-2.0
"""Forks in the midst of operations: the child counts what it does, and nothing that it inherited."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from agent_kernel_otel import kernel_stats, stats
from tests.simulation.capture import Capture
from tests.simulation.clock import SimClock
from tests.simulation.model import Model
from tests.simulation.plan import Plan
from tests.simulation.process import play
from tests.simulation.told import Series
from tests.simulation.world import World

_OPERATIONS = 150
_HANGS_AFTER = 60.0


class Forks:
    """Forks the process where the plan says, and has the child tell how it fared.

    Args:
        plan: The plan that is played.
        capture: Where the telemetry goes, in the child as in its parent.
        clock: The clock, likewise.
    """

    def __init__(self, plan: Plan, capture: Capture, clock: SimClock) -> None:
        self._plan = plan
        self._capture = capture
        self._clock = clock
        self._inherited: set[int] = set()
        self._values_before: Counter[str] = Counter()
        self._report: int | None = None
        self.complaints: list[str] = []
        self.number = 0

    @property
    def in_child(self) -> bool:
        """Whether this is a child, which is to end with the round that it inherited."""
        return self._report is not None

    def fork(self, world: World) -> None:
        """Fork now, while operations run; the parent waits for its child."""
        if self.in_child:
            return
        self._inherited = set(world.runs)
        self._values_before = self._values()
        self.number += 1
        reading, writing = os.pipe()
        loop = asyncio.get_running_loop()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, on purpose
            child = os.fork()
        if child == 0:
            os.close(reading)
            self._report = writing
            # The child goes on in the loop that it inherited, which asyncio takes for its parent's.
            asyncio._set_running_loop(loop)
            return
        os.close(writing)
        self._wait(child, reading)

    def _wait(self, child: int, reading: int) -> None:
        with os.fdopen(reading, "rb") as pipe:
            ready, _, _ = select.select([pipe], [], [], _HANGS_AFTER)
            if not ready:
                os.kill(child, signal.SIGKILL)
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        said = json.loads(text) if text else [f"said nothing and ended with {status}"]
        self.complaints += [f"child {self.number}: {line}" for line in said]

    def end_child(self, world: World) -> None:
        """Look at what was counted, do something else, look again, tell the parent, and end."""
        assert self._report is not None
        asyncio._set_running_loop(None)
        try:
            said = list(self._what_is_wrong(world))
        except BaseException:
            said = [traceback.format_exc()]
        self._end(said)

    def fail_child(self) -> None:
        """Tell the parent of the exception that is being handled, and end; nothing in the parent."""
        if self.in_child:
            self._end([traceback.format_exc()])

    def _end(self, said: list[str]) -> None:
        assert self._report is not None
        with suppress(OSError):
            os.write(self._report, json.dumps(said[:20]).encode())
        os._exit(0)

    def _what_is_wrong(self, world: World) -> Iterator[str]:
        own = {number: run for number, run in world.runs.items() if number not in self._inherited}
        model = Model(self._plan.kernels, debug=self._plan.span_level == "debug")
        expected: Counter[Series] = Counter()
        for run in own.values():
            expected.update(model.told(run).counts)
        yield from self._differences("after the fork", expected)
        for site in world.sites:
            active = kernel_stats(site.kernel).snapshot().invocations_active
            if active:
                yield f"{active} of {site.name} are active, which its parent began"
        values = self._values() - self._values_before
        invocations = sum(n for series, n in expected.items() if series[0] == _INVOCATIONS)
        if values[_DURATION] != invocations:
            yield f"{values[_DURATION]} durations for {invocations} invocations after the fork"
        plan = Plan(self._plan.seed + 1_000_000, _OPERATIONS)
        mine = World(plan, self._clock)
        play(mine, self._clock)
        model = Model(plan.kernels, debug=self._plan.span_level == "debug")
        for run in mine.runs.values():
            expected.update(model.told(run).counts)
        yield from self._differences("after work of its own", expected)
        values = self._values() - self._values_before
        invocations = sum(n for series, n in expected.items() if series[0] == _INVOCATIONS)
        if values[_DURATION] != invocations:
            yield f"{values[_DURATION]} durations for {invocations} invocations of its own"

    @staticmethod
    def _differences(when: str, expected: Counter[Series]) -> Iterator[str]:
        found = stats.snapshot()
        for series in sorted(expected.keys() | found.counts.keys(), key=repr):
            if series[0] == "agent_kernel.handles_evicted":
                continue  # the reasons are lost where the wall clock was set back
            if expected[series] != found.counts.get(series, 0):
                number = found.counts.get(series, 0)
                yield f"{when} {series} must be {expected[series]}, and is {number}"
        if found.invocations_active:
            yield f"{when} {found.invocations_active} are active"

    def _values(self) -> Counter[str]:
        """How many values each histogram has."""
        values: Counter[str] = Counter()
        for (name, _), point in self._capture.points().items():
            if hasattr(point, "bucket_counts"):
                values[name] += point.count
        return values


_INVOCATIONS = "agent_kernel.invocations"
_DURATION = "agent_kernel.invocation_duration"
