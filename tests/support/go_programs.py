# SPDX-License-Identifier: Apache-2.0
"""Programs that are built from their source in Go once, and kept outside the repository.

The name under which one is kept is made from its recipe, so that Go is needed only where that has
changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.matrix.environments import CommandFailedError, cache

_REQUIREMENTS: Final = Path(__file__).with_name("go.txt")
_OTHER_PLACES: Final = (str(Path(sys.executable).parent), "/usr/local/go/bin")
"""Where a wheel puts Go, and where its own instructions do; neither need be in the ``PATH``."""

_NO_GO: Final = """\
{name} is built from source and needs Go 1.25 or newer, which was not found. Install it from
https://go.dev/doc/install, or (Linux, x86-64) by:
    {python} -m pip install --require-hashes -r {requirements}"""


class Workshop:
    """Where a program is built.

    Attributes:
        folder: Empty at first, and removed in the end.
    """

    def __init__(self, go: str, folder: Path) -> None:
        self._go = go
        self.folder = folder

    def go(self, *arguments: str, folder: Path | None = None, **variables: str) -> str:
        """Run Go, and return what it printed.

        Args:
            arguments: Those of Go.
            folder: In which folder; the workshop's by default.
            variables: What to add to the environment.
        """
        return self.run(
            self._go, *arguments, folder=folder, **{"GOFLAGS": "-buildvcs=false", **variables}
        )

    def run(self, *command: str, folder: Path | None = None, **variables: str) -> str:
        """Run any command, as :meth:`go` does.

        Raises:
            CommandFailedError: It failed; the message holds what it printed.
        """
        done = subprocess.run(
            command,
            cwd=folder or self.folder,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandFailedError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout


def built(name: str, recipe: bytes, make: Callable[[Workshop], Path], *options: str) -> Path:
    """A program, built if it is missing.

    Args:
        name: The program's.
        recipe: All that decides what is built.
        make: Gets the source, and returns the folder of the command to build.
        options: Further ones of ``go build``.

    Raises:
        SystemExit: Go is missing, or the build failed; the message says what to do.
    """
    key = hashlib.sha256(recipe).hexdigest()[:16]
    binary = cache() / f"{name}-{platform.system()}-{platform.machine()}-{key}".lower()
    with binary.with_name(f"{binary.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(name, binary, make, options)
    return binary


def _build(
    name: str, binary: Path, make: Callable[[Workshop], Path], options: tuple[str, ...]
) -> None:
    go = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", ""), *_OTHER_PLACES]))
    if go is None:
        raise SystemExit(
            _NO_GO.format(name=name, python=sys.executable, requirements=_REQUIREMENTS)
        )
    print(f"building {name}, which takes some minutes ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        workshop = Workshop(go, Path(folder))
        made = workshop.folder / "made"
        try:
            source = make(workshop)
            workshop.go(
                *("build", "-trimpath", "-ldflags=-s -w", "-o", str(made), *options, "."),
                folder=source,
                CGO_ENABLED="0",
            )
        except CommandFailedError as error:
            raise SystemExit(f"{name} could not be built\n{error}") from error
        unfinished = binary.with_name(f"{binary.name}.unfinished")
        shutil.copy(made, unfinished)
        unfinished.rename(binary)
