# SPDX-License-Identifier: Apache-2.0
"""What a process tells of its own telemetry, for ``agent-kernel-otel doctor -- COMMAND``.

Imported only where it is asked for, so that a normal start pays nothing.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from agent_kernel_otel.scrub import MASK, scrub_text

REPORT_VARIABLE: Final = "AGENT_KERNEL_OTEL_REPORT"
"""Names the file to which each process appends a dot and its id."""

_PACKAGES: Final = (
    "agent-kernel-otel",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "weaver-kernel",
)


def write_report_if_asked() -> None:
    """Write what :func:`describe_process` says, where the variable asks for it; never raises."""
    target = os.environ.get(REPORT_VARIABLE)
    if not target:
        return
    with suppress(Exception):
        path = Path(f"{target}.{os.getpid()}")
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(describe_process()), encoding="utf-8")
        partial.replace(path)


def describe_process() -> dict[str, Any]:
    """What this process is, how it is set up, and what became of its telemetry; for JSON.

    A part that cannot be told is ``None``: the others still are.
    """
    return {
        "pid": os.getpid(),
        "parent_pid": os.getppid(),
        "python": platform.python_version(),
        "versions": _told(_versions),
        "selection": _told(_selection),
        "configuration": _told(_configuration),
        "settings": _told(_our_settings),
        "providers": _told(_providers),
        "kernels": _told(_kernels),
        "patched": _told(_patched),
        "telemetry": _told(_telemetry),
        "faults": _told(_faults),
    }


def _told(part: Callable[[], Any]) -> Any:
    with suppress(Exception):
        return part()
    return None


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _selection() -> dict[str, Any]:
    from agent_kernel_otel.distro.selection import select

    selection = select(os.environ)
    return {
        "configures": selection.configures,
        "reason": scrub_text(selection.reason),
        "ours": selection.ours,
    }


def _configuration() -> list[dict[str, str]]:
    from agent_kernel_otel.distro.selection import select
    from agent_kernel_otel.distro.service import service_name
    from agent_kernel_otel.doctor.settings import settings, without_ours

    ours = select(os.environ).our_defaults
    environ = without_ours(os.environ) if ours else os.environ
    name = service_name(sys.orig_argv, os.environ)
    return [asdict(setting) for setting in settings(environ, ours=ours, name=name)]


def _our_settings() -> dict[str, Any] | None:
    from agent_kernel_otel.weaver.activation import activation

    if activation.everywhere is None:
        return None
    config = activation.everywhere.telemetry.config
    shown = {}
    for setting in fields(config):
        value = getattr(config, setting.name)
        if not setting.repr:
            value = None if value is None else MASK
        elif isinstance(value, frozenset):
            value = sorted(value)
        shown[setting.name] = value if _is_plain(value) else type(value).__name__
    return shown


def _providers() -> dict[str, Any]:
    from opentelemetry import _logs, metrics, trace

    tracer_provider = trace.get_tracer_provider()
    sampler = getattr(tracer_provider, "sampler", None)
    return {
        "traces": _class_of(tracer_provider),
        "metrics": _class_of(metrics.get_meter_provider()),
        "logs": _class_of(_logs.get_logger_provider()),
        "sampler": None if sampler is None else sampler.get_description(),
    }


def _kernels() -> dict[str, Any]:
    from agent_kernel_otel.weaver.outcomes import IMPORT_NAMES
    from agent_kernel_otel.weaver.switching import kernels_met

    return {
        "imported": [name for name in IMPORT_NAMES if f"{name}.kernel" in sys.modules],
        "met": kernels_met(),
    }


def _patched() -> dict[str, list[str]]:
    from agent_kernel_otel.weaver.switching import patched_targets

    return patched_targets()


def _telemetry() -> dict[str, Any]:
    from agent_kernel_otel.pipeline.ledger import ledger

    return {
        signal: asdict(totals) if is_dataclass(totals) else dict(vars(totals))
        for signal, totals in ledger.snapshot().items()
    }


def _faults() -> int:
    from agent_kernel_otel.faults import faults

    return faults.count


def _class_of(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, list))
