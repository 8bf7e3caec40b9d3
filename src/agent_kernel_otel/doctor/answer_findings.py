# SPDX-License-Identifier: Apache-2.0
"""What the answers of the endpoints mean, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from agent_kernel_otel.doctor.answers import Answer, Outcome
from agent_kernel_otel.doctor.destinations import GRPC, HTTP
from agent_kernel_otel.doctor.findings import Finding, note, problem

_OTLP_PORT: Final = {GRPC: 4317, HTTP: 4318}
_ANSWERED_LATE: Final = 1.0

_MEANING: Final[dict[Outcome, tuple[str, str]]] = {
    Outcome.UNRESOLVABLE: (
        "the name {host} does not resolve",
        "correct the name in {variable}, or run where it resolves (its own network or cluster)",
    ),
    Outcome.REFUSED: (
        "nothing listens at {peer}: connection refused",
        (
            "start the collector there, or set {variable} to where yours listens "
            "(inside a container, localhost is the container)"
        ),
    ),
    Outcome.UNREACHABLE: (
        "{peer} cannot be reached: no connection within the time-out",
        "correct {variable}, or let the firewall or network policy through to {peer}",
    ),
    Outcome.SILENT: (
        "{peer} accepts connections and does not answer",
        "see whether the process behind {peer} hangs, or set {variable} to a collector",
    ),
    Outcome.SLOW: (
        "{peer} is there, and does not answer within the exporter's time-out",
        "see why it is slow, or raise OTEL_EXPORTER_OTLP_TIMEOUT (seconds)",
    ),
    Outcome.UNTRUSTED: (
        "the TLS certificate of {peer} is not trusted",
        "set OTEL_EXPORTER_OTLP_CERTIFICATE to the PEM file of the authority that signed it",
    ),
    Outcome.OTHER_AUTHORITIES: (
        "{overruled_by} is trusted instead of OTEL_EXPORTER_OTLP_CERTIFICATE by this exporter",
        "unset {overruled_by}, or add the authority's PEM text to its file",
    ),
    Outcome.WRONG_NAME: (
        "the TLS certificate of {peer} is for another name than {host}",
        "set {variable} to a name that the certificate has",
    ),
    Outcome.EXPIRED: (
        "the TLS certificate of {peer} has expired",
        "renew it at the receiver, and look at this machine's clock",
    ),
    Outcome.NEEDS_CLIENT_CERTIFICATE: (
        "{peer} wants a client certificate, and gets none that it takes",
        "set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY",
    ),
    Outcome.NEEDS_TLS: (
        "{peer} speaks TLS, and is sent to without",
        "set {variable} to https://..., and OTEL_EXPORTER_OTLP_INSECURE not at all",
    ),
    Outcome.NO_TLS: (
        "{peer} does not speak TLS, and is sent to with it",
        "set {variable} to http://{peer}",
    ),
    Outcome.SPEAKS_GRPC: (
        "{peer} speaks gRPC, and is sent OTLP over HTTP",
        "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or {variable} to its port for HTTP, mostly 4318",
    ),
    Outcome.SPEAKS_HTTP: (
        "{peer} speaks HTTP/1.1, and is sent OTLP over gRPC",
        (
            "set {variable} to its port for gRPC, mostly 4317, or "
            "pip install 'agent-kernel-otel[http]' and OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        ),
    ),
    Outcome.UNAUTHENTICATED: (
        "{peer} does not accept the credentials ({status})",
        (
            "set OTEL_EXPORTER_OTLP_HEADERS as its documentation says, "
            "such as authorization=Bearer%20TOKEN"
        ),
    ),
    Outcome.FORBIDDEN: (
        "{peer} knows the credentials, and does not allow this ({status})",
        "give the key in OTEL_EXPORTER_OTLP_HEADERS the right to write telemetry",
    ),
    Outcome.NOT_FOUND: (
        "{endpoint} is the wrong path ({status})",
        "{path_fix}",
    ),
    Outcome.UNIMPLEMENTED: (
        "{peer} has no OTLP service there ({status})",
        "set {variable} to a receiver of OTLP over {protocol}",
    ),
    Outcome.OVERLOADED: (
        "{peer} refuses for now: too much at once, or a quota is used up ({status})",
        "raise the limit at the receiver, or send less: OTEL_TRACES_SAMPLER",
    ),
    Outcome.SERVER_ERROR: (
        "{peer} answers with an error ({status})",
        "look at the receiver's log",
    ),
    Outcome.REDIRECTED: (
        "{endpoint} redirects elsewhere ({status}), which exporters do not follow",
        "set {variable} to the address that it redirects to",
    ),
    Outcome.NOT_OTLP: (
        "{endpoint} answers with a web page: it is no receiver of OTLP",
        "set {variable} to the receiver, mostly port 4318",
    ),
    Outcome.BAD_ADDRESS: (
        "{variable} is no address",
        "set {variable}=http://HOST:{port}",
    ),
    Outcome.CANNOT_EXPORT: (
        "the exporter cannot be made from these settings ({said})",
        "correct the settings named here",
    ),
    Outcome.FAILED: (
        "the request to {peer} failed ({status_or_said})",
        "look at the receiver's log",
    ),
}

_AT_THE_PROXY: Final = {
    Outcome.UNRESOLVABLE: "whose name does not resolve",
    Outcome.REFUSED: "which refuses the connection",
    Outcome.UNREACHABLE: "which cannot be reached",
    Outcome.FAILED: "and fails there or behind it",
}


def answers(given: Sequence[Answer]) -> Iterator[Finding]:
    """One finding for each cause, whichever signals it holds up."""
    by_cause: dict[tuple[Outcome, tuple[str, int], str], list[Answer]] = {}
    for answer in given:
        if answer.outcome is not Outcome.OK:
            cause = (answer.outcome, answer.destination.peer, answer.destination.protocol)
            by_cause.setdefault(cause, []).append(answer)
    for held_up in by_cause.values():
        yield _finding(held_up, given)
    yield from _slow(given)


def _finding(held_up: Sequence[Answer], given: Sequence[Answer]) -> Finding:
    answer = held_up[0]
    destination = answer.destination
    signals = ", ".join(one.destination.signal for one in held_up)
    if answer.outcome in {Outcome.UNIMPLEMENTED, Outcome.NOT_FOUND} and _some_are_taken(
        held_up, given
    ):
        variables = " ".join(f"OTEL_{one.destination.signal.upper()}_EXPORTER" for one in held_up)
        return problem(
            Outcome.UNIMPLEMENTED.value,
            f"{signals}: {_peer(answer)} takes other signals, and not this ({answer.status})",
            f"set to none: {variables}; or send to a Collector, which takes all three",
        )
    if destination.proxy is not None and answer.outcome in _AT_THE_PROXY:
        return problem(
            "proxy",
            f"{signals}: the request goes through the proxy of {destination.proxy}, "
            f"{_AT_THE_PROXY[answer.outcome]}",
            f"set no_proxy={destination.peer[0]} if no proxy is needed, "
            f"or correct {destination.proxy}",
        )
    what, fix = _MEANING[answer.outcome]
    words = {
        "host": destination.peer[0],
        "peer": _peer(answer),
        "port": _OTLP_PORT.get(destination.protocol, 4317),
        "endpoint": destination.endpoint,
        "variable": destination.variable,
        "protocol": destination.protocol,
        "overruled_by": destination.overruled_by,
        "status": answer.status,
        "said": answer.said,
        "status_or_said": answer.status or answer.said or "no reason given",
        "path_fix": _path_fix(answer),
    }
    said = f'; it says: "{answer.said}"' if answer.said and answer.status else ""
    if destination.proxy is not None:
        said += f"; it went through the proxy of {destination.proxy}"
    return problem(
        answer.outcome.value, f"{signals}: {what.format(**words)}{said}", fix.format(**words)
    )


def _path_fix(answer: Answer) -> str:
    destination = answer.destination
    path = f"/v1/{destination.signal}"
    if destination.variable == "OTEL_EXPORTER_OTLP_ENDPOINT":
        return f"set {destination.variable} to the address before {path}, as the receiver has it"
    if not destination.address.rstrip("/").endswith(path):
        return f"end {destination.variable} with {path}: nothing is added to a signal's own address"
    return f"correct the path in {destination.variable}"


def _peer(answer: Answer) -> str:
    host, port = answer.destination.peer
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _some_are_taken(held_up: Sequence[Answer], given: Sequence[Answer]) -> bool:
    peer = held_up[0].destination.peer
    return any(one.outcome is Outcome.OK and one.destination.peer == peer for one in given)


def _slow(given: Sequence[Answer]) -> Iterator[Finding]:
    slow = [a for a in given if a.outcome is Outcome.OK and a.seconds > _ANSWERED_LATE]
    if slow:
        longest = max(slow, key=lambda answer: answer.seconds)
        yield note(
            "answers_late",
            f"{_peer(longest)} took {longest.seconds:.1f} s for an empty request",
            "see why it is slow: what is still unsent when the process ends is dropped",
        )
