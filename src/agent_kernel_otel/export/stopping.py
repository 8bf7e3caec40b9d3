# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM: where they may interrupt, and where they have to wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The process was asked to stop. No handler of errors may take it for one."""


class Stopping:
    """Notes that the process is asked to stop, within its ``with`` block.

    The first time only what :meth:`at_once` surrounds is interrupted, such as waiting for input.
    The second time everything is.

    Attributes:
        number: The signal that asked for it; ``None`` if none has.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._may_interrupt = False
        self._is_over = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        with suppress(ValueError):  # not in the main thread, which alone is sent signals
            for number in _SIGNALS:
                # A job in the background is not to be ended by a Ctrl-C that is meant for another.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """What a shell takes for having been stopped by that signal."""
        return 128 + (self.number or 0)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that the first signal interrupts.

        Raises:
            Stopped: There was one.
        """
        self._may_interrupt = True
        try:
            if self.number is not None:
                raise Stopped
            yield
        finally:
            self._may_interrupt = False

    def over(self) -> None:
        """From here on nothing is interrupted: there is only the summary left."""
        self._is_over = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as called
        is_first = self.number is None
        self.number = self.number or number
        if self._is_over or (is_first and not self._may_interrupt):
            return
        self._may_interrupt = False
        self._is_over = not is_first
        raise Stopped
