# SPDX-License-Identifier: Apache-2.0
"""Where each signal is exported to, as a configuration file has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from opentelemetry.util.re import parse_env_headers

from agent_kernel_otel.config_file import VARIABLE, ConfigFile
from agent_kernel_otel.doctor.destinations import (
    GRPC,
    HTTP,
    Destination,
    otlp_destination,
)

_PIPELINES: Final = {
    "traces": ("tracer_provider", "processors", ("batch", "simple")),
    "metrics": ("meter_provider", "readers", ("periodic", "pull")),
    "logs": ("logger_provider", "processors", ("batch", "simple")),
}
_PROTOCOLS: Final = {"otlp_grpc": GRPC, "otlp_http": HTTP}


def file_destinations(file: ConfigFile, environ: Mapping[str, str]) -> tuple[Destination, ...]:
    """Every exporter of every signal; ``none`` for a signal that has none.

    Args:
        file: The file; empty if it could not be read.
        environ: The environment, which exporters ask for what the file does not say.
    """
    if file.model is None:
        return ()
    found = []
    for signal in _PIPELINES:
        exporters = list(_exporters(file.model, signal))
        found += [_destination(signal, *one, environ) for one in exporters] or [
            Destination(signal, "none", variable=VARIABLE)
        ]
    return tuple(found)


def _exporters(model: Any, signal: str) -> Iterator[tuple[str, Any]]:
    provider, pipelines, kinds = _PIPELINES[signal]
    for pipeline in getattr(getattr(model, provider, None), pipelines, None) or ():
        for kind in kinds:
            exporter = getattr(getattr(pipeline, kind, None), "exporter", None)
            for name, options in (vars(exporter) if exporter is not None else {}).items():
                if name == "additional_properties":
                    yield from ((plugin, None) for plugin in options or ())
                elif options is not None:
                    yield name, options


def _destination(signal: str, name: str, options: Any, environ: Mapping[str, str]) -> Destination:
    protocol = _PROTOCOLS.get(name)
    if protocol is None:
        return Destination(signal, name, variable=VARIABLE)
    headers = dict(parse_env_headers(options.headers_list or "", liberal=True))
    headers |= {pair.name: pair.value or "" for pair in options.headers or ()}
    made_with = {
        "endpoint": options.endpoint,
        "headers": headers or None,
        "timeout": None if options.timeout is None else options.timeout / 1000,
    }
    return otlp_destination(
        environ,
        signal,
        name,
        protocol,
        address=options.endpoint,
        options={key: value for key, value in made_with.items() if value is not None},
    )
