# SPDX-License-Identifier: Apache-2.0
"""The file of OpenTelemetry's declarative configuration, and our settings in it.

``OTEL_CONFIG_FILE`` names it, and the distribution ``opentelemetry-configuration`` reads it. It is
read once in a process; what is wrong with it is kept as one sentence, for whoever acts on it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from agent_kernel_otel.scrub import scrub_text

_logger = logging.getLogger(__name__)

VARIABLE: Final = "OTEL_CONFIG_FILE"
BLOCK: Final = "weaver_kernel"
"""The name of our instrumentor in the entry points, under which the file has our settings."""
PLACE: Final = f"instrumentation/development.python.{BLOCK}"

_LOADER: Final = "opentelemetry.configuration.file._loader"
_LONGEST_CAUSE: Final = 300
_HARMLESS: Final = frozenset({"additionalProperties", "required"})
"""Rules of the schema whose message repeats keys of the file only, and no values."""


@dataclass(frozen=True)
class Block:
    """Our settings in a file.

    Attributes:
        source: The file, for messages.
        options: The settings as the file has them; nothing is checked yet.
    """

    source: str
    options: Mapping[str, Any]


@dataclass(init=False)
class Declared:
    """Our settings as OpenTelemetry hands them over where it reads the file itself.

    An instrumentor with such a class as its ``configuration`` is given the class's fields by
    keyword. This one has a single field, so that they come together and as the file has them.
    """

    declared: Mapping[str, Any]

    def __init__(self, /, **options: Any) -> None:
        self.declared = options

    @staticmethod
    def as_block(options: Mapping[str, Any]) -> Block:
        """What the field holds, with the file that it is from."""
        return Block(os.environ.get(VARIABLE, "").strip() or "declarative configuration", options)


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file as it was read.

    Attributes:
        path: As the variable has it.
        model: What OpenTelemetry made of it; ``None`` where it could not.
        problem: Why it could not, in one sentence that names the path.
    """

    path: str
    model: Any = None
    problem: str | None = None

    @property
    def block(self) -> Block | None:
        """Our settings; ``None`` where the file has none."""
        instrumentation = getattr(self.model, "instrumentation_development", None)
        blocks = getattr(instrumentation, "python", None) or {}
        options = blocks.get(BLOCK)
        return Block(self.path, options) if isinstance(options, Mapping) else None

    @property
    def unknown(self) -> list[str]:
        """The keys at the top of the file that OpenTelemetry does not know, and ignores."""
        return list(getattr(self.model, "additional_properties", None) or ())


def config_file(environ: Mapping[str, str] | None = None) -> ConfigFile | None:
    """The file that the variable names; ``None`` where it is not set.

    Args:
        environ: Where the variable is looked up; the process's by default.
    """
    path = (os.environ if environ is None else environ).get(VARIABLE, "").strip()
    return _read(path) if path else None


def tell_of_problem(file: ConfigFile, consequence: str) -> None:
    """Log why a file cannot be used; once for each file, whoever comes first.

    Args:
        file: One with a problem.
        consequence: What is done instead.
    """
    if file.path not in _told_of:
        _told_of.add(file.path)
        _logger.error("%s; %s", file.problem, consequence)


_told_of: set[str] = set()


def explain(error: BaseException) -> str:
    """The cause of a failure of OpenTelemetry's, in one line and without the values in the file."""
    origin: Any = (
        error.__cause__ or error
    )  # of libraries that may be absent, told by what they have
    mark = getattr(origin, "problem_mark", None)
    if mark is not None:  # of the YAML parser, whose own text quotes the file
        text = f"line {mark.line + 1}, column {mark.column + 1}: {origin.problem}"
    elif isinstance(origin, OSError):
        text = origin.strerror or type(origin).__name__
    elif hasattr(origin, "validator_value"):  # of the schema, likewise
        place = ".".join(map(str, origin.absolute_path)) or "the file"
        rule = origin.validator
        expected = f"expected {rule} {origin.validator_value}"
        text = f"{place}: {origin.message if rule in _HARMLESS else expected}"
    else:
        text = str(error) or type(error).__name__
    return scrub_text(" ".join(text.split()))[:_LONGEST_CAUSE]


@cache
def _read(path: str) -> ConfigFile:
    try:
        # Here, because it is an extra and costly to import.
        from opentelemetry.configuration import load_config_file  # noqa: PLC0415
    except ImportError:
        return ConfigFile(
            path,
            problem=f"{VARIABLE}={path} needs opentelemetry-configuration, which is not "
            "installed: pip install 'agent-kernel-otel[config]'",
        )
    if not Path(path).is_file():
        what = "it is not a file" if Path(path).exists() else "there is no such file"
        return ConfigFile(path, problem=f"{VARIABLE}={path} cannot be used: {what}")
    try:
        with _silent(_LOADER):
            return ConfigFile(path, load_config_file(path))
    except Exception as error:
        return ConfigFile(path, problem=f"{VARIABLE}={path} cannot be used: {explain(error)}")


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep errors out of a logger that are raised as well, and reported on by us."""

    def below_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    logger = logging.getLogger(name)
    logger.addFilter(below_error)
    try:
        yield
    finally:
        logger.removeFilter(below_error)
