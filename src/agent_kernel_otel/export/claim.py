# SPDX-License-Identifier: Apache-2.0
"""That one export at a time uses a checkpoint: two would send the same records, and both be told so."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

fcntl: Any = None
with suppress(ImportError):  # Windows has other locks
    import fcntl


class Claim:
    """Holds a checkpoint for this process; it is let go of at the latest when that ends.

    Args:
        path: The checkpoint. The lock is a file beside it, because saving replaces the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f"{path.name}.lock")
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether nobody else has it.

        Raises:
            OSError: The lock cannot be made.
        """
        if fcntl is None:
            return True
        while True:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
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
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None
