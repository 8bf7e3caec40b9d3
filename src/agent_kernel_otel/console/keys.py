# SPDX-License-Identifier: Apache-2.0
"""Single key presses, where the terminal can give them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def pressed_keys(on_key: Callable[[str], None]) -> Iterator[bool]:
    """Calls back for each key while the context lasts; Ctrl-C still interrupts.

    Args:
        on_key: Takes one character; called from a thread of its own.

    Yields:
        Whether keys can be read: there is a terminal and this process is in its foreground.
    """
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        # A process in the background would be stopped for changing the terminal.
        in_foreground = os.tcgetpgrp(descriptor) == os.getpgrp()
    except Exception:
        # No terminal, in one of the many ways of saying so.
        in_foreground = False
    if not in_foreground:
        yield False
        return
    tty.setcbreak(descriptor)
    reader = threading.Thread(
        target=_read, args=(descriptor, on_key), name="console-keys", daemon=True
    )
    reader.start()
    try:
        yield True
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int, on_key: Callable[[str], None]) -> None:
    with contextlib.suppress(OSError):
        while pressed := os.read(descriptor, 1):
            on_key(pressed.decode("ascii", "replace"))
