# SPDX-License-Identifier: Apache-2.0
"""The numbers themselves: cumulative counts by series, for each kernel and for the process.

No OpenTelemetry here: they are counted with and without it, and read by whoever wants to.

A number is a cell, found by its series once and kept by whoever counts in it often. Cells change
under one lock, which a thread that holds it can take again, and by statements that nothing in the
same thread can come between: so they are safe under threads, tasks, signal handlers and
finalizers.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from threading import RLock
from typing import Any, Final

from agent_kernel_otel.by_kernel import ByKernel

Series = tuple[str | None, ...]
"""Name of a metric and the values of its attributes, in the order of its definition; ``None`` for
one that is absent."""

Numbers = dict[Series, int]


class Cell:
    """One number. To be changed under the lock of :data:`process` only."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Counts:
    """What one kernel did, and what of it is running."""

    __slots__ = ("_active", "_totals")

    def __init__(self) -> None:
        self._totals: dict[Series, Cell] = {}
        self._active: dict[Series, Cell] = {}

    def cell(self, series: Series) -> Cell:
        """Where a series is counted, from 0 where it is new: so that the first is an increase."""
        cell = self._totals.get(series)
        # A key is only ever added once, also by two threads at a time.
        return self._totals.setdefault(series, Cell()) if cell is None else cell

    def active_cell(self, series: Series) -> Cell:
        """Where it is counted how many are running."""
        cell = self._active.get(series)
        return self._active.setdefault(series, Cell()) if cell is None else cell

    def add(self, series: Series, number: int = 1) -> None:
        """Count one of a series, or several."""
        cell = self.cell(series)
        with process.lock:
            cell.number += number

    def totals(self) -> Numbers:
        """All counts so far."""
        return _read(self._totals)

    def active(self) -> Numbers:
        """How many are running."""
        return _read(self._active)

    def is_idle(self) -> bool:
        """Whether nothing is running that will yet be counted."""
        return not any(self.active().values())

    def take_over(self, other: Counts) -> None:
        """Add another's counts to these, and leave none there but of what is still running."""
        with process.lock:
            for series, cell in list(other._totals.items()):
                self.cell(series).number += cell.number
                cell.number = 0

    def clear(self) -> None:
        """Begin at 0, in a forked child."""
        for cell in (*self._totals.values(), *self._active.values()):
            cell.number = 0


def _read(cells: dict[Series, Cell]) -> Numbers:
    with process.lock:
        # In one step, because a series may be added without the lock.
        return {series: cell.number for series, cell in list(cells.items())}


def count(cells: Iterable[Cell], generation: int, over: Cell | None = None) -> bool:
    """Count one in each cell, all at once.

    Args:
        cells: The cells.
        generation: In which process that came to pass: ``process.generation`` at the time.
        over: Where it was taken note of as running, if it was.

    Returns:
        Whether it was this process; what its parent began a forked child does not count.
    """
    with process.lock:
        if generation != process.generation:
            return False
        if over is not None:
            over.number -= 1
        for cell in cells:
            cell.number += 1
        return True


class CountGroup(Counts):
    """What goes to one place: the counts of live kernels, and of those that are gone.

    Counts of its own are those that no live kernel made.
    """

    __slots__ = ("_finishing", "_kernels", "system")

    def __init__(self, system: str) -> None:
        super().__init__()
        self.system = system
        self._kernels = _LiveCounts(self)
        self._finishing: list[Counts] = []

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

    def retire(self, counts: Counts) -> None:
        """Keep the counts of a kernel that is gone.

        A stream may be collected together with its kernel, and counted after this.
        """
        with process.lock:
            self._finishing.append(counts)
            for one in self._finishing:
                self.take_over(one)
            self._finishing = [one for one in self._finishing if not one.is_idle()]

    def totals(self) -> Numbers:
        """All counts so far."""
        return self._sum(Counts.totals)

    def active(self) -> Numbers:
        """How many are running."""
        return self._sum(Counts.active)

    def clear(self) -> None:
        """Begin at 0, in a forked child."""
        super().clear()
        for counts in self._parts():
            counts.clear()

    def leave_to(self, heir: CountGroup) -> None:
        """Have another group keep the counts of this one, and what is yet to be counted."""
        with process.lock:
            heir.take_over(self)
            for counts in self._parts():
                heir.retire(counts)

    def _parts(self) -> list[Counts]:
        return [*self._kernels.values(), *self._finishing]

    def _sum(self, read: Any) -> Numbers:
        with process.lock:
            return add_up(read(counts) for counts in (self, *self._parts()))


class _LiveCounts(ByKernel[Counts]):
    """The counts of live kernels."""

    def __init__(self, group: CountGroup) -> None:
        super().__init__()
        self._group = group

    def drop(self, key: int) -> None:
        """Leave the counts of a kernel that is gone to its group."""
        with process.lock:
            counts = self.get(key)
            super().drop(key)
            if counts is not None:
                self._group.retire(counts)


def add_up(parts: Iterable[Numbers]) -> Numbers:
    """The sum of several counts, by series."""
    total: Numbers = {}
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
            group.clear()


process: Final = Process()
_USUAL: Final = "usual"
_GONE: Final = "gone"


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


def _leave_to_process(key: tuple[str, int | str]) -> None:
    """Keep the counts of a destination that is gone, as the process's."""
    with process.lock:
        group = process.groups.pop(key)
        gone = (key[0], _GONE)
        if gone not in process.groups:
            process.groups[gone] = CountGroup(key[0])
        group.leave_to(process.groups[gone])


def groups() -> list[CountGroup]:
    """All groups of this process."""
    with process.lock:
        return list(process.groups.values())
