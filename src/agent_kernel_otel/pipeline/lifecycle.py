# SPDX-License-Identifier: Apache-2.0
"""The pipelines of the process through its life: flushing, SIGTERM, forking, and the end.

What is promised: whatever the receiver does, the process ends within two seconds of its own end,
with its own exit code; SIGTERM does what it did before; a forked child neither hangs nor sends
what is its parent's; and all that was not sent is counted.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import wrapt

from agent_kernel_otel.faults import faults
from agent_kernel_otel.pipeline.ledger import METRICS, ledger
from agent_kernel_otel.pipeline.notices import notices
from agent_kernel_otel.pipeline.worker import GRACE, Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from agent_kernel_otel.pipeline.wire import Wire


FORK_WAIT: Final = 0.25
"""Seconds that a fork waits for requests in flight before they are interrupted, and again after."""
_TO_SUM_UP: Final = 0.7
"""Seconds that SIGTERM is held up at most, after the time for sending, on a busy machine."""
_AFTER_ALL_OTHERS: Final = -1000
"""Priority among the finalizers of a child of ``multiprocessing``."""


class Lifecycle:
    """All pipelines of this process.

    Attributes:
        exit_timeout: Seconds that the end of the process may be held up.
        pipelines: Those in use.
    """

    def __init__(self) -> None:
        self.exit_timeout = 1.2
        self.pipelines: list[Pipeline] = []
        self._in_child: list[Callable[[], Any]] = []
        self._at_end: list[Callable[[], Any]] = []
        self._installed = False
        self._forks_are_attended = False
        self._sigterm: Any = signal.SIG_DFL
        self._ending = threading.Lock()
        self._is_ending = False
        self._late_sigterm: tuple[int, FrameType | None] | None = None

    def add(self, pipeline: Pipeline) -> None:
        """Take care of a pipeline from now on."""
        self.pipelines.append(pipeline)
        if not self._installed:
            self._installed = True
            atexit.register(self.end)
            wrapt.register_post_import_hook(self._attend_children, "multiprocessing.util")
            self._attend_sigterm()
        self._attend_forks()

    def come_first(self) -> None:
        """Have the pipelines closed before the providers end, who do so one after another."""
        if self._installed:
            atexit.unregister(self.end)
            atexit.register(self.end)

    def in_child(self, action: Callable[[], Any]) -> None:
        """Have something done in every forked child."""
        self._in_child.append(action)
        self._attend_forks()

    def at_end(self, action: Callable[[], Any]) -> None:
        """Have something done at the end, when it is known what became of everything."""
        self._at_end.append(action)

    def started(self) -> None:
        """Collect metrics once at the start, so that a job of a second is seen to begin at 0."""
        for pipeline in self.pipelines:
            if pipeline.delivery.account.signal == METRICS:
                pipeline.wake()

    def flush(self, timeout: float) -> bool:
        """Send all that there is.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether all of it was sent, and acknowledged, in that time.
        """
        deadline = time.monotonic() + timeout
        lost = _lost()
        requests = [pipeline.begin_flush() for pipeline in self.pipelines]
        return all(request.wait(deadline) for request in requests) and _lost() == lost

    def end(self) -> None:
        """Send what is left within ``exit_timeout``, and sum up what was lost. Once only."""
        if not self._ending.acquire(blocking=False):
            return
        self._is_ending = True
        try:
            self._close()
            notices.summarize()
            for action in self._at_end:
                action()
        except Exception:
            faults.swallow("ending telemetry")
        finally:
            self._is_ending = False
        late = self._late_sigterm
        if late is not None and threading.current_thread() is threading.main_thread():
            self._late_sigterm = None
            self._pass_on(*late)

    def _close(self) -> None:
        now = time.monotonic()
        deadline = now + self.exit_timeout
        # Metrics come last, because they tell what became of the others.
        metrics = [p for p in self.pipelines if p.delivery.account.signal == METRICS]
        others = [p for p in self.pipelines if p not in metrics]
        for pipeline in others:
            pipeline.begin_close()
        for pipeline in others:
            pipeline.wait(now + self.exit_timeout / 2 if metrics else deadline)
        for pipeline in metrics:
            pipeline.begin_close()
        for pipeline in self.pipelines:
            pipeline.wait(deadline)
        for pipeline in self.pipelines:
            pipeline.interrupt()
        grace = time.monotonic() + GRACE
        for pipeline in self.pipelines:
            pipeline.conclude(grace)

    # --- SIGTERM ---

    def _attend_sigterm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._sigterm = signal.getsignal(signal.SIGTERM)
        # None is a handler that was not set by Python; who ignores the signal goes on to do so.
        if self._sigterm not in {None, signal.SIG_IGN}:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        if self._is_ending:
            # It interrupts just what it would begin, and is passed on when that is done.
            self._late_sigterm = signum, frame
            return
        # The first process of a container is not ended by a signal, and an app's own handler
        # takes its time: what they do meanwhile is still to be sent.
        goes_on = callable(self._sigterm) or os.getpid() == 1
        action = (lambda: self.flush(self.exit_timeout)) if goes_on else self.end
        # From here on, and not only when the thread gets to it: another signal would find the end
        # begun, and end the process.
        self._is_ending = not goes_on
        # The main thread may hold any lock right now, such as that of a log handler.
        thread = threading.Thread(target=action, name="OtelSigterm", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            _safely(action)  # Python 3.12.0 and 3.12.1 start none once exit handlers run
        else:
            thread.join(self.exit_timeout + _TO_SUM_UP)
        self._pass_on(signum, frame)

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        if callable(self._sigterm):
            self._sigterm(signum, frame)
        else:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    # --- fork ---

    def _attend_forks(self) -> None:
        if self._forks_are_attended or not hasattr(os, "register_at_fork"):
            return
        self._forks_are_attended = True
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._after_fork_in_child,
        )

    def _before_fork(self) -> None:
        wires = [pipeline.delivery.wire for pipeline in self.pipelines]
        _safely(lambda: _hold([wire for wire in _hold(wires) if wire.interrupt()]))
        _safely(lambda: notices.hold(FORK_WAIT))

    def _after_fork_in_parent(self) -> None:
        _safely(notices.release)
        for pipeline in self.pipelines:
            _safely(pipeline.delivery.wire.after_fork_in_parent)

    def _after_fork_in_child(self) -> None:
        self._ending = threading.Lock()
        self._is_ending = False
        self._late_sigterm = None
        notices.reset()
        for action in self._in_child:
            _safely(action)
        for pipeline in self.pipelines:
            _safely(pipeline.after_fork_in_child)

    def _attend_children(self, util: Any) -> None:
        # Such a child ends without the interpreter's own exit handlers, and forgets at its start
        # whatever finalizers its parent had.
        util.register_after_fork(
            self,
            lambda lifecycle: util.Finalize(None, lifecycle.end, exitpriority=_AFTER_ALL_OTHERS),
        )


def _hold(wires: Sequence[Wire]) -> list[Wire]:
    """Those that cannot be held within the time that all have together."""
    deadline = time.monotonic() + FORK_WAIT
    return [wire for wire in wires if not wire.hold(deadline)]


def _safely(action: Callable[[], Any]) -> None:
    try:
        action()
    except Exception:
        faults.swallow("forking a process")


def _lost() -> int:
    return sum(totals.lost for totals in ledger.snapshot().values())


lifecycle: Final = Lifecycle()
"""The life of this process."""


def started() -> None:
    """Called by the loader when all instrumentations are active."""
    lifecycle.started()
