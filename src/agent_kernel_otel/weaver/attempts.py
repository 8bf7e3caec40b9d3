# SPDX-License-Identifier: Apache-2.0
"""The attempts of drivers in one invocation: told and counted as they end."""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING

from agent_kernel_otel import semconv
from agent_kernel_otel.scrub import identifier
from agent_kernel_otel.telemetry import Attributes
from agent_kernel_otel.weaver.calls import KernelCall
from agent_kernel_otel.weaver.outcomes import classify

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Attempt:
    """One attempt of a driver.

    Attributes:
        told_as: The driver's id as it is told.
        span: Its span, if it has one.
        began: When it began, in nanoseconds of the performance counter.
        settled: Whether it has been told how it ended.
    """

    __slots__ = ("began", "settled", "span", "told_as")

    told_as: str
    span: Span | None
    began: int
    settled: bool


class AttemptingCall(KernelCall):
    """A call in which the kernel tries drivers.

    Attributes:
        stream: Whether it is a stream.
        attempts: How many attempts there were.
        driver_id: The driver tried last.
        driver_failed: Whether the last attempt failed.
        open_attempt: The attempt that is being made.
        late_attempt: One that was cancelled, and when in nanoseconds since the epoch and of the
            performance counter, as long as it is not known by what.
    """

    __slots__ = (
        "attempts", "driver_failed", "driver_id", "late_attempt", "open_attempt", "stream",
    )  # fmt: skip

    attempts: int
    driver_failed: bool
    driver_id: str | None
    late_attempt: tuple[Attempt, int, int] | None
    open_attempt: Attempt | None
    stream: bool

    def attempting(self, attempt: Attempt, driver_id: object) -> Span | None:
        """Begin a driver's attempt, and its span.

        Args:
            attempt: What is to hold it.
            driver_id: Under which id the kernel looked the driver up.
        """
        if self.late_attempt is not None:
            self.settle_attempts(cancelled=False)
        self.attempts += 1
        name = identifier(driver_id) or ""
        self.driver_id = attempt.told_as = name
        attempt.settled = False
        attempt.span = None
        if self.recording:
            attempt.span = self.open_child(semconv.DRIVER, {semconv.DRIVER_ID: name})
        attempt.began = perf_counter_ns()
        self.open_attempt = attempt
        return attempt.span

    def attempted(self, attempt: Attempt, error: BaseException | None) -> None:
        """End a driver's attempt.

        The kernel's deadline cancels an attempt just as a cancelled invocation does. Which of
        the two it was shows in what the kernel does next, so the attempt waits for that.
        """
        if self.open_attempt is attempt:
            self.open_attempt = None
        if error is None:
            self._settle(attempt, "success")
            return
        outcome = classify(error)
        if outcome.status == "cancelled":
            self.late_attempt = (attempt, time_ns(), perf_counter_ns())
            return
        self.driver_failed = True
        self._settle(attempt, "error", outcome.error_type)

    def _settle(
        self,
        attempt: Attempt,
        status: str,
        error_type: str | None = None,
        ended: int | None = None,
        ended_at: int | None = None,
    ) -> None:
        """Tell how an attempt ended, once.

        Args:
            attempt: The attempt.
            status: How it ended.
            error_type: What it raised.
            ended: When, in nanoseconds of the performance counter; now by default.
            ended_at: The same in nanoseconds since the epoch, for its span.
        """
        if attempt.settled:
            return
        attempt.settled = True
        self.count(self.facts.attempt_cell(attempt.told_as, status, error_type))
        measured = self.instrumentation.measured
        if measured.driver is not None:
            elapsed = (perf_counter_ns() if ended is None else ended) - attempt.began
            measured.driver(attempt.told_as, status, elapsed, self.exemplar)
        if attempt.span is not None:
            late: Attributes = {semconv.STATUS: status}
            if error_type is not None:
                late[semconv.ERROR_TYPE] = error_type
            self.close_child(attempt.span, late, failed=status == "error", end_time=ended_at)

    def settle_attempts(self, *, cancelled: bool) -> None:
        """End the attempts that wait for the invocation to go on or to end.

        Args:
            cancelled: Whether the invocation ends as cancelled, and took the attempt along;
                otherwise it was the kernel's deadline that cancelled the attempt.
        """
        if self.late_attempt is not None:
            attempt, ended_at, ended = self.late_attempt
            self.late_attempt = None
            self.driver_failed = not cancelled
            status, kind = (
                ("cancelled", "CancelledError") if cancelled else ("error", "TimeoutError")
            )
            self._settle(attempt, status, kind, ended, ended_at)
        if self.open_attempt is None:
            return
        attempt, self.open_attempt = self.open_attempt, None
        if cancelled and not self.stream:
            # Torn down with the invocation, which came first.
            self._settle(attempt, "cancelled", "CancelledError")
        else:
            # A stream's driver that the kernel leaves open; the event loop closes it later, or
            # never does. It did what it was asked to.
            self._settle(attempt, "success")
