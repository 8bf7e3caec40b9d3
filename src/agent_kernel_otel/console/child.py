# SPDX-License-Identifier: Apache-2.0
"""The command that the console runs: its environment, its process, its exit code."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from agent_kernel_otel.console.wire import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_kernel_otel.console.receiver import Receiver

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
_INSECURE: Final = "OTEL_EXPORTER_OTLP_INSECURE"
_PROXIES: Final = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "grpc_proxy")
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126


class CommandFailed(Exception):  # noqa: N818 - what the person is told
    """The command cannot be started.

    Attributes:
        exit_code: What a shell would exit with.
    """

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def environment_for(receiver: Receiver, inherited: Mapping[str, str]) -> dict[str, str]:
    """Builds an environment in which OTLP exporters send to the receiver.

    Args:
        receiver: Where to send.
        inherited: The environment to start from. The protocols it sets are kept; the endpoints
            it sets are replaced.
    """
    environment = dict(inherited)
    # Without it the endpoint's scheme decides; set to false it would demand TLS of us.
    environment.pop(_INSECURE, None)
    # The general endpoint also serves exporters that were told their protocol in code.
    protocol = environment.setdefault(_PROTOCOL, "grpc")
    environment[_ENDPOINT] = _endpoint(receiver, protocol)
    for signal in SIGNALS:
        prefix = f"OTEL_EXPORTER_OTLP_{signal.name.upper()}"
        environment.pop(f"{prefix}_ENDPOINT", None)
        environment.pop(f"{prefix}_INSECURE", None)
        own_protocol = environment.get(f"{prefix}_PROTOCOL", protocol)
        if _is_grpc(own_protocol) != _is_grpc(protocol):
            # An endpoint of one signal is used as it is, with no path added.
            path = "" if _is_grpc(own_protocol) else f"/v1/{signal.name}"
            environment[f"{prefix}_ENDPOINT"] = _endpoint(receiver, own_protocol) + path
    if any(environment.get(name) for name in _PROXIES):
        # A proxy cannot reach this machine's loopback.
        for name in ("no_proxy", "NO_PROXY"):
            listed = environment.get(name, "")
            environment[name] = ",".join(filter(None, (listed, "127.0.0.1", "localhost", "::1")))
    return environment


def redirected_endpoints(inherited: Mapping[str, str]) -> list[str]:
    """Lists the endpoint variables of an environment that :func:`environment_for` replaces."""
    names = [
        _ENDPOINT,
        *(f"OTEL_EXPORTER_OTLP_{signal.name.upper()}_ENDPOINT" for signal in SIGNALS),
    ]
    return [name for name in names if inherited.get(name)]


def start(
    command: Sequence[str], environment: Mapping[str, str], *, stdout_to_stderr: bool
) -> subprocess.Popen[bytes]:
    """Starts the command; it shares stdin, stdout and stderr with this process.

    Args:
        command: Program and arguments.
        environment: All of its environment.
        stdout_to_stderr: Whether its stdout goes to our stderr.

    Raises:
        CommandFailed: It cannot be started.
    """
    try:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdout=sys.stderr.fileno() if stdout_to_stderr else None,
        )
    except OSError as error:
        found = not isinstance(error, FileNotFoundError)
        raise CommandFailed(
            f"cannot run {command[0]}: {error.strerror}",
            _NOT_EXECUTABLE if found else _NOT_FOUND,
        ) from error


def exit_code_of(child: subprocess.Popen[bytes]) -> int:
    """Gives the exit code of an ended child as a shell does: 128 + n after signal n."""
    code = child.wait()
    return code if code >= 0 else 128 - code


def _endpoint(receiver: Receiver, protocol: str) -> str:
    return receiver.url(receiver.grpc_port if _is_grpc(protocol) else receiver.http_port)


def _is_grpc(protocol: str) -> bool:
    return protocol.strip().lower() == "grpc"
