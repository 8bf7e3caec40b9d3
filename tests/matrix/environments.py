# SPDX-License-Identifier: Apache-2.0
"""Cached virtual environments in which this package meets other releases and interpreters.

An environment holds everything but this package, so that one made once serves every commit.
The package under test is installed anew into a directory of its own, which goes first on
``PYTHONPATH``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "agent-kernel-otel"
SUPPORTED = ((3, 10), (3, 11), (3, 12), (3, 13))
_DESCRIBE = "import sys; print(*sys.version_info[:3], sys.implementation.cache_tag)"


class CommandFailedError(RuntimeError):
    """A command that must succeed did not; the message holds its output."""


def run(command: Iterable[str | Path]) -> str:
    """Run a command that must succeed, and return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandFailedError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def cache() -> Path:
    """Where environments and downloads are kept between runs."""
    default = Path.home() / ".cache" / PACKAGE
    directory = Path(os.environ.get("AGENT_KERNEL_OTEL_CACHE") or default)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def version_of(python: str | Path) -> tuple[int, int] | None:
    """The (major, minor) version of an interpreter, or ``None`` where it does not run."""
    try:
        major, minor, *_ = run([python, "-c", _DESCRIBE]).split()
    except (CommandFailedError, OSError):
        return None  # a shim of a version manager may exist without an interpreter behind it
    return int(major), int(minor)


def interpreters() -> dict[tuple[int, int], Path]:
    """One interpreter that runs for each supported version that this machine has."""
    found = {}
    for version in SUPPORTED:
        for candidate in _candidates(f"python{version[0]}.{version[1]}"):
            if version_of(candidate) == version:
                found[version] = candidate
                break
    return found


def interpreter(wanted: str) -> Path:
    """The interpreter that ``3.12``, a command or a path names."""
    if re.fullmatch(r"3\.\d+", wanted):
        version = (3, int(wanted[2:]))
        candidates = _candidates(f"python{wanted}")
        found = next((path for path in candidates if version_of(path) == version), None)
    else:
        path = shutil.which(wanted)
        found = Path(path) if path and version_of(path) else None
    if found is None:
        raise SystemExit(f"no interpreter {wanted} that runs was found")
    return found


def _candidates(name: str) -> Iterator[Path]:
    if version_of(sys.executable) == tuple(int(part) for part in name[6:].split(".")):
        yield Path(sys.executable)
    for directory in os.get_exec_path():
        yield from Path(directory).glob(name)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/*/bin/{name}"))


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_wheel(into: Path) -> Path:
    """Build this package, and return its wheel."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", into, ROOT])
    return next(into.glob("*.whl"))


def install_package(wheel: Path, into: Path) -> Path:
    """Install only the package under test; the directory goes on ``PYTHONPATH``."""
    # Named like an installation, because Hypothesis draws on the literals of all other code.
    target = into / "site-packages"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-t", target, wheel])
    return target


def _dependencies(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    return [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]


def environment(name: str, python: Path, wheel: Path, requirements: Iterable[str]) -> Path:
    """The interpreter of an environment with the wheel's dependencies and the requirements.

    Args:
        name: Starts the name of the environment's directory.
        python: The interpreter to make it with.
        wheel: This package, whose dependencies are installed and which is not.
        requirements: What else to install.

    Returns:
        The environment's own interpreter.
    """
    requirements = [*requirements]
    described = run([python, "-c", _DESCRIBE])
    content = "\n".join([described, *_dependencies(wheel), *requirements]).encode()
    directory = cache() / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    own = directory / "bin" / "python"
    complete = directory / ".complete"
    with _only_one(directory):
        if not complete.exists():
            run([python, "-m", "venv", "--clear", directory])
            run([own, "-m", "pip", "install", "--quiet", wheel, *requirements])
            run([own, "-m", "pip", "uninstall", "--quiet", "--yes", PACKAGE])
            complete.touch()
    return own
