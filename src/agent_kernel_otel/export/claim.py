# SPDX-License-Identifier: Apache-2.0
"""That one export at a time uses a checkpoint: two would send the same records, and both be told so."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

fcntl: Any = None
with suppress(ImportError):  # Windows has other locks
    import fcntl


_FLAGS: Final = (
    os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)


class NoLockError(Exception):
    """What is in the lock's place is somebody's file; the message is its path."""


def lock_of(path: Path) -> Path:
    """The lock of a checkpoint: a file beside it, because saving replaces the checkpoint."""
    return Path(f"{path}.lock")


class Claim:
    """Holds a checkpoint for this process; it is let go of at the latest when that ends.

    Args:
        path: The checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._path = lock_of(path)
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether nobody else has it.

        Raises:
            NoLockError: Another file has the lock's name.
            OSError: The lock cannot be made.
        """
        if fcntl is None:
            return True
        while True:
            if self._path.is_symlink() or self._path.is_dir():
                raise NoLockError(self._path)
            descriptor = os.open(self._path, _FLAGS, 0o600)
            if not _is_lock(descriptor):
                os.close(descriptor)
                raise NoLockError(self._path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    self._descriptor = descriptor
                    return True
            os.close(descriptor)  # who had it has removed it meanwhile

    def release(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            with suppress(OSError):
                if _is_lock(self._descriptor):
                    self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None


def _is_lock(descriptor: int) -> bool:
    """Whether a file can be a lock, which is empty: what has content is never removed."""
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and not status.st_size
