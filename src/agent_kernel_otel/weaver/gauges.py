# SPDX-License-Identifier: Apache-2.0
"""What is the case when metrics are collected: budgets, handles, memory, of the kernels that live.

Kernels are referred to weakly, so that one that is gone is not reported any more; reading takes
the same time however much they hold.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel import semconv
from agent_kernel_otel.faults import faults
from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES
from agent_kernel_otel.weaver.reading import read

if TYPE_CHECKING:
    from agent_kernel_otel.metrics import Metrics
    from agent_kernel_otel.weaver.kernels import KernelTable

Labelled = Iterator[tuple[int, tuple[str, ...]]]

_DISTRIBUTION: Final = "weaver-kernel"
_SESSION_LIMIT: Final = semconv.ATTRIBUTES[semconv.SESSION].limit


class Gauges:
    """What one set of instruments reports, of the kernels of the configurations that use it.

    Args:
        metrics: The instruments.

    Attributes:
        tables: The kernels of each configuration, as long as it is in use.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.tables: weakref.WeakSet[KernelTable] = weakref.WeakSet()
        metrics.before_collection(self._begin_at_zero)
        metrics.observe(semconv.INFO, self._info)
        metrics.observe(semconv.HANDLES_ACTIVE, self._handles)
        metrics.observe(semconv.MEMORY_USAGE, self._memory)
        metrics.observe(semconv.BUDGET_CONSUMED, lambda: self._budgets("used"))
        metrics.observe(semconv.BUDGET_LIMIT, lambda: self._budgets("total_budget"))

    def _begin_at_zero(self) -> None:
        """Have the counts of registered capabilities exported before their first call."""
        for table in list(self.tables):
            for kernel in table.alive():
                _begin_at_zero(table, kernel)

    def _info(self) -> Labelled:
        known = _version_of_kernel()
        if known is not None:
            yield 1, (known,)

    def _handles(self) -> Labelled:
        stores = self._collaborators("_handle_store")
        handles = [read(store, "_meta") for store in stores]
        numbers = [len(held) for held in handles if isinstance(held, dict)]
        if numbers:
            yield sum(numbers), ()

    def _memory(self) -> Labelled:
        sizes = [read(store, "current_bytes") for store in self._collaborators("_handle_store")]
        known = [size for size in sizes if isinstance(size, int)]
        if known:
            yield sum(known), ("handle_store",)

    def _budgets(self, name: str) -> Labelled:
        """A property of each budget manager, by session; managers of the same session add up."""
        totals: dict[str, int] = {}
        fullness: dict[str, float] = {}
        for session, manager in self._managers():
            used, limit = read(manager, "used"), read(manager, "total_budget")
            number = read(manager, name)
            if not isinstance(number, int) or not isinstance(used, int):
                continue
            totals[session] = totals.get(session, 0) + number
            full = used / limit if isinstance(limit, int) and limit > 0 else 0.0
            fullness[session] = max(full, fullness.get(session, 0.0))
        shown = list(totals)[:_SESSION_LIMIT]
        yield from ((totals[session], (session,)) for session in shown)
        others = list(totals)[_SESSION_LIMIT:]
        if others:
            yield totals[max(others, key=fullness.__getitem__)], (semconv.OTHER,)

    def _managers(self) -> Iterator[tuple[str, Any]]:
        """Each budget manager once, with the session of the first kernel that has it."""
        seen = set()
        for table in list(self.tables):
            for kernel in table.alive():
                manager = vars(kernel).get("_budget_manager")
                if manager is not None and id(manager) not in seen:
                    seen.add(id(manager))
                    yield table.session_of(kernel) or semconv.OTHER, manager

    def _collaborators(self, attribute: str) -> Iterable[Any]:
        """Each collaborator of the kernels' once, also where kernels share it."""
        found = {}
        for table in list(self.tables):
            for kernel in table.alive():
                collaborator = vars(kernel).get(attribute)
                found[id(collaborator)] = collaborator
        return found.values()


def _begin_at_zero(table: KernelTable, kernel: Any) -> None:
    try:
        table.of(kernel).begin_at_zero(kernel)
    except Exception:
        faults.swallow("looking through a kernel's capabilities")


_of_metrics: Final[weakref.WeakKeyDictionary[Metrics, Gauges]] = weakref.WeakKeyDictionary()


def report(table: KernelTable, metrics: Metrics) -> None:
    """Have the kernels of a configuration reported, as long as it is in use."""
    gauges = _of_metrics.get(metrics)
    if gauges is None:
        gauges = _of_metrics[metrics] = Gauges(metrics)
    gauges.tables.add(table)


def _version_of_kernel() -> str | None:
    """The kernel's version, once it is imported."""
    return _version() if any(name in sys.modules for name in IMPORT_NAMES) else None


@cache
def _version() -> str | None:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return None
