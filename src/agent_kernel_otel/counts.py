# SPDX-License-Identifier: Apache-2.0
"""The numbers themselves: cumulative counts by series, for each kernel and for the process.

No OpenTelemetry here: they are counted with and without it, and read by whoever wants to.

Safe under threads, tasks, signal handlers and finalizers: every change is made under one lock,
which a thread that holds it can take again, and by statements that nothing in the same thread
can come between.
"""

from __future__ import annotations

import os
import weakref
from collections import defaultdict
from collections.abc import Iterable
from threading import RLock
from typing import Any, Final

from agent_kernel_otel.by_kernel import ByKernel

Series = tuple[str | None, ...]
"""Name of a metric and the values of its attributes, in the order of its definition; ``None`` for
one that is absent."""


class Counts:
    """What one kernel did."""

    __slots__ = ("_active", "_totals")

    def __init__(self) -> None:
        self._totals: defaultdict[Series, int] = defaultdict(int)
        self._active: defaultdict[Series, int] = defaultdict(int)

    def add(self, series: Series, number: int = 1) -> None:
        """Count one of a series, or several."""
        with process.lock:
            self._totals[series] += number

    def add_all(self, series: Iterable[Series], generation: int) -> bool:
        """Count one of each.

        Args:
            series: What to count.
            generation: In which process that came to pass, as ``process.generation`` had it.

        Returns:
            Whether it was this one; what its parent began a forked child does not count.
        """
        with process.lock:
            if generation != process.generation:
                return False
            totals = self._totals
            for one in series:
                totals[one] += 1
            return True

    def begin(self, active: Series) -> None:
        """Take note that something is running."""
        with process.lock:
            self._active[active] += 1

    def end(self, active: Series, series: Iterable[Series], generation: int) -> bool:
        """Take note that it is over, and count what it came to, as :meth:`add_all` does."""
        with process.lock:
            if not self.add_all(series, generation):
                return False
            self._active[active] -= 1
            return True

    def zero(self, series: Iterable[Series]) -> None:
        """Have counts that were never made begin at 0, so that the first one is an increase."""
        with process.lock:
            for one in series:
                self._totals[one] += 0

    def totals(self) -> dict[Series, int]:
        """All counts so far."""
        with process.lock:
            return dict(self._totals)

    def active(self) -> dict[Series, int]:
        """How many are running."""
        with process.lock:
            return dict(self._active)

    def _become(self, heir: Counts) -> None:
        """Go over to another's; what is still running then ends there."""
        with process.lock:
            for series, number in self._totals.items():
                heir._totals[series] += number
            for series, number in self._active.items():
                heir._active[series] += number
            self._totals = heir._totals
            self._active = heir._active

    def _clear(self) -> None:
        self._totals.clear()
        self._active.clear()


class CountGroup(Counts):
    """What goes to one place: the counts of live kernels, and what those came to that are gone.

    Counts of its own are those that no kernel made.
    """

    __slots__ = ("_kernels", "system")

    def __init__(self, system: str) -> None:
        super().__init__()
        self.system = system
        self._kernels = _LiveCounts(self)

    def of(self, kernel: Any) -> Counts:
        """The counts of a kernel, as long as it lives."""
        with process.lock:
            counts = self._kernels.get(id(kernel))
            if counts is None:
                counts = Counts()
                self._kernels.put(kernel, counts)
            return counts

    def find(self, kernel: Any) -> Counts | None:
        """The same, where there are any."""
        return self._kernels.get(id(kernel))

    def totals(self) -> dict[Series, int]:
        """All counts so far."""
        return self._sum(Counts.totals)

    def active(self) -> dict[Series, int]:
        """How many are running."""
        return self._sum(Counts.active)

    def leave_to(self, heir: CountGroup) -> None:
        """Go over to another group, with what live kernels have counted and will."""
        for counts in (self, *list(self._kernels.values())):
            counts._become(heir)

    def _sum(self, read: Any) -> dict[Series, int]:
        with process.lock:
            return add_up(read(counts) for counts in (self, *list(self._kernels.values())))

    def _clear(self) -> None:
        super()._clear()
        for counts in list(self._kernels.values()):
            counts._clear()


class _LiveCounts(ByKernel[Counts]):
    """The counts of live kernels; those of one that goes away are kept, in a sum."""

    def __init__(self, gone: Counts) -> None:
        super().__init__()
        self._gone = gone

    def drop(self, key: int) -> None:
        counts = self.get(key)
        if counts is not None:
            counts._become(self._gone)
        super().drop(key)


def add_up(parts: Iterable[dict[Series, int]]) -> dict[Series, int]:
    """The sum of several counts, by series."""
    total: dict[Series, int] = {}
    for part in parts:
        for series, number in part.items():
            total[series] = total.get(series, 0) + number
    return total


class Process:
    """All counts of this process.

    Attributes:
        lock: Held for every change. Reentrant, because garbage can be collected while it is held,
            and with it a stream whose end is counted.
        generation: How many forks lead to this process.
        groups: All groups, by system and destination.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.generation = 0
        self.groups: dict[tuple[str, int | str], CountGroup] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self.lock = RLock()
        self.generation += 1
        for group in self.groups.values():
            group._clear()


process: Final = Process()


def group_of(system: str, destination: Any = None) -> CountGroup:
    """The counts of one kind of kernel that go to one destination.

    Args:
        system: Value of ``agent_kernel.system``.
        destination: Where they are exported to, such as a meter provider; the usual place by
            default. Once it is gone, its counts are the process's only.
    """
    key = (system, _USUAL if destination is None else id(destination))
    with process.lock:
        group = process.groups.get(key)
        if group is None:
            group = process.groups[key] = CountGroup(system)
            if destination is not None:
                weakref.finalize(destination, _leave_to_process, key).atexit = False
        return group


_USUAL: Final = "usual"
_GONE: Final = "gone"


def _leave_to_process(key: tuple[str, int | str]) -> None:
    """Keep the counts of a destination that is gone, as the process's."""
    with process.lock:
        group = process.groups.pop(key)
        left = process.groups.setdefault((key[0], _GONE), CountGroup(key[0]))
        group.leave_to(left)


def groups() -> list[CountGroup]:
    """All groups of this process."""
    with process.lock:
        return list(process.groups.values())
