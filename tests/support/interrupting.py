# SPDX-License-Identifier: Apache-2.0
"""Signal handlers that interrupt a test again and again."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

needs_timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no timers"
)
PAUSE = 0.0005
"""Seconds from the end of one interruption to the next."""


@contextmanager
def interrupted_by(handle: Callable[[], Any]) -> Iterator[None]:
    """A block that a signal handler interrupts again and again, in which nothing interrupts itself.

    A timer that went on by itself would interrupt the handler too: on a busy machine, where a
    handler takes longer than a pause, without end.
    """

    def interrupt(*_: Any) -> None:
        handle()
        signal.setitimer(signal.ITIMER_REAL, PAUSE)

    # A callback of the garbage collector (Hypothesis has one) lets signals be handled in the midst
    # of ContextVar.set(), which CPython does not survive before 3.12 (python/cpython#148891).
    gc.disable()
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, PAUSE)
    try:
        yield
    finally:
        # In this order, because each interruption arms the timer anew.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
