# SPDX-License-Identifier: Apache-2.0
"""OTLP over gRPC."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import grpc  # type: ignore[import-untyped]

from agent_kernel_otel.console import wire
from agent_kernel_otel.console.intake import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_kernel_otel.console.intake import Intake
    from agent_kernel_otel.console.wire import Signal

_WORKERS: Final = 2
# gRPC itself refuses what is past its limit without telling us, so the limit that people meet
# is ours, and gRPC's is only there to bound memory.
_TRANSPORT_LIMIT_FACTOR: Final = 4
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def start(intake: Intake, address: str) -> tuple[Any, int]:
    """Starts a gRPC server for the three OTLP services.

    Args:
        intake: Where requests go.
        address: ``host:port``, an IPv6 host in brackets; port 0 for any free one.

    Returns:
        The server, and the port it listens on.

    Raises:
        OSError: The address cannot be had.
    """
    limit = intake.max_request_bytes * _TRANSPORT_LIMIT_FACTOR
    server = grpc.server(
        ThreadPoolExecutor(_WORKERS, thread_name_prefix="otlp-grpc"),
        options=[
            # Otherwise two servers share a port in silence, and each gets half.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limit),
        ],
    )
    server.add_generic_rpc_handlers((_Services(intake),))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(str(error)) from error
    if not port:
        raise OSError(f"cannot listen on {address}")
    server.start()
    return server, port


class _Services(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, intake: Intake) -> None:
        self._handlers = {
            signal.rpc: grpc.unary_unary_rpc_method_handler(
                _export(intake, signal), response_serializer=wire.serialize
            )
            for signal in wire.SIGNALS
        }

    def service(self, handler_call_details: Any) -> Any:
        return self._handlers.get(handler_call_details.method)


def _export(intake: Intake, signal: Signal) -> Callable[[bytes, Any], Any]:
    # No deserializer is registered: gRPC would answer its failure with INTERNAL and a log record.
    def export(payload: bytes, context: Any) -> Any:
        try:
            return intake.take(signal, payload, "protobuf")
        except Refusal as refusal:
            intake.report("gRPC", signal.name, refusal)
            context.abort(_CODES[refusal.code], refusal.text)

    return export
