# SPDX-License-Identifier: Apache-2.0
"""OTLP's JSON encoding: protobuf's own, but with trace and span ids as hexadecimal."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel.console import wire
from agent_kernel_otel.console.wire import MalformedPayload

if TYPE_CHECKING:
    from collections.abc import Callable

_ID_FIELDS: Final = ("traceId", "spanId", "parentSpanId")
# The proto's own spelling is legal in input.
_ID_INPUT_FIELDS: Final = (*_ID_FIELDS, "trace_id", "span_id", "parent_span_id")


def decode(message: type[Any], payload: bytes) -> Any:
    """Reads an OTLP message from JSON.

    Args:
        message: Class of the message.
        payload: UTF-8 JSON.

    Returns:
        The message.

    Raises:
        MalformedPayload: The bytes are not JSON, or not that message.
    """
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MalformedPayload(f"not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise MalformedPayload(f"not a JSON object but {type(fields).__name__}")
    _convert_ids(fields, _ID_INPUT_FIELDS, _hex_to_base64)
    return wire.parse_fields(message, fields)


def encode(message: Any) -> str:
    """Writes an OTLP message as one line of JSON, in ASCII."""
    fields = wire.fields_of(message)
    _convert_ids(fields, _ID_FIELDS, _base64_to_hex)
    return json.dumps(fields, separators=(",", ":"))


def _convert_ids(root: Any, names: tuple[str, ...], convert: Callable[[Any], str]) -> None:
    # Attribute keys are values of "key" fields, never JSON names, so this finds ids only.
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            for name in names:
                if name in node:
                    node[name] = convert(node[name])
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _hex_to_base64(value: Any) -> str:
    try:
        return base64.b64encode(bytes.fromhex(value)).decode()
    except (ValueError, TypeError) as error:
        raise MalformedPayload("a trace or span id is not hexadecimal text") from error


def _base64_to_hex(value: Any) -> str:
    return base64.b64decode(value).hex()
