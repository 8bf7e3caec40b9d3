# SPDX-License-Identifier: Apache-2.0
"""Defects to plant into the product, to see that the simulation finds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from agent_kernel_otel.histograms import BufferedHistogram
from agent_kernel_otel.operation import Operation
from agent_kernel_otel.weaver.grant_calls import ExpandCall, GrantCall
from agent_kernel_otel.weaver.invocation import InvokeCall
from agent_kernel_otel.weaver.store_views import TraceStoreView

Defect = Callable[[], Any]
DEFECTS: dict[str, Defect] = {}


def _defect(plant: Defect) -> Defect:
    DEFECTS[plant.__name__] = plant
    return plant


def planted(name: str) -> Any:
    """A context in which the product has a defect."""
    return contextmanager(DEFECTS[name])()


@_defect
def missed_decrement() -> Iterator[None]:
    """A cancelled invocation stays active."""
    count_end = InvokeCall.count_end

    def forgetful(self: Any, outcome: Any, result: Any) -> None:
        if outcome.status == "cancelled":
            self._active = None
        count_end(self, outcome, result)

    with mock.patch.object(InvokeCall, "count_end", forgetful):
        yield


@_defect
def double_count() -> Iterator[None]:
    """A refused expansion is counted by whoever refuses, and by whoever ends the call."""
    count_end = ExpandCall.count_end

    def twice(self: Any, outcome: Any, result: Any) -> None:
        count_end(self, outcome, result)
        if outcome.status == "denied":
            count_end(self, outcome, result)

    with mock.patch.object(ExpandCall, "count_end", twice):
        yield


@_defect
def swallowed_exception() -> Iterator[None]:
    """An audit record that cannot be written is counted as a failure, and then forgotten."""
    record = TraceStoreView.record

    def silent(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return record(self, *args, **kwargs)
        except OSError:
            return None

    with mock.patch.object(TraceStoreView, "record", silent):
        yield


@_defect
def leaked_attachment() -> Iterator[None]:
    """An operation whose task is cancelled leaves its span current."""
    leave = Operation.leave

    def careless(self: Any) -> None:
        if self.late.get("agent_kernel.status") != "cancelled":
            leave(self)

    with mock.patch.object(Operation, "leave", careless):
        yield


@_defect
def boundary_off_by_one() -> Iterator[None]:
    """A duration that is exactly a bucket's bound falls into the next bucket."""
    record = BufferedHistogram.record

    def beyond(self: Any, value: float, *rest: Any) -> None:
        record(self, math.nextafter(value, math.inf), *rest)

    with mock.patch.object(BufferedHistogram, "record", beyond):
        yield


@_defect
def exclusive_upper_bounds() -> Iterator[None]:
    """The same in whoever sorts values into buckets."""
    from bisect import bisect_right

    from opentelemetry.sdk.metrics._internal import aggregation

    with mock.patch.object(aggregation, "bisect_left", bisect_right):
        yield


@_defect
def unended_span() -> Iterator[None]:
    """A denied operation's span is never ended."""
    end = Operation.end

    def not_if_denied(self: Any) -> None:
        if self.late.get("agent_kernel.status") == "denied":
            self.kernel = None
            return
        end(self)

    with mock.patch.object(Operation, "end", not_if_denied):
        yield


@_defect
def wall_clock_durations() -> Iterator[None]:
    """An invocation takes the time of the wall clock, which can be set back."""
    from agent_kernel_otel.weaver import invocation

    now = invocation.__dict__["time_ns"]
    with mock.patch.object(invocation, "perf_counter_ns", now):
        yield


@_defect
def kernels_mixed_up() -> Iterator[None]:
    """Grants of all kernels are counted as those of the first that made one."""
    counts: Any = GrantCall.counts
    first: dict[str, Any] = {}

    def of_the_first(self: Any) -> Any:
        mine = counts(self)
        return first.setdefault(mine.capability, mine)

    with mock.patch.object(GrantCall, "counts", of_the_first):
        yield


@_defect
def reset_that_lowers() -> Iterator[None]:
    """Setting a snapshot back sets back what is exported, too."""
    from agent_kernel_otel import counts
    from agent_kernel_otel.kernelstats import KernelStats

    def for_all(self: Any) -> None:
        for group in counts.groups():
            group.clear()

    with mock.patch.object(KernelStats, "reset", for_all):
        yield


@_defect
def redactions_of_the_last_frame() -> Iterator[None]:
    """Of a stream's frames only the last one is looked at."""
    add_frame = InvokeCall.add_frame

    def only_this(self: Any, frame: Any) -> None:
        self._redactions = 0
        add_frame(self, frame)

    with mock.patch.object(InvokeCall, "add_frame", only_this):
        yield
