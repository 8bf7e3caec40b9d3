# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry's own variables, checked before it reads them.

Left to itself it raises at many a value that it cannot read, and then nothing is set up at all, or
it logs a stack trace. Here each gives one line, that names it and says what would do; then its
default counts, or, where the default would send data to where the user has not said, nothing of
its signals is exported. ``OTEL_PROPAGATORS`` is not here: ``opentelemetry-instrument`` itself does not
start with one that it cannot read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.util._importlib_metadata import entry_points

from agent_kernel_otel.distro.defaults import DEFAULTS, is_set
from agent_kernel_otel.scrub import MASK, scrub_text

_logger = logging.getLogger(__name__)

_PREFIX: Final = "OTEL_"
_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
_LONGEST_SHOWN: Final = 80
_HTTP: Final = "http/protobuf"
_INSTEAD: Final = {
    **DEFAULTS,
    "OTEL_TRACES_SAMPLER_ARG": "1.0",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "9464",
}
_EXPORTER_OF_EXTRA: Final = {
    "METRICS": " (prometheus with pip install 'agent-kernel-otel[prometheus]')"
}
_LAST_PORT: Final = 65_535


@dataclass(frozen=True)
class Unreadable:
    """A variable whose value OpenTelemetry cannot read.

    Attributes:
        variable: Its name.
        value: Its value, cut short and without credentials.
        expected: What would do.
        silences: The signals that are not exported because of it, such as ``TRACES``; none where
            the default is used, or a part of the value.
        rest: The part of a list of exporters that can be read, and is used.
    """

    variable: str
    value: str
    expected: str
    silences: tuple[str, ...]
    rest: str = ""

    def __str__(self) -> str:
        if self.silences == _SIGNALS:
            instead = "nothing is exported"
        elif self.silences:
            instead = f"no {self.silences[0].lower()} are exported"
        else:
            default = self.rest or _INSTEAD.get(self.variable)
            instead = f"{default!r} is used" if default else "OpenTelemetry's default is used"
        return f"{self.variable}={self.value!r} cannot be read: expected {self.expected}; {instead}"


@dataclass(frozen=True)
class _Check:
    """How a family of variables is read.

    Attributes:
        variables: Pattern of their names.
        reads: Whether a value of one can be read, in an environment.
        expected: What would do.
        is_vital: Whether its signals are not exported rather than by the default.
    """

    variables: re.Pattern[str]
    reads: Callable[[str, Mapping[str, str]], bool]
    expected: str
    is_vital: bool = False


def unreadable(environ: Mapping[str, str]) -> Iterator[Unreadable]:
    """The variables that are set to what OpenTelemetry cannot read."""
    for variable in sorted(environ):
        value = environ[variable].strip()
        if not variable.startswith(_PREFIX) or not value or value == DEFAULTS.get(variable):
            continue
        for check in _CHECKS:
            if check.variables.fullmatch(variable) and not check.reads(value, environ):
                rest = _exporters_there_are(variable, value)
                yield Unreadable(
                    variable,
                    MASK if variable.endswith("HEADERS") else scrub_text(value)[:_LONGEST_SHOWN],
                    check.expected,
                    _signals_of(variable) if check.is_vital and not rest else (),
                    rest,
                )


def repair(environ: MutableMapping[str, str]) -> None:
    """Say what cannot be read, and put into its place what can."""
    for found in list(unreadable(environ)):  # all of them, before the first is changed
        _logger.error("%s", found)
        environ.pop(found.variable)
        if found.silences:
            environ.update({f"OTEL_{signal}_EXPORTER": "none" for signal in found.silences})
        elif found.rest or found.variable in _INSTEAD:
            environ[found.variable] = found.rest or _INSTEAD[found.variable]
    for variable in [name for name in environ if name.endswith("_COMPRESSION")]:
        # The exporter over gRPC does not know the specification's word for its own default.
        if environ[variable].strip().lower() == "none":
            environ.pop(variable)
    for prefix in ("OTEL_BSP", "OTEL_BLRP"):
        _fit_batch_into_queue(prefix, environ)


def _fit_batch_into_queue(prefix: str, environ: MutableMapping[str, str]) -> None:
    batch, queue = f"{prefix}_MAX_EXPORT_BATCH_SIZE", f"{prefix}_MAX_QUEUE_SIZE"
    if (
        is_set(environ, batch)
        and is_set(environ, queue)
        and int(environ[batch]) > int(environ[queue])
    ):
        _logger.error(
            "%s=%s is more than the queue holds: expected %s=%s at most; that is used",
            batch,
            environ[batch],
            queue,
            environ[queue],
        )
        environ[batch] = environ[queue]


def _signals_of(variable: str) -> tuple[str, ...]:
    return tuple(signal for signal in _SIGNALS if f"_{signal}_" in variable) or _SIGNALS


def _is_number(value: str, _: Mapping[str, str]) -> bool:
    try:
        return float(value) > 0
    except ValueError:
        return False


def _is_share(value: str, environ: Mapping[str, str]) -> bool:
    if not environ.get("OTEL_TRACES_SAMPLER", "").strip().endswith("traceidratio"):
        return True  # another sampler's business
    try:
        return 0 <= float(value) <= 1
    except ValueError:
        return False


def _is_whole(least: int) -> Callable[[str, Mapping[str, str]], bool]:
    def reads(value: str, _: Mapping[str, str]) -> bool:
        return value.isascii() and value.isdigit() and int(value) >= least

    return reads


def _is_one_of(*allowed: str) -> Callable[[str, Mapping[str, str]], bool]:
    return lambda value, _: value.lower() in allowed


def _are_installed(group: str, *known: str) -> Callable[[str, Mapping[str, str]], bool]:
    """All names of a list are known, or installed as plugins."""

    def reads(value: str, _: Mapping[str, str]) -> bool:
        names = {name.strip() for name in value.split(",")} - {*known, ""}
        return names <= {entry.name for entry in entry_points(group=group)} if names else True

    return reads


def _exporters_there_are(variable: str, value: str) -> str:
    """Those of a list of exporters that can be used."""
    signal = re.fullmatch(r"OTEL_(TRACES|METRICS|LOGS)_EXPORTER", variable)
    if signal is None:
        return ""
    is_there = _are_installed(f"opentelemetry_{signal[1].lower()}_exporter", "otlp", "none")
    names = (name.strip() for name in value.split(","))
    return ",".join(name for name in names if name and is_there(name, {}))


def _is_protocol(value: str, _: Mapping[str, str]) -> bool:
    return value == "grpc" or (
        value == _HTTP
        and bool(list(entry_points(group="opentelemetry_traces_exporter", name="otlp_proto_http")))
    )


def _speaks_http(environ: Mapping[str, str]) -> bool:
    return _HTTP in (value for name, value in environ.items() if name.endswith("_PROTOCOL"))


def _is_compression(value: str, environ: Mapping[str, str]) -> bool:
    return value.lower() in {"gzip", "none"} or (
        value.lower() == "deflate" and _speaks_http(environ)
    )


def _is_endpoint(value: str, environ: Mapping[str, str]) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port  # noqa: F841 - it raises where it is no number
    except ValueError:
        return False
    if parts.scheme in {"http", "https"}:
        return bool(parts.hostname)
    # gRPC takes a host and a port without a scheme, and schemes of its own.
    return not _speaks_http(environ) and bool(
        re.fullmatch(r"(unix|dns|ipv[46]):.+|[\w.-]+:\d+", value)
    )


def _is_file(value: str, _: Mapping[str, str]) -> bool:
    try:
        with Path(value).open("rb"):
            return True
    except OSError:
        return False


_HEADER: Final = re.compile(r"\s*[!#-'*+.0-9A-Z^-z|~-]+\s*=[ !#-+\x2d-:<-\[\]-}]*")


def _are_headers(value: str, _: Mapping[str, str]) -> bool:
    return all(_HEADER.fullmatch(pair) for pair in value.split(",") if pair.strip())


_OF_SIGNAL: Final = r"(?:(?:TRACES|METRICS|LOGS)_)?"


def _check(
    pattern: str,
    reads: Callable[[str, Mapping[str, str]], bool],
    expected: str,
    *,
    is_vital: bool = False,
) -> _Check:
    return _Check(re.compile(pattern), reads, expected, is_vital)


_CHECKS: Final = (
    _check(
        rf"OTEL_EXPORTER_OTLP_{_OF_SIGNAL}TIMEOUT", _is_number, "a number of seconds, such as 3"
    ),
    _check(r"OTEL_(BSP|BLRP)_MAX_\w+_SIZE", _is_whole(1), "a whole number of at least 1"),
    _check(
        r"OTEL_(BSP|BLRP)_(SCHEDULE_DELAY|EXPORT_TIMEOUT)|OTEL_METRIC_EXPORT_(INTERVAL|TIMEOUT)",
        _is_number,
        "a number of milliseconds above 0",
    ),
    _check(r"OTEL_\w+_(COUNT|LENGTH)_LIMIT", _is_whole(0), "a whole number"),
    _check(
        r"OTEL_TRACES_SAMPLER",
        _are_installed("opentelemetry_traces_sampler"),
        "the name of a sampler, such as parentbased_always_on or traceidratio",
    ),
    _check(r"OTEL_TRACES_SAMPLER_ARG", _is_share, "a share from 0 to 1"),
    _check(
        r"OTEL_PYTHON_ID_GENERATOR",
        _are_installed("opentelemetry_id_generator"),
        "the name of an id generator, such as random",
    ),
    _check(
        r"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        _is_one_of("cumulative", "delta", "lowmemory"),
        "cumulative, delta or lowmemory",
    ),
    _check(
        r"OTEL_METRICS_EXEMPLAR_FILTER",
        _is_one_of("always_on", "always_off", "trace_based"),
        "always_on, always_off or trace_based",
    ),
    _check(
        rf"OTEL_EXPORTER_OTLP_{_OF_SIGNAL}COMPRESSION",
        _is_compression,
        "gzip or none, over HTTP deflate too",
    ),
    _check(
        rf"OTEL_EXPORTER_OTLP_{_OF_SIGNAL}PROTOCOL",
        _is_protocol,
        f"grpc, or {_HTTP} with pip install 'agent-kernel-otel[http]'",
        is_vital=True,
    ),
    _check(
        rf"OTEL_EXPORTER_OTLP_{_OF_SIGNAL}ENDPOINT",
        _is_endpoint,
        "a URL with http:// or https:// and a host",
        is_vital=True,
    ),
    _check(
        rf"OTEL_EXPORTER_OTLP_{_OF_SIGNAL}(CERTIFICATE|CLIENT_KEY|CLIENT_CERTIFICATE)",
        _is_file,
        "a file that can be read",
        is_vital=True,
    ),
    _check(
        # OpenTelemetry would log the pair that it cannot read, with what is secret in it.
        rf"OTEL_EXPORTER_OTLP_{_OF_SIGNAL}HEADERS",
        _are_headers,
        "name=value pairs with commas between them, percent-encoded",
        is_vital=True,
    ),
    *(
        _check(
            rf"OTEL_{signal}_EXPORTER",
            _are_installed(f"opentelemetry_{signal.lower()}_exporter", "otlp", "none"),
            "otlp, console, none or the name of an exporter that is installed"
            + _EXPORTER_OF_EXTRA.get(signal, ""),
            is_vital=True,
        )
        for signal in _SIGNALS
    ),
    _check(
        r"OTEL_EXPORTER_PROMETHEUS_PORT",
        lambda value, _: value.isascii() and value.isdigit() and int(value) <= _LAST_PORT,
        f"a port, from 0 to {_LAST_PORT}",
    ),
)
