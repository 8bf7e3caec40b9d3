# SPDX-License-Identifier: Apache-2.0
"""Replayed spans as OTLP, several times as fast as the SDK's encoder, and equal to what it gives.

What is the same on many spans (the resource, the scope, a span's kind, flags and status) is taken
from the SDK's encoder itself, once. The rest of a span is put together as protobuf's wire format,
in which the parts of a message may simply follow each other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from agent_kernel_otel import semconv
from agent_kernel_otel._version import __version__
from agent_kernel_otel.audit.replay import ReplayedSpan
from agent_kernel_otel.telemetry import Value

REMEMBERED: Final = 4096
"""Attributes whose bytes are kept at most: about 1 MB."""

# A field begins with its number, times 8, and what follows: 2 is a length, 1 are eight bytes.
_REQUEST_RESOURCE_SPANS: Final = b"\x0a"
_RESOURCE_SCOPE_SPANS: Final = b"\x12"
_SCOPE_SPANS: Final = b"\x12"
_SPAN_ATTRIBUTES: Final = b"\x4a"
_SPAN_LINKS: Final = b"\x6a"
_PAIR_KEY: Final = b"\x0a"
_PAIR_VALUE: Final = b"\x12"
_VALUE_TEXT: Final = b"\x0a"
_IDS_AND_TIMES: Final = struct.Struct("<2s16s2s8scQcQ")
_TRACE_ID: Final = b"\x0a\x10"  # 16 bytes; in a link, too
_SPAN_ID: Final = b"\x12\x08"  # 8 bytes
_START: Final = b"\x39"
_END: Final = b"\x41"
_OWN_FIELDS: Final = (
    "trace_id",
    "span_id",
    "start_time_unix_nano",
    "end_time_unix_nano",
    "attributes",
    "links",
)

LinkKind = tuple[bool, str]
Encoded = TypeVar("Encoded", bytes, str)


class Encoder:
    """Encodes replayed spans for one resource.

    Args:
        resource: Whose spans they are.
    """

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        request = request_without_spans(resource)
        self._scope: bytes = request.resource_spans[0].scope_spans[0].SerializeToString()
        del request.resource_spans[0].scope_spans[:]
        self._head: bytes = request.resource_spans[0].SerializeToString()
        self._common: dict[tuple[str, bool], bytes] = {}
        self._attributes: dict[tuple[str, type, Value], bytes] = {}
        self._links: dict[LinkKind, bytes] = {}

    def spans(self, spans: Iterable[ReplayedSpan]) -> list[bytes]:
        """Encode spans one by one, so that any part of them can make a request."""
        return [_field(_SCOPE_SPANS, self._span(span)) for span in spans]

    def request(self, spans: Sequence[bytes]) -> bytes:
        """A serialized ``ExportTraceServiceRequest``.

        Args:
            spans: What :meth:`spans` gave, or a part of it.
        """
        scope_spans = _field(_RESOURCE_SCOPE_SPANS, self._scope + b"".join(spans))
        return _field(_REQUEST_RESOURCE_SPANS, self._head + scope_spans)

    def _span(self, span: ReplayedSpan) -> bytes:
        parts = [
            _IDS_AND_TIMES.pack(
                _TRACE_ID,
                span.trace_id,
                _SPAN_ID,
                span.span_id,
                _START,
                span.time,
                _END,
                span.end_time,
            ),
            self._common.get((span.name, span.failed)) or self._add_common(span),
        ]
        known = self._attributes.get
        for key, value in span.attributes.items():
            # The type, too: 1 and True are equal as keys.
            parts.append(known((key, type(value), value)) or self._add_attribute(key, value))
        if span.live is not None:
            parts.append(self._link(span.live))
        return b"".join(parts)

    def _add_common(self, span: ReplayedSpan) -> bytes:
        encoded: bytes = what_spans_share(span, self._resource).SerializeToString()
        keep(self._common, (span.name, span.failed), encoded)
        return encoded

    def _add_attribute(self, key: str, value: Value) -> bytes:
        if isinstance(value, str):
            # What cannot be encoded, a lone surrogate, must not cost the whole request.
            text = _field(_VALUE_TEXT, value.encode("utf-8", "replace"))
            name = _field(_PAIR_KEY, key.encode("utf-8", "replace"))
            encoded = _field(_SPAN_ATTRIBUTES, name + _field(_PAIR_VALUE, text))
        else:
            encoded = Span(attributes=[pair(key, value)]).SerializeToString()
        if not isinstance(value, float):  # 0.0 and -0.0 are equal as keys
            keep(self._attributes, (key, type(value), value), encoded)
        return encoded

    def _link(self, live: SpanContext) -> bytes:
        kind = link_kind(live)
        shared = self._links.get(kind)
        if shared is None:
            shared = what_links_share(live, self._resource).SerializeToString()
            keep(self._links, kind, shared)
        trace_id, span_id = live.trace_id.to_bytes(16, "big"), live.span_id.to_bytes(8, "big")
        return _field(_SPAN_LINKS, _TRACE_ID + trace_id + _SPAN_ID + span_id + shared)


def sdk_span(span: ReplayedSpan, resource: Resource) -> ReadableSpan:
    """A replayed span as one of the SDK's."""
    return ReadableSpan(
        span.name,
        SpanContext(
            int.from_bytes(span.trace_id, "big"),
            int.from_bytes(span.span_id, "big"),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        ),
        resource=resource,
        attributes=span.attributes,
        links=() if span.live is None else (Link(span.live),),
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=span.time,
        end_time=span.end_time,
        instrumentation_scope=InstrumentationScope(semconv.SCOPE_WEAVER, __version__),
    )


_ANY: Final = ReplayedSpan("", bytes(16), bytes(8), 0, {}, failed=False, live=None)


def request_without_spans(resource: Resource) -> Any:
    """A request with its resource, its scope and their schema URLs."""
    request = encode_spans([sdk_span(_ANY, resource)])
    del request.resource_spans[0].scope_spans[0].spans[:]
    return request


def what_spans_share(span: ReplayedSpan, resource: Resource) -> Any:
    """The message of a span with what it has in common with all of its name and end."""
    message = _message(span, resource)
    for field in _OWN_FIELDS:
        message.ClearField(field)
    return message


def link_kind(live: SpanContext) -> LinkKind:
    """What tells the links to live spans apart, besides their ids."""
    return live.is_remote, live.trace_state.to_header()


def what_links_share(live: SpanContext, resource: Resource) -> Any:
    """The message of a link with what it has in common with all of its kind."""
    (link,) = _message(replace(_ANY, live=live), resource).links
    link.ClearField("trace_id")
    link.ClearField("span_id")
    return link


def pair(key: str, value: bool | float) -> Any:
    """The message of an attribute that is no text."""
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(double_value=value))


def keep(cache: dict[Any, Encoded], key: object, encoded: Encoded) -> None:
    """Remember something encoded; never more than :data:`REMEMBERED`."""
    if len(cache) >= REMEMBERED:
        cache.clear()  # ids, which never come again, fill it: what does come again is soon back
    cache[key] = encoded


def _message(span: ReplayedSpan, resource: Resource) -> Any:
    return encode_spans([sdk_span(span, resource)]).resource_spans[0].scope_spans[0].spans[0]


def _field(tag: bytes, content: bytes) -> bytes:
    length = len(content)
    return tag + (_SHORT[length] if length < 128 else _varint(length)) + content


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SHORT: Final = tuple(bytes([length]) for length in range(128))
