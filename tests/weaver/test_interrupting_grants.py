# SPDX-License-Identifier: Apache-2.0
"""What remembers grants, whatever interrupts it: a signal handler that grants, and a fork."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from weaver_kernel import PolicyDecision

from agent_kernel_otel.weaver.activation import active
from tests.support.instrumented import instrumented
from tests.support.interrupting import interrupted_by, needs_timers
from tests.support.kernels import grant, make_kernel

INTERRUPTIONS = 200


@needs_timers
def test_a_signal_handler_may_grant_on_another_kernel() -> None:
    interruptions = 0

    def handle() -> None:
        nonlocal interruptions
        interruptions += 1
        grant(other)

    # Without spans, because the SDK's own locks are not made for this.
    with instrumented(ALWAYS_OFF):
        one, other = make_kernel(policy=_Lenient()), make_kernel(policy=_Lenient())
        with interrupted_by(handle):
            while interruptions < INTERRUPTIONS:
                grant(one)


def test_a_child_forked_while_a_thread_remembers_a_grant_can_grant() -> None:
    with instrumented():
        kernel = make_kernel(policy=_Lenient())
        grants = active(kernel).grants  # type: ignore[union-attr]
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with grants._lock:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # ends a child that hangs
            grant(kernel)
            os._exit(7)
        done.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


class _Lenient:
    """A policy engine without a rate limit."""

    def evaluate(self, *_: Any, **__: Any) -> Any:
        return PolicyDecision(allowed=True, reason="", constraints={})
