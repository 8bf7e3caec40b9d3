# SPDX-License-Identifier: Apache-2.0
"""OTLP's JSON encoding: protobuf's own, but with trace and span ids as hexadecimal."""

from __future__ import annotations

import base64
import json
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]

from agent_kernel_otel.console import wire
from agent_kernel_otel.console.wire import MalformedPayload

if TYPE_CHECKING:
    from collections.abc import Callable

_ID_FIELDS: Final = ("traceId", "spanId", "parentSpanId")

_Plan = dict[str, "tuple[str, bool, Callable[[Any], Any]]"]
"""By JSON name: the field's own name, whether it repeats, and how one value is read."""


def decode(message: type[Any], payload: bytes) -> Any:
    """Reads an OTLP message from JSON; fields that it does not know are ignored.

    protobuf's own reader takes the ids as base64, and ten times as long.

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
    try:
        return message(**_read_message(message.DESCRIPTOR, fields))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # Of hostile values an error's text may hold very much.
        raise MalformedPayload(
            f"not a {message.DESCRIPTOR.name} in OTLP JSON ({str(error)[:200]})"
        ) from error


def encode(message: Any) -> str:
    """Writes an OTLP message as one line of JSON, in ASCII."""
    fields = wire.fields_of(message)
    _write_ids(fields)
    return json.dumps(fields, separators=(",", ":"))


def _read_message(descriptor: Any, fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise TypeError(f"{descriptor.name} must be an object")
    plan = _plan(descriptor)
    values: dict[str, Any] = {}
    for json_name, value in fields.items():
        if value is None or json_name not in plan:
            continue
        name, repeated, read = plan[json_name]
        if not repeated:
            values[name] = read(value)
        elif isinstance(value, list):
            values[name] = [read(item) for item in value]
        else:
            raise TypeError(f"{json_name} must be a list")
    return values


@cache
def _plan(descriptor: Any) -> _Plan:
    plan: _Plan = {}
    for field in descriptor.fields:
        # The label of a field is gone from newer descriptors, this property from older ones.
        repeated = (
            field.is_repeated
            if hasattr(field, "is_repeated")
            else field.label == FieldDescriptor.LABEL_REPEATED
        )
        # The proto's own spelling is legal in input.
        plan[field.name] = plan[field.json_name] = (field.name, repeated, _reader(field))
    return plan


def _reader(field: Any) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return partial(_read_message, field.message_type)
    if field.enum_type is not None:
        return partial(_read_enum, field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _read_id if field.json_name in _ID_FIELDS else _read_bytes
    readers: dict[int, Callable[[Any], Any]] = {
        FieldDescriptor.CPPTYPE_STRING: _read_text,
        FieldDescriptor.CPPTYPE_BOOL: _read_bool,
        FieldDescriptor.CPPTYPE_DOUBLE: float,
        FieldDescriptor.CPPTYPE_FLOAT: float,
    }
    return readers.get(field.cpp_type, _read_integer)


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text must be")
    return value


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{type(value).__name__} where true or false must be")
    return value


def _read_integer(value: Any) -> int:
    # 64-bit numbers come as text or as numbers, and some senders write 1.0.
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise TypeError(f"{value!r} where an integer must be")
    return int(value)


def _read_enum(descriptor: Any, value: Any) -> int:
    if isinstance(value, str) and value in descriptor.values_by_name:
        return int(descriptor.values_by_name[value].number)
    return _read_integer(value)


def _read_bytes(value: Any) -> bytes:
    return base64.b64decode(_read_text(value), validate=True)


def _read_id(value: Any) -> bytes:
    try:
        return bytes.fromhex(_read_text(value))
    except ValueError as error:
        raise ValueError("a trace or span id is not hexadecimal") from error


def _write_ids(root: Any) -> None:
    # Attribute keys are values of "key" fields, never JSON names, so this finds ids only.
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            for name in _ID_FIELDS:
                if name in node:
                    node[name] = base64.b64decode(node[name]).hex()
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
