# SPDX-License-Identifier: Apache-2.0
"""Where each signal is exported to, read from the variables as the exporters read them."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from agent_kernel_otel.doctor.masking import shown_address

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
_PROTOCOL_OF_EXPORTER: Final = {"otlp_proto_grpc": GRPC, "otlp_proto_http": HTTP}
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
EXPORTER_OF_PROTOCOL: Final = {GRPC: "otlp_proto_grpc", HTTP: "otlp_proto_http"}


@dataclass(frozen=True)
class Destination:
    """Where one exporter of a signal sends to.

    Attributes:
        signal: ``traces``, ``metrics`` or ``logs``.
        exporter: The exporter's name, as the user has it; ``none`` for no export.
        protocol: OTLP's protocol, also one that does not exist; empty for other exporters.
        endpoint: The address, or the file, as it may be shown; empty for other exporters.
        address: The address as it is. Never shown: it can hold credentials.
        variable: The variable that decides the address, also where it is not set.
        tls: Whether the exporter will speak TLS.
        proxy: The variable that puts a proxy in between.
        certificate: File of the authority that is trusted instead of the usual ones.
        overruled_by: The variable whose authorities are trusted instead of that file's.
        client_certificate: Files of the certificate and key that the exporter shows.
        options: What the exporter is made with, beyond the environment. Never shown.
        unwritable: Why its file cannot be written; empty where it can, or there is none.
    """

    signal: str
    exporter: str
    protocol: str = ""
    endpoint: str = ""
    address: str = field(default="", repr=False)
    variable: str = ""
    tls: bool = False
    proxy: str | None = None
    certificate: str | None = None
    overruled_by: str | None = None
    client_certificate: tuple[str, str | None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    unwritable: str = ""

    @property
    def is_otlp(self) -> bool:
        """Whether it sends OTLP, by a protocol that exists."""
        return self.protocol in EXPORTER_OF_PROTOCOL

    @property
    def entry_point(self) -> str:
        """Name of the exporter's entry point."""
        return EXPORTER_OF_PROTOCOL.get(self.protocol, self.exporter)

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port; an empty host where the address cannot be read."""
        return peer_of(self.address, default_port=443 if self.tls or self.protocol == GRPC else 80)


def destinations(environ: Mapping[str, str]) -> tuple[Destination, ...]:
    """Every exporter of every signal.

    Args:
        environ: The environment, our defaults applied.
    """
    return tuple(
        _destination(environ, signal, name.strip())
        for signal in ("traces", "metrics", "logs")
        for name in _exporters(environ, signal)
    )


def peer_of(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of an address with or without a scheme."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return "", default_port
    return host or "", port or default_port


def _exporters(environ: Mapping[str, str], signal: str) -> list[str]:
    names = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip()
    return ["none"] if names.lower() in {"", "none"} else names.split(",")


def _destination(environ: Mapping[str, str], signal: str, exporter: str) -> Destination:
    if exporter == "otlp":
        protocol = _read(environ, signal, "PROTOCOL") or GRPC
    elif exporter in _PROTOCOL_OF_EXPORTER:
        protocol = _PROTOCOL_OF_EXPORTER[exporter]
    else:
        return Destination(signal, exporter)
    return otlp_destination(environ, signal, exporter, protocol)


def otlp_destination(
    environ: Mapping[str, str],
    signal: str,
    exporter: str,
    protocol: str,
    address: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Destination:
    """Where an OTLP exporter sends to.

    Args:
        environ: Where the exporter looks up what it is not told.
        signal: ``traces``, ``metrics`` or ``logs``.
        exporter: Its name, as the user has it.
        protocol: OTLP's protocol.
        address: The address that it is told by a file.
        options: What it is made with, beyond the environment.
    """
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_"
    variable = f"{own}ENDPOINT" if environ.get(f"{own}ENDPOINT") else "OTEL_EXPORTER_OTLP_ENDPOINT"
    if address:
        variable = f"the {signal} endpoint in OTEL_CONFIG_FILE"
    else:
        address = (
            _read(environ, signal, "ENDPOINT")
            or f"http://localhost:{4318 if protocol == HTTP else 4317}"
        )
        if protocol == HTTP and not variable.startswith(own):
            address = f"{address.removesuffix('/')}/v1/{signal}"
    authority = _read(environ, signal, "CERTIFICATE") or None
    certificate = _read(environ, signal, "CLIENT_CERTIFICATE")
    # The HTTP library puts them above what the exporter says, from 1.45 on.
    bundles = [name for name in _BUNDLES if protocol == HTTP and authority and environ.get(name)]
    return Destination(
        signal,
        exporter,
        protocol,
        shown_address(address),
        address,
        variable,
        _speaks_tls(environ, own, protocol, address),
        _proxy(environ, protocol, address),
        authority,
        next(iter(bundles), None),
        (certificate, _read(environ, signal, "CLIENT_KEY") or None) if certificate else None,
        options or {},
    )


def _read(environ: Mapping[str, str], signal: str, name: str) -> str:
    own, general = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"
    return (environ.get(own) or environ.get(general) or "").strip()


def _speaks_tls(environ: Mapping[str, str], own: str, protocol: str, address: str) -> bool:
    scheme = urlsplit(address).scheme if "://" in address else ""
    if protocol != GRPC or scheme == "https":
        return scheme == "https"
    for variable in (f"{own}INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"):
        if variable in environ:
            return environ[variable].lower() != "true"
    # The gRPC exporter takes an address without a scheme for one with TLS.
    return scheme != "http"


def _proxy(environ: Mapping[str, str], protocol: str, address: str) -> str | None:
    host, _ = peer_of(address, 0)
    if protocol == GRPC:
        exempt = environ.get("no_grpc_proxy") or environ.get("no_proxy", "")
        candidates = ["grpc_proxy", "https_proxy", "http_proxy"]
    else:
        exempt = environ.get("no_proxy") or environ.get("NO_PROXY", "")
        scheme = urlsplit(address).scheme
        names = [f"{scheme}_proxy", "all_proxy"]
        candidates = [name for lower in names for name in (lower, lower.upper())]
    bypassed = urllib.request.proxy_bypass_environment(  # type: ignore[attr-defined]
        host, {"no": ",".join(filter(None, re.split(r"[,\s]+", exempt)))}
    )
    return None if bypassed else next((name for name in candidates if environ.get(name)), None)
