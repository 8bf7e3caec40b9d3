# SPDX-License-Identifier: Apache-2.0
"""Histograms that cost the app's thread next to nothing: values wait, and are recorded in batches.

Recording a value in the SDK takes several microseconds, and less in a batch than one at a time.
Values wait together with the context of their span, so that exemplars are as if recorded at once.
They are recorded

- before each collection (:func:`record_waiting`, called by an observable callback, which the SDK
  runs before it reads its histograms), so that a flush, the end, or a scrape misses none;
- by a thread of ours, in slices so short that no thread of the app notices them;
- by the thread that adds one when too many wait, a few at a time.

Reading this, keep in mind that a value can be added by a finalizer or a signal handler, and thus
in the midst of everything that happens here, in the same thread.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock, RLock
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, NoOpHistogram
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from agent_kernel_otel.faults import faults

_NO_SPAN: Final = set_span_in_context(INVALID_SPAN, Context())
"""For values without a context; where the SDK is given none it takes that of whoever records."""
_SDK: Final = "opentelemetry.sdk.metrics"

Waiting = tuple[Callable[..., None], float, Mapping[str, str], Context | None]


class Buffer:
    """Values that wait to be recorded.

    The defaults are what ``benchmarks/histograms.py`` found. While our thread records 4 values
    between two turns of the app, a thread of the app that wakes gets its turn as soon as without
    ours; with 16, half as late again. A thread that adds one too many records 32: in a batch they
    take 0.7 to 0.8 times the CPU that they take one by one, and larger batches gain no more.

    Args:
        slice_size: How many our thread records before other threads get their turn.
        share: How many a thread that adds one records itself, where too many wait.
        full: How many are too many.
        interval: Seconds between two rounds of our thread, while there are values.

    Attributes:
        waiting: The values, oldest first.
        due: With how many :meth:`attend` is to be called. Whoever changes it wakes our thread.
    """

    def __init__(
        self, slice_size: int = 4, share: int = 32, full: int = 512, interval: float = 0.1
    ) -> None:
        self._slice_size = slice_size
        self._share = share
        self._full = full
        self._interval = interval
        # Reached only if the SDK itself hangs: the oldest values go then, and not the app's memory.
        self.waiting: deque[Waiting] = deque(maxlen=16 * full)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Be empty, as in a forked child, where no thread of the parent's is."""
        self.waiting.clear()
        self.due = 1
        self._recording = RLock()
        self._is_started = Lock()
        self._wakes = Lock()
        self._wakes.acquire()

    def attend(self) -> None:
        """Have the values recorded; called by a thread that has just added one."""
        number = len(self.waiting)
        if number < self._full:
            self.due = self._full
        elif not _is_interrupting_the_sdk():
            self._help(number)
        self._wake_thread()

    def _help(self, number: int) -> None:
        oldest = self._oldest()
        if self._recording.acquire(timeout=_PATIENCE):
            try:
                self._record(self._share)
            finally:
                self._recording.release()
            self.due = self._full
        elif number == self.waiting.maxlen:
            self.due = sys.maxsize
            _report_loss()
        elif oldest is self._oldest():
            self.due = number + self._full  # who records them is stuck: do not wait every time

    def _oldest(self) -> Waiting | None:
        try:
            return self.waiting[0]
        except IndexError:
            return None

    def record_waiting(self) -> None:
        """Record all values that wait now; those that others are recording are through as well."""
        left = len(self.waiting)
        slice_size = max(self._slice_size, left // 8)
        while True:
            with self._recording:
                number = min(left, slice_size)
                done = self._record(number)
            left -= done
            # Fewer: others were faster. They are through, because they have let go of the lock.
            if not left or done < number:
                return
            time.sleep(0)

    def _record(self, number: int) -> int:
        """Record some, and say how many there were."""
        take = self.waiting.popleft
        for done in range(number):
            try:
                record, value, attributes, context = take()
            except IndexError:
                return done
            try:
                record(value, attributes, context or _NO_SPAN)
            except Exception:
                faults.swallow("recording a value of a histogram")
        return number

    def _wake_thread(self) -> None:
        if self._is_started.acquire(blocking=False):
            # Not by the threading module: its locks may be held by what was interrupted. At the
            # end of the interpreter none can be started; those who add values do without it.
            with suppress(RuntimeError):
                _thread.start_new_thread(self._run, ())
        with suppress(RuntimeError):
            self._wakes.release()  # a lock, because an event cannot be set while it is being set

    def _run(self) -> None:
        while True:
            self._wakes.acquire()
            is_needed = True
            while is_needed:
                time.sleep(self._interval)
                is_needed = bool(self.waiting)
                self.due = self._full
                self._record_in_turn()
            self.due = 1
            if self.waiting:
                self._wake_thread()  # for one that was added just before

    def _record_in_turn(self) -> None:
        """Record values while other threads sleep.

        One that never does makes us wait for each turn. It then records them itself, with less
        CPU time than two threads in each other's way.
        """
        done = self._slice_size
        while done == self._slice_size:
            with self._recording:
                done = self._record(self._slice_size)
            asked = time.monotonic()
            time.sleep(0)
            if time.monotonic() - asked > _LONG_FOR_A_TURN:
                return

    # --- fork ---

    def hold(self) -> None:
        """Have no value being recorded during a fork: the child would find the SDK's locks held."""
        self._recording.acquire(timeout=1)

    def release(self) -> None:
        """Go on after a fork."""
        with suppress(RuntimeError):
            self._recording.release()


_LONG_FOR_A_TURN: Final = 0.003
"""Seconds; who does not sleep gives a turn after 5 ms."""
_PATIENCE: Final = 0.005
"""Seconds that a thread of the app waits for others to record, when too many values wait."""


def _is_interrupting_the_sdk() -> bool:
    """Whether this is a finalizer or a signal handler in the midst of the SDK.

    The locks that it would need may be held by what it interrupts.
    """
    frame: Any = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_SDK):
            return True
        frame = frame.f_back
    return False


def _report_loss() -> None:
    try:
        raise OverflowError  # noqa: TRY301 - a fault is an exception
    except OverflowError:
        faults.swallow("waiting for the SDK to record values of histograms")


_buffer: Final = Buffer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_buffer.hold, after_in_parent=_buffer.release, after_in_child=_buffer.begin_anew
    )

record_waiting: Final = _buffer.record_waiting


class BufferedHistogram:
    """A histogram whose values are recorded later.

    Args:
        instrument: The OpenTelemetry instrument.
        buffer: Where they wait; the process's by default.
    """

    __slots__ = ("_append", "_buffer", "_instrument", "_record", "_waiting")

    def __init__(self, instrument: Histogram, buffer: Buffer = _buffer) -> None:
        self._instrument = instrument
        self._record: Callable[..., None] | None = None
        self._buffer = buffer
        self._waiting = buffer.waiting
        self._append = buffer.waiting.append

    def record(self, value: float, attributes: Mapping[str, str], context: Context | None) -> None:
        """Have a value recorded.

        Args:
            value: The value.
            attributes: Its attributes; they must not change afterwards.
            context: Holds the span that it belongs to; None where that is not sampled.
        """
        record = self._record or self._find_instrument()
        if record is not None:
            self._append((record, value, attributes, context))
            if len(self._waiting) >= self._buffer.due:
                self._buffer.attend()

    def _find_instrument(self) -> Callable[..., None] | None:
        """How the SDK records, if there is one; an app may set its provider late, or never."""
        # Private. The API's stand-in for an instrument has it from when there is a provider.
        real: Any = getattr(self._instrument, "_real_instrument", self._instrument)
        if real is None or type(real) is NoOpHistogram:
            return None
        self._record = real.record
        return self._record
