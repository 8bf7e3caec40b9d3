# SPDX-License-Identifier: Apache-2.0
"""Variables whose value cannot be read, or does not mean what it seems to.

As in :mod:`.findings`, each is a pure function of the facts. A value that cannot be read is never
repeated: nobody knows what it is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Final

from agent_kernel_otel.config import ENVIRONMENT_PREFIX
from agent_kernel_otel.distro.checks import Unreadable
from agent_kernel_otel.doctor.destinations import GRPC, HTTP
from agent_kernel_otel.doctor.facts import Facts
from agent_kernel_otel.doctor.findings import Finding, note, problem
from agent_kernel_otel.doctor.links_file import VARIABLE as LINKS_VARIABLE
from agent_kernel_otel.doctor.masking import shown_value
from agent_kernel_otel.doctor.settings import IGNORED

_SECONDS: Final = re.compile(r"OTEL_EXPORTER_OTLP_(?:(?:TRACES|METRICS|LOGS)_)?TIMEOUT")
_LONGEST_SENSIBLE_TIMEOUT: Final = 300
_READ_BY_OTHERS: Final = re.compile(
    r"OTEL_(AGENT_KERNEL|PYTHON|INSTRUMENTATION|SEMCONV|EXPERIMENTAL|RESOURCE|GO|JAVA|NODE)_"
)

_FIX_OF_VALUE: Final = {
    ("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP): "pip install 'agent-kernel-otel[http]'",
    ("OTEL_METRICS_EXPORTER", "prometheus"): "pip install 'agent-kernel-otel[prometheus]'",
}


def our_settings(facts: Facts) -> Iterator[Finding]:
    """``OTEL_AGENT_KERNEL_*`` that cannot be read or does not exist."""
    for complaint in facts.complaints:
        yield problem("setting_unreadable", complaint, "correct it, or unset it")


def unreadable(facts: Facts) -> Iterator[Finding]:
    """OpenTelemetry's own variables that cannot be read."""
    for found in facts.unreadable:
        instead = str(found).rpartition("; ")[2]
        if not facts.selection.ours:
            instead = "it depends on who configures what is done instead"
        yield problem(
            "value_unreadable",
            f"{found.variable} cannot be read: expected {found.expected}; {instead}",
            _fix_of(found, facts.environ.get(found.variable, "")),
        )


def _fix_of(found: Unreadable, value: str) -> str:
    for name in map(str.strip, value.split(",")):
        fix = _FIX_OF_VALUE.get((found.variable, name))
        if fix is not None and name not in found.rest.split(","):
            return fix
    return f"correct {found.variable}, or unset it"


def propagators(facts: Facts) -> Iterator[Finding]:
    """A propagator that is not there, over which the launcher fails before anybody can step in."""
    known = facts.registered["opentelemetry_propagator"] | {"", "none"}
    if any(name.strip() not in known for name in facts.value("OTEL_PROPAGATORS").split(",")):
        yield problem(
            "propagator_unknown",
            "OTEL_PROPAGATORS names one that is not installed: opentelemetry-instrument stops, "
            "and the app does not start",
            f"set it to some of: {', '.join(sorted(known - {''}))}",
        )


def timeouts(facts: Facts) -> Iterator[Finding]:
    """Time-outs that were meant as milliseconds."""
    for variable, value in sorted(facts.effective.items()):
        seconds = _number(value) if _SECONDS.fullmatch(variable) else None
        if seconds is not None and seconds > _LONGEST_SENSIBLE_TIMEOUT:
            yield problem(
                "timeout_in_milliseconds",
                f"{variable} is read in seconds by Python: {seconds:g} s is {seconds / 60:.0f} min",
                f"set it to {seconds / 1000:g}, if milliseconds were meant",
            )


def addresses(facts: Facts) -> Iterator[Finding]:
    """Addresses that are read in another way than they were meant."""
    said: set[tuple[str, str]] = set()
    for one in facts.destinations:
        if not one.is_otlp:
            continue
        for finding in _about_address(one.variable, one.address, one.protocol, tls=one.tls):
            if (finding.code, one.variable) not in said:
                said.add((finding.code, one.variable))
                yield finding
    for variable, value in sorted(facts.environ.items()):
        if re.fullmatch(r"OTEL_EXPORTER_OTLP_\w*ENDPOINT", variable) and not value.strip():
            yield problem(
                "endpoint_empty",
                f"{variable} is set and empty, which the exporter over gRPC takes for an address",
                f"unset {variable}",
            )


def _about_address(variable: str, address: str, protocol: str, *, tls: bool) -> Iterator[Finding]:
    scheme, separator, rest = address.partition("://")
    if not separator:
        means = "and is taken for one with TLS" if tls else "and is sent to without TLS"
        yield problem(
            "endpoint_without_scheme",
            f"{variable} has no scheme, {means if protocol == GRPC else 'and cannot be sent to'}",
            f"set {variable}=http://... without TLS, https://... with TLS",
        )
    elif scheme.lower() not in {"http", "https"}:
        yield problem(
            "endpoint_scheme_unknown",
            f"{variable} has a scheme that is neither http nor https",
            f"set {variable}=http://... without TLS, https://... with TLS (over gRPC, too)",
        )
    _, _, path = rest.partition("/")
    if protocol == GRPC and "@" in rest.partition("/")[0]:
        yield problem(
            "credentials_in_endpoint",
            f"{variable} holds credentials, which gRPC takes for a part of the host's name",
            "set OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20... instead",
        )
    if protocol == GRPC and path.strip("/"):
        yield note(
            "path_ignored",
            f"{variable} has a path, which gRPC leaves out",
            f"leave the path out, or set OTEL_EXPORTER_OTLP_PROTOCOL={HTTP}",
        )
    if protocol == HTTP and re.search(r"v1/(traces|metrics|logs)/v1/", path):
        yield problem(
            "path_twice",
            f"{variable} ends with a signal's path, and the exporter adds it once more",
            f"leave /v1/... out of {variable}",
        )


def files(facts: Facts) -> Iterator[Finding]:
    """Files that are there and hold something else, or cannot be written."""
    for variable in facts.files_without_pem:
        yield problem(
            "file_without_pem",
            f"the file of {variable} holds no PEM text",
            f"correct the path in {variable}",
        )
    for one in facts.destinations:
        if one.unwritable:
            yield problem(
                "links_file_unwritable",
                f"{one.exporter} cannot write {one.endpoint}: {one.unwritable}",
                f"let the app write there, or set {LINKS_VARIABLE} (links_file) to where it can",
            )


def configuration_file(facts: Facts) -> Iterator[Finding]:
    """A configuration file, which takes the place of most variables."""
    if facts.file is None:
        return
    if facts.file.problem is not None:
        what, _, remedy = facts.file.problem.partition(": pip install ")
        yield problem(
            "configuration_file_unusable",
            shown_value("OTEL_CONFIG", what),
            f"pip install {remedy}" if remedy else "correct it, or unset OTEL_CONFIG_FILE",
        )
    elif getattr(facts.file.model, "disabled", False):
        yield problem(
            "disabled_in_file",
            "the configuration file says disabled: true, which switches all off",
            "take that line out of it",
        )
    ignored = [setting.name for setting in facts.settings if setting.value == IGNORED]
    if ignored:
        yield note(
            "ignored_for_the_file",
            f"OTEL_CONFIG_FILE is set, so that these are ignored: {', '.join(ignored)}",
            "say the same in the file (${VARIABLE} is replaced there), or unset OTEL_CONFIG_FILE",
        )


def misspelt(facts: Facts) -> Iterator[Finding]:
    """Variables that nobody reads, but whose name is nearly one that is read."""
    known = facts.known_variables
    for variable in sorted(facts.environ):
        if not variable.startswith("OTEL_") or variable in known:
            continue
        if variable.startswith(ENVIRONMENT_PREFIX) or _READ_BY_OTHERS.match(variable):
            continue
        close = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
        if close:
            yield problem(
                "variable_misspelt",
                f"nobody reads {variable}",
                f"did you mean {close[0]}?",
            )


def service_name(facts: Facts) -> Iterator[Finding]:
    """No name, or two names, for the service."""
    if facts.is_configured_by_file:
        return
    pairs = [p for p in facts.value("OTEL_RESOURCE_ATTRIBUTES").split(",") if p.strip()]
    if any("=" not in pair for pair in pairs):
        yield problem(
            "resource_attributes_unreadable",
            "OTEL_RESOURCE_ATTRIBUTES is no list of key=value, and is left out in part",
            "set OTEL_RESOURCE_ATTRIBUTES=key=value,key=value",
        )
    named = facts.value("OTEL_SERVICE_NAME")
    also = {p.partition("=")[2].strip() for p in pairs if p.split("=")[0].strip() == "service.name"}
    if named and also - {"", named}:
        yield note(
            "two_service_names",
            "OTEL_SERVICE_NAME and service.name in OTEL_RESOURCE_ATTRIBUTES differ: "
            "the first is used",
            "look for the service under OTEL_SERVICE_NAME, or leave one of them out",
        )
    if named.startswith("unknown_service"):
        yield problem(
            "service_name_unknown",
            "the service is named unknown_service, as all that have no name are",
            "set OTEL_SERVICE_NAME to the name under which you look for it",
        )


VALUE_FINDERS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    configuration_file,
    our_settings,
    misspelt,
    unreadable,
    propagators,
    timeouts,
    addresses,
    files,
    service_name,
)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
