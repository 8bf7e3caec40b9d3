# SPDX-License-Identifier: Apache-2.0
"""The thread of one pipeline, which can be asked to flush or to end, and never makes anyone wait.

Whoever asks decides how long to wait for it: a thread that is stuck in an export is left behind.
"""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from agent_kernel_otel.faults import faults
from agent_kernel_otel.pipeline.notices import notices

if TYPE_CHECKING:
    from agent_kernel_otel.pipeline.delivery import Delivery

GRACE: Final = 0.05
"""Seconds that an export is given to return once its exporter has been shut down."""


_LONGEST: Final = 24 * 3600.0
"""Longest single wait in seconds; an infinite one is an error of the queue's."""


class Request:
    """Asks a pipeline to send all that it holds.

    Attributes:
        ends: Whether the pipeline ends with it.
    """

    def __init__(self, ends: bool = False) -> None:
        self.ends = ends
        self._done = threading.Event()

    @property
    def is_done(self) -> bool:
        """Whether it has been done."""
        return self._done.is_set()

    def finish(self) -> None:
        """Say that it has been done."""
        self._done.set()

    def wait(self, deadline: float) -> bool:
        """Wait until it has been done.

        Args:
            deadline: Until when, by ``time.monotonic()``.

        Returns:
            Whether it has.
        """
        return self._done.wait(max(0.0, deadline - time.monotonic()))


class Pipeline(ABC):
    """One exporter with a thread of its own.

    Args:
        name: Name of the thread.
        delivery: The way out.
        interval: Seconds after which the thread sends what there is, unasked.

    Attributes:
        delivery: The way out.
        closed: Whether it takes nothing any more.
        refused: Whether something came all the same since.
    """

    refused = False

    def __init__(self, name: str, delivery: Delivery, interval: float) -> None:
        self.delivery = delivery
        self.closed = False
        self._name = name
        self._interval = interval
        self._start()

    def _start(self) -> None:
        # Signal handlers and finalizers may run in the middle of a call of ours and call again:
        # this queue can be re-entered, which no Event or Condition can.
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._awake = False
        self._lost = 0
        self._last: Request | None = None
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def after_fork_in_child(self) -> None:
        """Start anew, with nothing that belongs to the parent."""
        self.delivery.after_fork_in_child()
        self._forget()
        if not self.closed:
            self._start()

    def wake(self) -> None:
        """Have the thread look after its work now."""
        if not self._awake:
            self._awake = True
            self._requests.put(None)

    def flush(self, timeout: float) -> bool:
        """Send all that it holds by now.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether all of it was sent, and acknowledged, in that time.
        """
        lost = self.delivery.account.totals().lost
        done = self.begin_flush().wait(time.monotonic() + timeout)
        return done and not self.refused and self.delivery.account.totals().lost == lost

    def begin_flush(self) -> Request:
        """Ask for a flush without waiting for it."""
        request = Request()
        if self.closed:
            request.finish()
        else:
            self._requests.put(request)
        return request

    def begin_close(self) -> None:
        """Take nothing any more, and ask for the rest to be sent."""
        if not self.closed:
            self.closed = True
            self._last = Request(ends=True)
            self._requests.put(self._last)

    def wait(self, deadline: float) -> None:
        """Wait for the end that was begun.

        Args:
            deadline: How long, by ``time.monotonic()``.
        """
        if self._last is not None:
            self._last.wait(deadline)

    def interrupt(self) -> None:
        """End what is still under way of the end that was begun."""
        if self._last is not None and not self._last.is_done:
            self.delivery.shut()

    def conclude(self, deadline: float) -> None:
        """Give up what has not been sent by then.

        Args:
            deadline: How long to wait for what was interrupted, by ``time.monotonic()``.
        """
        self.wait(deadline)
        if self._last is not None:
            self._last = None
            self.delivery.give_up(self._forget())

    def close(self, timeout: float) -> None:
        """Send the rest and end.

        Args:
            timeout: Seconds to wait at most.
        """
        self.begin_close()
        self.wait(time.monotonic() + timeout)
        self.interrupt()
        self.conclude(time.monotonic() + GRACE)

    def _work(self) -> None:
        requests = self._requests  # a forked child, and nobody else, makes new ones
        due = time.monotonic() + self._interval
        while True:
            try:
                request = requests.get(timeout=min(_LONGEST, max(0.0, due - time.monotonic())))
                everything = request is not None
            except queue.Empty:
                request, everything = None, True
            self._awake = False
            if everything:
                due = time.monotonic() + self._interval
            try:
                self._send(everything)
                self._look_for_losses()
            except Exception:
                faults.swallow("sending telemetry")
            if request is not None:
                if request.ends:
                    self.delivery.shut()
                request.finish()
                if request.ends:
                    return

    def _look_for_losses(self) -> None:
        lost = self.delivery.account.totals().lost
        if lost > self._lost and not self.closed:  # the end has a line of its own
            notices.telemetry_was_lost()
        self._lost = lost

    @abstractmethod
    def _send(self, everything: bool) -> None:
        """Send what is worth a request, or everything. Called on the thread only."""

    @abstractmethod
    def _forget(self) -> int:
        """Drop all that waits.

        Returns:
            How many items that were.
        """
