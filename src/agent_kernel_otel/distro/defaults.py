# SPDX-License-Identifier: Apache-2.0
"""The distro's decisions, over an environment that is handed in."""

from __future__ import annotations

import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Final

from opentelemetry.environment_variables import (
    OTEL_LOGS_EXPORTER,
    OTEL_METRICS_EXPORTER,
    OTEL_PROPAGATORS,
    OTEL_TRACES_EXPORTER,
)
from opentelemetry.sdk.environment_variables import (
    OTEL_BLRP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BLRP_MAX_QUEUE_SIZE,
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_EXPERIMENTAL_RESOURCE_DETECTORS,
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TIMEOUT,
    OTEL_METRICS_EXEMPLAR_FILTER,
    OTEL_RESOURCE_ATTRIBUTES,
    OTEL_SDK_DISABLED,
    OTEL_SERVICE_NAME,
    OTEL_TRACES_SAMPLER,
)
from opentelemetry.sdk.resources import ProcessResourceDetector

from agent_kernel_otel._version import __version__
from agent_kernel_otel.distro.service import service_name
from agent_kernel_otel.pipeline.settings import BATCH_SIZE, QUEUE_SIZE

ENTRY_POINT: Final = "agent_kernel"
"""Name of our distro and of our configurator in the entry points."""


def resource_detectors() -> str:
    """Which of the SDK's resource detectors are asked.

    Never one that would tell the arguments: before 1.45 that of the process adds the whole command
    line, which can hold secrets. Nor that of the host, which adds the machine's id; ``machine-id(5)``
    asks that it is not shown on a network.
    """
    silent = "include_command_args" in signature(ProcessResourceDetector.__init__).parameters
    return "os,process" if silent else "os"


@dataclass(frozen=True)
class Default:
    """A variable that is set where the user has not.

    Attributes:
        variable: Its name.
        value: What it is set to.
        reason: Why, for the reference page; what was measured is in ``docs/performance.md``.
    """

    variable: str
    value: str
    reason: str


_ALL_OTLP: Final = "All three signals, to a Collector or a backend that takes OTLP."
_BURSTS: Final = "A burst of 8,000 fits; the SDK's own 2048 loses most of it. At worst some 48 MB."
_SHORT: Final = (
    "The SDK's own 512 keep the interpreter's lock, and make work for the garbage collector, so that "
    "the app's longest calls take several times as long. Left at 128, 32 that wait are sent already."
)
DEFAULTS_WITH_REASONS: Final = (
    Default(OTEL_TRACES_EXPORTER, "otlp", _ALL_OTLP),
    Default(OTEL_METRICS_EXPORTER, "otlp", _ALL_OTLP),
    Default(OTEL_LOGS_EXPORTER, "otlp", _ALL_OTLP),
    Default(
        OTEL_EXPORTER_OTLP_PROTOCOL,
        "grpc",
        "What collectors listen for first. Forking while it exports, its known trap, is closed.",
    ),
    Default(
        OTEL_EXPORTER_OTLP_TIMEOUT,
        "3",
        "Seconds; the SDK's own 10 keep a thread and a queue waiting for who does not answer. A "
        "collector that takes longer loses every batch: raise it for one that is far away.",
    ),
    Default(OTEL_BSP_MAX_QUEUE_SIZE, str(QUEUE_SIZE), _BURSTS),
    Default(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, str(BATCH_SIZE), _SHORT),
    Default(OTEL_BLRP_MAX_QUEUE_SIZE, str(QUEUE_SIZE), _BURSTS),
    Default(OTEL_BLRP_MAX_EXPORT_BATCH_SIZE, str(BATCH_SIZE), _SHORT),
    Default(
        OTEL_METRICS_EXEMPLAR_FILTER,
        "trace_based",
        "Histogram points link to a trace that shows such a case.",
    ),
    Default(
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
        "cumulative",
        "Prometheus drops deltas without a word; a backend that wants deltas is told so here.",
    ),
    Default(
        OTEL_TRACES_SAMPLER,
        "parentbased_always_on",
        "A refusal is rare, and a share taken at the start loses it. Take shares at the gateway.",
    ),
    Default(OTEL_PROPAGATORS, "tracecontext,baggage", "The W3C formats, that all others read."),
    Default(
        OTEL_EXPERIMENTAL_RESOURCE_DETECTORS,
        resource_detectors(),
        "Operating system and process; the latter not with SDKs before 1.45, which would add the "
        "command line and the secrets on it. The host is named without its machine id.",
    ),
)
"""What is set where the user has set nothing. The endpoint is left to the exporter: its own
default is localhost:4317, or 4318 over HTTP."""

DEFAULTS: Final[Mapping[str, str]] = {
    default.variable: default.value for default in DEFAULTS_WITH_REASONS
}


def apply_defaults(environ: MutableMapping[str, str]) -> None:
    """Set what the user has not. An empty value counts as not set, as OpenTelemetry has it."""
    for variable, value in DEFAULTS.items():
        if not is_set(environ, variable):
            environ[variable] = value


def is_set(environ: Mapping[str, str], variable: str) -> bool:
    """Whether a variable has a value that is not empty."""
    return bool(environ.get(variable, "").strip())


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether the user has switched OpenTelemetry off."""
    return environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true"


def resource_attributes(environ: Mapping[str, str], command: Sequence[str]) -> dict[str, str]:
    """What our resource says of service, host and this distro, where the user has not.

    Args:
        environ: Where the user's own attributes are looked up.
        command: The command line of the interpreter, ``sys.orig_argv``.
    """
    given = given_attributes(environ)
    attributes = {
        "telemetry.distro.name": "agent-kernel-otel",
        "telemetry.distro.version": __version__,
        "host.name": socket.gethostname(),
    }
    name = service_name(command, environ)
    if name is not None:
        attributes["service.name"] = name
    return {key: value for key, value in attributes.items() if key not in given}


def given_attributes(environ: Mapping[str, str]) -> set[str]:
    """Keys of the resource attributes that the user has set."""
    pairs = environ.get(OTEL_RESOURCE_ATTRIBUTES, "").split(",")
    given = {pair.partition("=")[0].strip() for pair in pairs if pair.partition("=")[2].strip()}
    return given | {"service.name"} if is_set(environ, OTEL_SERVICE_NAME) else given
