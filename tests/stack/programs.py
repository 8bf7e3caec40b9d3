# SPDX-License-Identifier: Apache-2.0
"""Programs that run until they are told to end, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.request import urlopen

from tests.distro.zero_code import environment
from tests.support.scraped import HANGS_AFTER

if TYPE_CHECKING:
    from typing_extensions import Self

_GRACE: Final = 30.0


class Program:
    """A running program, ready when entered; a context manager.

    Args:
        name: Its name, for its log and for people.
        command: How to start it.
        folder: Where its log is written.
        variables: What to add to the environment.
        ready: The address that answers when it is ready, if it has one.
        cwd: Its working directory.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        variables: Mapping[str, str] | None = None,
        ready: str | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = folder / f"{name}.log"
        self._variables = environment(**(variables or {}))
        self._ready = ready
        self._cwd = cwd or folder

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self._ready is None else log,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for whoever ends all of them in order
            )
        try:
            self._wait_until_ready()
        except BaseException:  # Ctrl-C too: nobody else would end it
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def ended(self) -> bool:
        """Whether it is over, though nobody has ended it."""
        return self._process.poll() is not None

    def end(self) -> int:
        """Have it end in good order, or else end it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        return self._process.wait()

    def hear(self) -> str:
        """The next line that it says, where it is not asked whether it is ready."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def tell(self, line: str) -> str:
        """Have it do something, and hear what it says when it has."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.hear()

    def log(self) -> str:
        """What it has said of itself."""
        return self._log.read_text(errors="replace")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + HANGS_AFTER
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.log()[-3000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        if self._ready is None:
            return True
        try:
            with urlopen(self._ready, timeout=5):  # nothing but http is asked for
                return True
        except (URLError, OSError):
            return False
