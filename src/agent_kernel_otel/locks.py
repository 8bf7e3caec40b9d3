# SPDX-License-Identifier: Apache-2.0
"""Locks for what is rarely done, that neither a fork nor an interruption can turn into a deadlock."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from threading import RLock
from typing import Final


class SafeLock:
    """Can be taken again by who holds it, such as a finalizer or a signal handler in its midst.

    A forked child finds it free, whichever thread of its parent's held it.
    """

    def __init__(self) -> None:
        self.renew()
        _all.add(self)

    def renew(self) -> None:
        """Be free."""
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        with suppress(RuntimeError):  # in a child that was forked meanwhile
            self._lock.release()


_all: Final[weakref.WeakSet[SafeLock]] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_all):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
