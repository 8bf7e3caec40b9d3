# SPDX-License-Identifier: Apache-2.0
"""What both transports do with a request: decode it, store it, and say what was wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel.console import otlp_json, wire
from agent_kernel_otel.console.schema import StoreError
from agent_kernel_otel.console.wire import MalformedPayload

if TYPE_CHECKING:
    from agent_kernel_otel.console.notices import Notices
    from agent_kernel_otel.console.store import Store
    from agent_kernel_otel.console.wire import Encoding, Signal

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Largest request taken, decompressed. OTLP advises 4 MiB for gRPC and 20 MiB for HTTP; gRPC
exporters in Python repeat a refused request six times, so the limit is generous."""

INVALID_ARGUMENT: Final = 3
UNAVAILABLE: Final = 14


class Refusal(Exception):  # noqa: N818 - an answer to the sender, no fault of ours
    """A request that is not taken.

    Attributes:
        code: gRPC status code, as number.
        http_status: The same for HTTP.
        text: What is wrong, for a person.
    """

    def __init__(self, code: int, http_status: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.http_status = http_status
        self.text = text


def too_large(limit: int) -> Refusal:
    """The refusal of a request past the limit, which is in bytes."""
    return Refusal(
        INVALID_ARGUMENT,
        413,
        f"the request is larger than {limit / 1024 / 1024:g} MiB, counted after decompression; "
        "send smaller batches (OTEL_BSP_MAX_EXPORT_BATCH_SIZE)",
    )


class Intake:
    """Takes requests of either transport into the store.

    Args:
        store: Where they go.
        notices: Where the person is told of what was refused.
        max_request_bytes: Largest request taken, decompressed.
    """

    def __init__(
        self, store: Store, notices: Notices, max_request_bytes: int = MAX_REQUEST_BYTES
    ) -> None:
        self.max_request_bytes = max_request_bytes
        self._store = store
        self._notices = notices

    def take(self, signal: Signal, payload: bytes, encoding: Encoding) -> Any:
        """Decodes and stores one request.

        Args:
            signal: The service that it came to.
            payload: Its bytes, decompressed.
            encoding: How it is written.

        Returns:
            The response message.

        Raises:
            Refusal: It is malformed, or the store failed.
        """
        if len(payload) > self.max_request_bytes:
            raise too_large(self.max_request_bytes)
        try:
            if encoding == "json":
                payload = wire.serialize(otlp_json.decode(signal.request, payload))
            # Also what was JSON: what cannot be read back, being too deep, must not be stored.
            request = wire.parse(signal.request, payload)
        except MalformedPayload as error:
            raise Refusal(INVALID_ARGUMENT, 400, f"malformed request: {error}") from error
        try:
            rejected = self._store.add(signal, request, payload)
        except StoreError as error:
            raise Refusal(UNAVAILABLE, 503, str(error)) from error
        reason = ""
        if rejected:
            reason = "a trace id must have 16 bytes, a span id 8, and neither may be all zero"
            self._notices.warn(
                "spans with invalid ids", f"{rejected} spans were not taken: {reason}"
            )
        return wire.export_response(signal, rejected, reason)

    def report(self, transport: str, what: str, refusal: Refusal) -> None:
        """Tells the person of a refusal.

        Args:
            transport: ``gRPC`` or ``HTTP``.
            what: What was asked for, for example ``traces`` or ``POST /v1/traces``.
            refusal: Why it was refused.
        """
        self._notices.warn(
            f"refused over {transport}, {what} (status {refusal.http_status})",
            f"refused over {transport}, {what}: {refusal.text}",
        )
