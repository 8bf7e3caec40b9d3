# SPDX-License-Identifier: Apache-2.0
"""What the service is called where nobody has named it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agent_kernel_otel.scrub import identifier

INHERITED: Final = "AGENT_KERNEL_OTEL_SERVICE_NAME"
"""Variable by which a process tells those that ``multiprocessing`` starts what it is called."""

_CHILD: Final = re.compile(r"^from multiprocessing\.(spawn|forkserver) import ")
_HELPER: Final = re.compile(r"^from multiprocessing\.resource_tracker import ")
_PROGRAM_SUFFIXES: Final = frozenset({".py", ".pyw", ".pyc", ".pyz", ".zip", ".exe"})


def service_name(command: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """A service name from the script or module being run.

    The program's own arguments are never looked at: they may hold secrets.

    Args:
        command: The command line of the interpreter, ``sys.orig_argv``.
        environ: Where a process that ``multiprocessing`` starts finds its parent's name.

    Returns:
        The script's name without its suffix, the module's full name, or for a ``__main__`` that
        of its folder or package; ``None`` for code from ``-c``, a pipe or a terminal.
    """
    if _CHILD.search(_code_of(command)):
        return identifier(environ.get(INHERITED, "")) or None
    return _name_of_program(command)


def is_helper(command: Sequence[str]) -> bool:
    """Whether this is a process of ``multiprocessing``'s own, in which no code of the app runs."""
    return bool(_HELPER.search(_code_of(command)))


def _code_of(command: Sequence[str]) -> str:
    """The code that follows ``-c``, as ``multiprocessing`` writes it."""
    options = list(command[1:])
    return options[options.index("-c") + 1] if "-c" in options[:-1] else ""


def _name_of_program(command: Sequence[str]) -> str | None:
    arguments = iter(command[1:])
    for argument in arguments:
        if argument == "-":
            return None
        if argument == "--check-hash-based-pycs":
            next(arguments, None)
        if argument.startswith("--"):
            continue
        if not argument.startswith("-"):
            return _name_of_script(argument)
        # Options of one letter may be written together; -m and -c end the interpreter's own.
        for at, option in enumerate(argument[1:], start=2):
            value = argument[at:]
            if option == "c":
                return None
            if option == "m":
                return _name_of_module(value or next(arguments, ""))
            if option in "WX":
                if not value:
                    next(arguments, None)
                break
    return None


def _name_of_module(module: str) -> str | None:
    return identifier(module.removesuffix(".__main__")) or None


def _name_of_script(script: str) -> str | None:
    path = Path(script)
    if path.stem in {"", "__main__"}:
        path = path.absolute()
        if path.stem == "__main__":
            path = path.parent
    return identifier(path.stem if path.suffix in _PROGRAM_SUFFIXES else path.name) or None
