# SPDX-License-Identifier: Apache-2.0
"""Views for the usual course of an invocation that no span is recorded of: counted, and no more.

They do in one step each what the general views do in several, because with nothing listening
these steps are all that we cost. Whatever is out of the ordinary goes the general way.
"""

from __future__ import annotations

from typing import Any

from agent_kernel_otel.current import come_back, set_current
from agent_kernel_otel.weaver.driver_views import DriverView
from agent_kernel_otel.weaver.invocation import InvokeCall
from agent_kernel_otel.weaver.store_views import HandleStoreView, TraceStoreView
from agent_kernel_otel.weaver.views import DriversView


class QuietDriversView(DriversView):
    """The kernel's table of drivers, in an invocation that is no stream."""

    __slots__ = ()

    def __init__(self, call: InvokeCall, real: Any) -> None:
        self._call = call
        self._real = real
        call.reached_drivers = True

    def get(self, driver_id: Any, default: Any = None) -> Any:
        """The driver to try."""
        driver = self._real.get(driver_id)
        return default if driver is None else QuietDriverView(self._call, driver_id, driver)


class QuietDriverView(DriverView):
    """A driver whose attempt is counted."""

    __slots__ = ()

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        """One attempt, from its first step to its end."""
        call, driver_id = self._call, self._tried_as
        succeeded = call.facts.succeeded.get(driver_id)
        if succeeded is None or call.late_attempt is not None or type(driver_id) is not str:
            return await super().execute(*args, **kwargs)
        call.attempts += 1
        self.told_as = call.driver_id = driver_id
        self.span = None
        self.settled = False
        call.open_attempt = self
        marker = set_current(None)
        try:
            result = await self._driver.execute(*args, **kwargs)
        except BaseException as error:
            come_back(marker)
            call.attempted(self, error)
            raise
        come_back(marker)
        call.open_attempt = None
        self.settled = True
        call.counted.append(succeeded)
        return result


class QuietHandleStoreView(HandleStoreView):
    """A handle store of the kernel's own."""

    __slots__ = ()

    def store(self, *args: Any, **kwargs: Any) -> Any:
        """Keep a full result, and count it; with what had to make room the general way."""
        store = self._real
        try:
            handles = store._meta
            number = len(handles) + 1
            usual = (
                number <= store._max_entries
                and (store._store_count + 1) % store._EVICT_INTERVAL
                and store.__dict__.get("_max_total_bytes") is None
            )
        except Exception:  # a release with other names
            usual = False
        if not usual:
            return super().store(*args, **kwargs)
        handle = store.store(*args, **kwargs)
        call = self._call
        call.counted.append(call.facts.cells.stored)
        return handle


class QuietTraceStoreView(TraceStoreView):
    """A trace store of the kernel's own."""

    __slots__ = ()

    def record(self, *args: Any, **kwargs: Any) -> Any:
        """Write an audit record, and count it."""
        call, store = self._call, self._real
        kind: Any = getattr(args[0], "event_type", "invoke") if args else None
        cell = call.facts.cells.recorded.get(kind)
        evicted = getattr(store, "evicted_count", None)
        if cell is None or evicted or call.kernel is None:
            return super().record(*args, **kwargs)
        try:
            result = store.record(*args, **kwargs)
        except BaseException as error:
            self.failed(kind, error)
            raise
        call.counted.append(cell)
        if evicted is not None and store.evicted_count:
            self.dropped(evicted)
        return result
