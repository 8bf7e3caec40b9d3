# SPDX-License-Identifier: Apache-2.0
"""Who configures OpenTelemetry in this process, and why.

``opentelemetry-instrument`` takes the first distro and the first configurator that it finds, and
the order in which it finds them is that of ``sys.path`` and, within a folder, of the file system:
nobody's choice. Here is what holds instead. ``OTEL_PYTHON_DISTRO`` and ``OTEL_PYTHON_CONFIGURATOR``
decide where they are set. Otherwise another vendor's distro that is installed beside ours
configures, whatever the order; of several, the first that is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from opentelemetry.instrumentation.environment_variables import (
    OTEL_PYTHON_CONFIGURATOR,
    OTEL_PYTHON_DISTRO,
)
from opentelemetry.util._importlib_metadata import EntryPoint, entry_points

from agent_kernel_otel.distro.defaults import ENTRY_POINT, is_disabled

OURS: Final = "agent-kernel-otel"
_OUR_PACKAGE: Final = "agent_kernel_otel."
_DELIBERATELY_NONE: Final = "none"


@dataclass(frozen=True)
class Selection:
    """Who configures OpenTelemetry, and why.

    Attributes:
        configures: Name of the distribution that sets up the SDK; ``None`` where none does.
        reason: Why, in one sentence.
        ours: Whether it is this package; see :attr:`our_defaults` too.
        notice: What the user is told, and what to set for another choice; ``None`` where the
            choice was the user's own or there was none to make.
        distro: The distro that sets the defaults and loads the instrumentors; ``None`` for
            OpenTelemetry's own, which sets none.
        configurator: The configurator that sets up the SDK.
    """

    configures: str | None
    reason: str
    ours: bool
    notice: str | None = None
    distro: EntryPoint | None = None
    configurator: EntryPoint | None = None

    @property
    def our_distro(self) -> bool:
        """Whether our distro is the one that loads the instrumentors."""
        return self.distro is not None and is_ours(self.distro)

    @property
    def our_defaults(self) -> bool:
        """Whether our defaults are set: they go with our set-up, and another one has its own."""
        return self.ours and self.our_distro


def select(
    environ: Mapping[str, str],
    distros: Iterable[EntryPoint] | None = None,
    configurators: Iterable[EntryPoint] | None = None,
) -> Selection:
    """Decide who configures.

    Args:
        environ: Where the user's choice is looked up.
        distros: The distros in the order in which they are found; the installed ones by default.
        configurators: Likewise.
    """
    if distros is None:
        distros = entry_points(group="opentelemetry_distro")
    if configurators is None:
        configurators = entry_points(group="opentelemetry_configurator")
    distros, configurators = tuple(distros), tuple(configurators)
    others = list(dict.fromkeys(_owner(one) for one in distros + configurators if not is_ours(one)))
    distro = _distro(environ.get(OTEL_PYTHON_DISTRO), distros)
    configurator = _configurator(environ, configurators, distro)
    configures = _owner(configurator) if configurator is not None else None
    reason, notice = _reason(environ, others, configures, distro, distros)
    if is_disabled(environ):
        configures, reason, notice = None, "OTEL_SDK_DISABLED is true", None
    return Selection(
        configures=configures,
        reason=reason,
        ours=configures == OURS,
        notice=notice,
        distro=distro,
        configurator=configurator,
    )


def is_ours(entry_point: EntryPoint) -> bool:
    """Whether an entry point belongs to this package."""
    return entry_point.value.startswith(_OUR_PACKAGE)


def _owner(entry_point: EntryPoint) -> str:
    if is_ours(entry_point):
        return OURS
    dist = entry_point.dist
    return dist.name if dist is not None else entry_point.value.partition(".")[0]


def _distro(asked: str | None, distros: tuple[EntryPoint, ...]) -> EntryPoint | None:
    if asked is not None:
        return next((one for one in distros if one.name == asked), None)
    others = (one for one in distros if not is_ours(one))
    return next(others, next(iter(distros), None))


def _configurator(
    environ: Mapping[str, str], configurators: tuple[EntryPoint, ...], distro: EntryPoint | None
) -> EntryPoint | None:
    asked = environ.get(OTEL_PYTHON_CONFIGURATOR)
    if asked is not None:
        return next((one for one in configurators if one.name == asked), None)
    if OTEL_PYTHON_DISTRO in environ and distro is not None and is_ours(distro):
        return next(filter(is_ours, configurators), None)
    if configurators and not is_ours(configurators[0]):
        return configurators[0]  # the loader takes it before ours is asked
    others = [one for one in configurators if not is_ours(one)]
    wanted = _owner(distro) if distro is not None else None
    fitting = [one for one in others if _owner(one) == wanted]
    return next(iter(fitting + others), next(iter(configurators), None))


def _reason(
    environ: Mapping[str, str],
    others: list[str],
    configures: str | None,
    distro: EntryPoint | None,
    distros: tuple[EntryPoint, ...],
) -> tuple[str, str | None]:
    """Why it is that one, and what the user is told of it."""
    asked = environ.get(OTEL_PYTHON_CONFIGURATOR)
    if asked is not None:
        consequence = (
            f"OpenTelemetry is not configured; the configurator of {OURS} is {ENTRY_POINT}"
        )
        return _as_asked(OTEL_PYTHON_CONFIGURATOR, asked, consequence, found=configures is not None)
    asked = environ.get(OTEL_PYTHON_DISTRO)
    if asked is not None:
        installed = ", ".join(sorted({f"{one.name} of {_owner(one)}" for one in distros}))
        consequence = f"no defaults are set; there are {installed}"
        return _as_asked(OTEL_PYTHON_DISTRO, asked, consequence, found=distro is not None)
    if configures is None:
        return "no configurator is installed", None
    if configures == OURS:
        without = f"{', '.join(others)} has no configurator"
        return without if others else "no other distro is installed", None
    reason = f"it is installed beside {OURS}"
    if len(others) > 1:
        reason = f"it is the first found of {', '.join(others)}, which are installed beside {OURS}"
    return reason, (
        f"{configures} configures OpenTelemetry, because {reason}; the instrumentations of {OURS} "
        f"are loaded all the same. For its set-up set {OTEL_PYTHON_DISTRO}={ENTRY_POINT}"
    )


def _as_asked(
    variable: str, asked: str, consequence: str, *, found: bool
) -> tuple[str, str | None]:
    reason = f"{variable}={asked}"
    if found:
        return reason, None
    reason += " names none that is installed"
    return reason, None if asked == _DELIBERATELY_NONE else f"{reason}: {consequence}"
