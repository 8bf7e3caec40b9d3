# SPDX-License-Identifier: Apache-2.0
"""What is new and finished: the reader that goes from the store to an output."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent_kernel_otel.console.notices import Notices
    from agent_kernel_otel.console.records import ReceivedLog, Trace
    from agent_kernel_otel.console.store import Store

QUIET_SECONDS: Final = 0.3
"""A trace whose root has arrived is finished after so long without news."""
LONGEST_QUIET_SECONDS: Final = 2.0
"""A trace whose root has arrived is shown after so long, with or without news."""
ROOTLESS_SECONDS: Final = 6.0
"""A trace without a root is shown after so long without news: batch processors export every
five seconds, so its root may still be on its way."""

_PENDING: Final = 10_000
_REMEMBERED: Final = 20_000


class Output(Protocol):
    """Shows what the feed gives it."""

    def requests(self, store: Store, after: int, until: int) -> None:
        """Takes note that there are new requests, ``after < batch <= until``."""

    def trace(self, trace: Trace, after: int) -> None:
        """Shows a trace, or what of it came in requests later than ``after``."""

    def logs(self, logs: list[ReceivedLog]) -> None:
        """Shows log records that name no trace."""


@dataclass
class _Pending:
    last_news: float
    root_since: float | None = None
    start_ns: float = math.inf


class Feed:
    """Follows a store and shows each trace once it is finished, and again if more arrives.

    Args:
        store: The store.
        output: Where things are shown.
        notices: Where to say what could not be shown.
        history: Whether to begin with what the store has from before.
        clock: Seconds, rising.

    Attributes:
        shown: Number of traces shown.
        opened_at: Number of the last request from before, which is not shown.
    """

    def __init__(
        self,
        store: Store,
        output: Output,
        notices: Notices,
        *,
        history: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shown = 0
        self._store = store
        self._output = output
        self._notices = notices
        self._clock = clock
        self.opened_at = 0 if history else store.last_batch
        self._cursor = self.opened_at
        self._logs_cursor = self.opened_at
        self._logs_since = clock()
        self._last_news = clock()
        self._pending: OrderedDict[bytes, _Pending] = OrderedDict()
        self._shown_until: OrderedDict[bytes, int] = OrderedDict()

    def step(self, timeout: float) -> None:
        """Waits for news, and shows what is finished.

        Args:
            timeout: Seconds to wait at most.
        """
        self._take_news(timeout)
        now = self._clock()
        self._show_all(key for key, pending in self._pending.items() if _is_due(pending, now))
        while len(self._pending) > _PENDING:
            self._show(next(iter(self._pending)))
        if (
            now - self._last_news >= QUIET_SECONDS
            or now - self._logs_since >= LONGEST_QUIET_SECONDS
        ):
            self._show_logs()

    def finish(self) -> None:
        """Shows everything that is left, finished or not."""
        self._take_news(0)
        self._show_all(self._pending)
        self._show_logs()

    def quiet_for(self) -> float:
        """Gives the seconds since anything arrived."""
        return self._clock() - self._last_news

    @property
    def waiting(self) -> int:
        """Number of traces that are not finished yet."""
        return len(self._pending)

    def _take_news(self, timeout: float) -> None:
        until = self._store.wait_for_change(self._cursor, timeout)
        if until <= self._cursor:
            return
        now = self._last_news = self._clock()
        self._output.requests(self._store, self._cursor, until)
        for change in self._store.changed_traces(self._cursor, until):
            pending = self._pending.setdefault(change.trace_id, _Pending(now))
            pending.last_news = now
            if change.start_ns is not None:
                pending.start_ns = min(pending.start_ns, change.start_ns)
            # What follows a trace already shown need not wait for a root again.
            has_root = change.has_root or change.trace_id in self._shown_until
            if has_root and pending.root_since is None:
                pending.root_since = now
        self._cursor = until

    def _show_all(self, trace_ids: Iterable[bytes]) -> None:
        # Requests come in any order; people read in order of time.
        for trace_id in sorted(trace_ids, key=lambda key: self._pending[key].start_ns):
            self._show(trace_id)

    def _show(self, trace_id: bytes) -> None:
        self._pending.pop(trace_id)
        trace = self._store.trace(trace_id)
        batches = [span.batch for span in trace.spans] + [log.batch for log in trace.logs]
        if not batches:
            self._notices.warn(
                "traces evicted before they were shown",
                "a trace was evicted before it could be shown; --max-spans keeps more",
            )
            return
        after = self._shown_until.get(trace_id, self.opened_at)
        newest = max(batches)
        # A repeated request brings nothing new.
        if newest > after:
            self._output.trace(trace, after)
            self.shown += trace_id not in self._shown_until
        self._shown_until[trace_id] = newest
        self._shown_until.move_to_end(trace_id)
        if len(self._shown_until) > _REMEMBERED:
            self._shown_until.popitem(last=False)

    def _show_logs(self) -> None:
        self._logs_since = self._clock()
        if self._logs_cursor == self._cursor:
            return
        logs = self._store.logs_without_trace(self._logs_cursor, self._cursor)
        self._logs_cursor = self._cursor
        if logs:
            self._output.logs(logs)


def _is_due(pending: _Pending, now: float) -> bool:
    quiet = now - pending.last_news
    if pending.root_since is None:
        return quiet >= ROOTLESS_SECONDS
    return quiet >= QUIET_SECONDS or now - pending.root_since >= LONGEST_QUIET_SECONDS
