# SPDX-License-Identifier: Apache-2.0
"""The run-time switch: which spans the process makes from now on, whatever was configured."""

from __future__ import annotations

from threading import RLock
from typing import Final

from agent_kernel_otel.config import InstrumentationConfig


class SpanLevelSwitch:
    """The span level that was set while the process runs.

    Attributes:
        level: That level; ``None`` leaves each kernel the one that it was configured with.
    """

    def __init__(self) -> None:
        self.level: str | None = None
        # Reentrant, because a signal handler of the app's may interrupt a call in its own thread.
        self._lock = RLock()

    def turn(self, level: str | None) -> str | None:
        """Set the level, and return the one before."""
        with self._lock:
            previous, self.level = self.level, level
        return previous


span_level_switch: Final = SpanLevelSwitch()


def set_span_level(level: str | None) -> str | None:
    """Switch spans off, on or to more detail while the process runs.

    It holds at once, for every kernel of the process, those instrumented later included, whatever
    level they were configured with, and until it is called again. Operations that run already
    end as they began. Log events go on at ``off``. Where nothing is instrumented yet it holds from
    the first instrumentation on. It can be called from any thread and from a signal handler::

        previous = set_span_level("off")
        ...
        set_span_level(previous)

    Args:
        level: ``off``, ``info`` or ``debug``; ``None`` gives each kernel its configured level back.

    Returns:
        The level that an earlier call had set, ``None`` if none had.

    Raises:
        ConfigurationError: The level is none of these.
    """
    if level is not None:
        level = InstrumentationConfig(span_level=level).span_level
    return span_level_switch.turn(level)
