# SPDX-License-Identifier: Apache-2.0
"""The configuration in force: each value, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent_kernel_otel.distro import defaults
from agent_kernel_otel.doctor.masking import shown_value

ENVIRONMENT: Final = "environment"
FILE: Final = "configuration file"
OURS: Final = "our default"
OPENTELEMETRYS: Final = "OpenTelemetry's default"

IGNORED: Final = "(ignored)"
"""Shown in place of a value for which a configuration file speaks alone."""

OPENTELEMETRY_DEFAULTS: Final[Mapping[str, str]] = {
    "OTEL_SERVICE_NAME": "unknown_service",
    "OTEL_TRACES_SAMPLER": "parentbased_always_on",
    "OTEL_PROPAGATORS": "tracecontext,baggage",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "10",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative",
    "OTEL_BSP_MAX_QUEUE_SIZE": "2048",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512",
    "OTEL_BSP_SCHEDULE_DELAY": "5000",
    "OTEL_METRIC_EXPORT_INTERVAL": "60000",
}
"""What OpenTelemetry does where nothing is set, for the variables worth showing."""

_HTTP_ENDPOINT: Final = "http://localhost:4318"
_SHOWN_PREFIX: Final = "OTEL_"
_NOT_READ_BESIDE_A_FILE: Final = re.compile(
    r"OTEL_((TRACES|METRICS|LOGS)_EXPORTER|EXPORTER_OTLP_\w*PROTOCOL|TRACES_SAMPLER(_ARG)?"
    r"|EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE|METRIC_EXPORT_INTERVAL"
    r"|METRICS_EXEMPLAR_FILTER|RESOURCE_ATTRIBUTES|PROPAGATORS|SPAN_\w+_LIMIT)"
)
"""Variables for which the file speaks alone; the exporters ask the others for what it leaves out."""


@dataclass(frozen=True)
class Setting:
    """One setting in force.

    Attributes:
        name: The environment variable that would set it.
        value: Its value, as it may be shown.
        source: One of the four sources.
    """

    name: str
    value: str
    source: str


def effective(environ: Mapping[str, str], *, ours: bool) -> dict[str, str]:
    """The environment as the exporters will see it.

    Args:
        environ: The environment as the user has it.
        ours: Whether our distro's defaults apply.
    """
    applied = dict(environ)
    if ours:
        defaults.apply_defaults(applied)
    return applied


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process in which our distro has set its defaults, without them.

    Where the user has set the very same value, that cannot be told from ours.
    """
    return {
        variable: value
        for variable, value in environ.items()
        if defaults.DEFAULTS.get(variable) != value
    }


def settings(environ: Mapping[str, str], *, ours: bool, name: str | None) -> tuple[Setting, ...]:
    """Every setting in force, by name.

    Args:
        environ: The environment as the user has it.
        ours: Whether our distro's defaults apply.
        name: The name that our distro gives the service, if the user gives none.
    """
    by_file = defaults.is_set(environ, "OTEL_CONFIG_FILE")
    applied = environ if by_file else effective(environ, ours=ours)
    shown = {
        variable: _setting(variable, value, environ)
        for variable, value in applied.items()
        if variable.startswith(_SHOWN_PREFIX)
    }
    if by_file:
        return tuple(shown[name] for name in sorted(shown))
    for variable, value in OPENTELEMETRY_DEFAULTS.items():
        if not defaults.is_set(applied, variable):
            shown[variable] = Setting(variable, value, OPENTELEMETRYS)
    protocol = applied.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    endpoint = shown["OTEL_EXPORTER_OTLP_ENDPOINT"]
    if protocol.strip() == "http/protobuf" and endpoint.source == OPENTELEMETRYS:
        shown[endpoint.name] = Setting(endpoint.name, _HTTP_ENDPOINT, OPENTELEMETRYS)
    if shown["OTEL_SERVICE_NAME"].source == OPENTELEMETRYS:
        shown["OTEL_SERVICE_NAME"] = _service_name(environ, name, ours=ours)
    return tuple(shown[name] for name in sorted(shown))


def _setting(variable: str, value: str, environ: Mapping[str, str]) -> Setting:
    source = ENVIRONMENT if defaults.is_set(environ, variable) else OURS
    if not value.strip():
        return Setting(variable, "(empty)", ENVIRONMENT)
    if defaults.is_set(environ, "OTEL_CONFIG_FILE") and _NOT_READ_BESIDE_A_FILE.fullmatch(variable):
        return Setting(variable, IGNORED, FILE)
    return Setting(variable, shown_value(variable, value), source)


def _service_name(environ: Mapping[str, str], name: str | None, *, ours: bool) -> Setting:
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name" and value.strip():
            return Setting("OTEL_SERVICE_NAME", shown_value(key, value.strip()), ENVIRONMENT)
    if ours:
        return Setting("OTEL_SERVICE_NAME", name or "(the script's name)", OURS)
    return Setting("OTEL_SERVICE_NAME", OPENTELEMETRY_DEFAULTS["OTEL_SERVICE_NAME"], OPENTELEMETRYS)
