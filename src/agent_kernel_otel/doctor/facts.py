# SPDX-License-Identifier: Apache-2.0
"""What is so on this machine and in this environment, found out without any network."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry.util._importlib_metadata import entry_points
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from agent_kernel_otel.config import InstrumentationConfig, variable_of
from agent_kernel_otel.config_file import BLOCK, ConfigFile, config_file
from agent_kernel_otel.distro import defaults
from agent_kernel_otel.distro.checks import Unreadable, repair, unreadable
from agent_kernel_otel.distro.selection import Selection, select
from agent_kernel_otel.distro.service import service_name
from agent_kernel_otel.doctor.destinations import Destination, destinations
from agent_kernel_otel.doctor.file_destinations import file_destinations
from agent_kernel_otel.doctor.links_file import with_links_file
from agent_kernel_otel.doctor.masking import UNREADABLE, shown_choice, shown_value
from agent_kernel_otel.doctor.quiet import quiet
from agent_kernel_otel.doctor.settings import FILE, Setting, effective, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_OURS: Final = "agent-kernel-otel"
_ALSO_SHOWN: Final = ("grpcio", "protobuf", "requests", "opentelemetry-configuration")
_GROUPS: Final = (
    "opentelemetry_traces_exporter",
    "opentelemetry_metrics_exporter",
    "opentelemetry_logs_exporter",
    "opentelemetry_traces_sampler",
    "opentelemetry_propagator",
    "opentelemetry_instrumentor",
    "opentelemetry_distro",
    "opentelemetry_configurator",
)
_EXPORTERS: Final = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")
_FILES: Final = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")


@dataclass(frozen=True)
class Package:
    """An installed or missing distribution.

    Attributes:
        name: Its name on the package index.
        version: The version installed, None if it is missing.
        required: The versions that we work with; empty for any.
        optional: Whether all works without it.
    """

    name: str
    version: str | None
    required: str = ""
    optional: bool = False

    @property
    def in_range(self) -> bool:
        """Whether it is installed in a version that we work with."""
        return self.version is not None and SpecifierSet(self.required).contains(
            self.version, prereleases=True
        )


@dataclass(frozen=True)
class Facts:
    """All that the findings are made from.

    Attributes:
        python: Version of the interpreter.
        python_required: The versions that we work with.
        packages: Our package and what it needs.
        kernels: The kernels that we instrument.
        wrapt_is_compiled: Whether wrapt's C extension is loaded.
        selection: Which distro configures, and why.
        environ: The environment as the user has it. Never shown as it is: it holds secrets.
        effective: The same as the exporters see it: with our defaults, and repaired.
        settings: What is in force, masked.
        destinations: Where each signal goes.
        registered: Names of the entry points of each group.
        known_variables: Every variable that OpenTelemetry or we read.
        complaints: What our own settings complain of.
        unreadable: OpenTelemetry's own variables that cannot be read.
        files_without_pem: Variables whose file should hold PEM text, and does not.
        file: The configuration file that takes the place of the variables, if one is named.
    """

    python: str
    python_required: str
    packages: tuple[Package, ...]
    kernels: tuple[Package, ...]
    wrapt_is_compiled: bool
    selection: Selection
    environ: Mapping[str, str] = field(repr=False)
    effective: Mapping[str, str] = field(repr=False)
    settings: tuple[Setting, ...]
    destinations: tuple[Destination, ...]
    registered: Mapping[str, frozenset[str]]
    known_variables: frozenset[str]
    complaints: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    files_without_pem: tuple[str, ...] = ()
    file: ConfigFile | None = field(default=None, repr=False)

    @property
    def is_configured_by_file(self) -> bool:
        """Whether a configuration file takes the place of the variables."""
        return self.file is not None

    def value(self, variable: str) -> str:
        """A variable's value in force, without what surrounds it; empty where it is not set."""
        return self.effective.get(variable, "").strip()


def gather(environ: Mapping[str, str], command: Sequence[str] = ()) -> Facts:
    """Everything that can be told of an environment.

    Args:
        environ: The environment as the user has it.
        command: The command line of the interpreter that runs the app, where that is known.
    """
    with quiet():
        return _gather(environ, command)


def _gather(environ: Mapping[str, str], command: Sequence[str]) -> Facts:
    selection = select(environ)
    applied = effective(environ, ours=selection.our_defaults)
    file = config_file(environ)
    found = tuple(unreadable(applied)) if file is None else ()
    shown = (
        *settings(environ, ours=selection.our_defaults, name=service_name(command, environ)),
        *_settings_in(file),
    )
    if selection.ours and file is None:
        repair(applied)
    packages, kernels = _packages()
    config, complaints = _resolved(environ)
    return Facts(
        python=platform.python_version(),
        python_required=_python_required(),
        packages=packages,
        kernels=kernels,
        wrapt_is_compiled=_wrapt_is_compiled(),
        selection=selection,
        environ=environ,
        effective=applied,
        settings=_marked(shown, {one.variable for one in found}),
        destinations=with_links_file(_destinations(applied, selection, file), config.links_file),
        registered={
            group: frozenset(point.name for point in entry_points(group=group)) for group in _GROUPS
        },
        known_variables=frozenset(_known_variables()),
        complaints=complaints,
        unreadable=found,
        files_without_pem=_files_without_pem(applied),
        file=file,
    )


def _destinations(
    applied: Mapping[str, str], selection: Selection, file: ConfigFile | None
) -> tuple[Destination, ...]:
    if file is not None:
        return file_destinations(file, applied)
    if not selection.ours and not any(defaults.is_set(applied, name) for name in _EXPORTERS):
        return ()  # who configures has defaults of its own
    return destinations(applied)


def _marked(shown: Sequence[Setting], bad: Collection[str]) -> tuple[Setting, ...]:
    return tuple(replace(one, value=UNREADABLE) if one.name in bad else one for one in shown)


def _settings_in(file: ConfigFile | None) -> tuple[Setting, ...]:
    """Our own settings in a configuration file."""
    options = file.block.options if file is not None and file.block is not None else {}
    return tuple(
        Setting(f"{BLOCK}.{name}", shown_value(variable_of(str(name)), str(value)), FILE)
        for name, value in options.items()
    )


def _packages() -> tuple[tuple[Package, ...], tuple[Package, ...]]:
    needed: list[Package] = [_package(Requirement(_OURS))]
    kernels: list[Package] = []
    with suppress(PackageNotFoundError):
        for line in distribution(_OURS).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None:
                needed.append(_package(requirement))
            elif requirement.name.startswith("opentelemetry-"):
                needed.append(_package(requirement, optional=True))
            elif requirement.marker.evaluate({"extra": "instruments"}):
                kernels.append(_package(requirement))
    needed += [_package(Requirement(name), optional=True) for name in _ALSO_SHOWN]
    return tuple({one.name: one for one in needed}.values()), tuple(kernels)


def _package(requirement: Requirement, *, optional: bool = False) -> Package:
    installed = None
    with suppress(PackageNotFoundError):
        installed = version(requirement.name)
    return Package(requirement.name, installed, str(requirement.specifier), optional)


def _python_required() -> str:
    with suppress(PackageNotFoundError):
        return distribution(_OURS).metadata["Requires-Python"] or ""
    return ""


def _wrapt_is_compiled() -> bool:
    with suppress(ImportError):
        import wrapt  # noqa: F401 - what is looked at is what it loads
    return "wrapt._wrappers" in sys.modules


def _known_variables() -> Iterator[str]:
    for point in entry_points(group="opentelemetry_environment_variables"):
        with suppress(Exception):
            names = vars(point.load())
            yield from (str(names[name]) for name in names if "OTEL_" in name)


def _resolved(environ: Mapping[str, str]) -> tuple[InstrumentationConfig, tuple[str, ...]]:
    with _listening("agent_kernel_otel.config") as said:
        config = InstrumentationConfig.resolve(environ=environ)
    return config, tuple(map(shown_choice, said))


@contextmanager
def _listening(name: str) -> Iterator[list[str]]:
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, listener = logging.getLogger(name), Listener()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate


def _files_without_pem(environ: Mapping[str, str]) -> tuple[str, ...]:
    signals = ("", "TRACES_", "METRICS_", "LOGS_")
    found = []
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}{name}" for signal in signals for name in _FILES):
        path = environ.get(variable, "").strip()
        with suppress(OSError, ValueError):
            if path and b"-----BEGIN" not in Path(path).read_bytes():
                found.append(variable)
    return tuple(found)
