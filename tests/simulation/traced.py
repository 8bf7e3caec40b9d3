# SPDX-License-Identifier: Apache-2.0
"""A run of a plan with the instrumentation at work, and somebody who reads its numbers meanwhile."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_kernel_otel import KernelInstrumentor, StatsSnapshot, kernel_stats, stats
from agent_kernel_otel.faults import faults
from tests.simulation.capture import Capture, Points
from tests.simulation.clock import SimClock, simulated_time
from tests.simulation.forking import Forks
from tests.simulation.model import session_of
from tests.simulation.plan import Op, Plan, Round
from tests.simulation.process import play, quiet
from tests.simulation.world import Site, World

_TOGETHER = 8
"""How many operations are looked at together."""


@dataclass
class Reset:
    """That a snapshot was set back to zero, and after which operation.

    Attributes:
        kernel: Of which kernel; ``None`` for the process.
        after: Number of the last operation before.
    """

    kernel: str | None
    after: int


class Reader:
    """A thread that reads all totals as fast as it can, and sees whether one falls.

    Args:
        read: Gives totals by series.
    """

    def __init__(self, read: Any) -> None:
        self._read = read
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._looking = threading.Lock()
        self._last: dict[Any, float] = {}
        self.complaints: list[str] = []
        self.reads = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Read once."""
        with self._looking:
            now = self._read()
            self.reads += 1
            for series, before in self._last.items():
                if now.get(series, 0) < before:
                    self.complaints.append(f"{series} fell from {before} to {now.get(series, 0)}")
            self._last = now

    def _run(self) -> None:
        while not self._over.wait(0.2):
            self.look()


class Traced:
    """A run with the instrumentation at work, and what it told.

    Args:
        plan: What to play.
        read_meanwhile: Whether a thread collects while the plan is played; if not, the process
            forks where the plan says.

    Attributes:
        faults: How many faults the product swallowed.
        final: The process's snapshot at the end, and those of the kernels that are left, by name.
        resets: When snapshots were set back.
        exported: All data points at the end.
        rounds: Operations, and what the process counted while it performed them.
        unsettled: Where not as many were active as were running.
        complaints: What the reading thread saw.
        reads: How often it read.
        children: What forked children found wrong.
        forks: How many of them there were.
    """

    def __init__(self, plan: Plan, *, read_meanwhile: bool = True) -> None:
        self.plan = plan
        self.capture = Capture(random.Random(f"{plan.seed} telemetry"))
        self.clock = SimClock()
        self.final: dict[str | None, StatsSnapshot] = {}
        self.resets: list[Reset] = []
        self._unseen: tuple[Op, ...] = ()
        self.rounds: list[tuple[tuple[Op, ...], Counter[Any]]] = []
        self.unsettled: list[str] = []
        self.exported: Points = {}
        self._read_meanwhile = read_meanwhile
        self._played = 0
        self._before: Mapping[Any, int] = stats.snapshot().counts
        self._after_last: Mapping[Any, int] = self._before
        self._reader = Reader(self.capture.counters)
        # A thread that reads may hold locks of the SDK when the process forks.
        self._forks = None if read_meanwhile else Forks(plan, self.capture, self.clock)
        self._faults_before = faults.count
        self.world = self._play()
        self.faults = faults.count - self._faults_before
        self.complaints = self._reader.complaints
        self.reads = self._reader.reads
        self.children = [] if self._forks is None else self._forks.complaints
        self.forks = 0 if self._forks is None else self._forks.number

    def _play(self) -> World:
        capture, faults.reraise = self.capture, False
        with quiet(), simulated_time(self.clock, random.Random(self.plan.seed)):
            KernelInstrumentor().instrument(
                tracer_provider=capture.tracer_provider,
                logger_provider=capture.logger_provider,
                meter_provider=capture.meter_provider,
                span_level=self.plan.span_level,
                metrics_level="debug",
                gen_ai_metrics=True,
                session=lambda kernel: session_of(kernel.kernel_id),
            )
            try:
                self._world = world = World(self.plan, self.clock, self._on_event)
                if self._read_meanwhile:
                    self._reader.start()
                play(world, self.clock)
                if self._forks is not None and self._forks.in_child:
                    raise AssertionError("a child outlived the round in which it was forked")
                gc.collect()
                if self._read_meanwhile:
                    self._reader.stop()
                self._take_stock(world)
            except BaseException:
                if self._forks is not None:
                    self._forks.fail_child()
                raise
            finally:
                KernelInstrumentor().uninstrument()
                world.close()
        return world

    def _on_event(self, what: str, about: Any) -> None:
        if what == "reset":
            self._look_at_rounds()
            stats.reset()
            self._after_last = {}
            self.resets.append(Reset(None, self._played))
        elif what == "reset one":
            site: Site = about
            kernel_stats(site.kernel).reset()
            self.resets.append(Reset(site.name, self._played))
        elif what == "fork":
            if self._forks is not None:
                self._forks.fork(self._world)
        elif what == "at work":
            self._see_who_is_active()
        elif what == "collect":
            self.capture.export()
            self._reader.look()
        elif what == "round":
            played: Round = about
            self._played = played.ops[-1].number
            if self._forks is not None and self._forks.in_child:
                self._forks.end_child(self._world)
            self._unseen += played.ops
            if len(self._unseen) >= _TOGETHER:
                self._look_at_rounds()

    def _see_who_is_active(self) -> None:
        if self._forks is not None and self._forks.in_child:
            return
        running = self._world.running
        active = stats.snapshot().invocations_active
        if not running <= active <= running + self._world.lingering:
            self.unsettled.append(f"{active} active after {self._played}, and {running} running")

    def _look_at_rounds(self) -> None:
        snapshot, before = stats.snapshot(), self._after_last
        if snapshot.invocations_active:
            self.unsettled.append(f"{snapshot.invocations_active} active after {self._played}")
        counted = Counter(
            {
                series: number - before.get(series, 0)
                for series, number in snapshot.counts.items()
                if number != before.get(series, 0)
            }
        )
        self.rounds.append((self._unseen, counted))
        self._unseen, self._after_last = (), snapshot.counts

    def _take_stock(self, world: World) -> None:
        self.final[None] = stats.snapshot()
        for site in world.sites:
            self.final[site.name] = kernel_stats(site.kernel).snapshot()
        self.exported = self.capture.points()

    def counted(self) -> dict[tuple[str | None, ...], int]:
        """What the process counted since its last reset, or since this run began."""
        totals = self.final[None].counts
        if any(reset.kernel is None for reset in self.resets):
            return dict(totals)
        return {series: number - self._before.get(series, 0) for series, number in totals.items()}
