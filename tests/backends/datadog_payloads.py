# SPDX-License-Identifier: Apache-2.0
"""As much of Datadog's own wire formats as the tests look at.

The numbers of fields are those of ``agent_payload.proto`` in DataDog/agent-payload and of its namesake in
DataDog/datadog-agent. Trace metrics come as MessagePack, all else as Protocol Buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Span:
    """What Datadog calls a span: a service's operation on a resource."""

    service: str
    operation: str
    resource: str
    error: bool
    meta: dict[str, str]


@dataclass(frozen=True)
class Series:
    """The points of a count or a gauge."""

    metric: str
    host: str
    tags: frozenset[str]
    kind: str
    points: tuple[float, ...]


@dataclass(frozen=True)
class Sketches:
    """A distribution, and how many values are in it."""

    metric: str
    tags: frozenset[str]
    count: int


@dataclass(frozen=True)
class Stats:
    """A group of trace metrics."""

    service: str
    operation: str
    resource: str
    hits: int
    errors: int


def host(payload: bytes) -> str:
    """The sender of an ``AgentPayload``."""
    return _text(payload, 1)


def spans(payload: bytes) -> Iterator[Span]:
    """Those of an ``AgentPayload``."""
    for span in _inside(payload, 5, 6, 3):
        yield Span(
            service=_text(span, 1),
            operation=_text(span, 2),
            resource=_text(span, 3),
            error=bool(_first(span, 9, 0)),
            meta={_text(entry, 1): _text(entry, 2) for entry in _inside(span, 10)},
        )


def series(payload: bytes) -> Iterator[Series]:
    """Those of a ``MetricPayload``."""
    for one in _inside(payload, 1):
        hosts = [_text(r, 2) for r in _inside(one, 1) if _text(r, 1) == "host"]
        yield Series(
            metric=_text(one, 2),
            host="".join(hosts),
            tags=frozenset(tag.decode() for tag in _inside(one, 3)),
            kind={1: "count", 2: "rate", 3: "gauge"}[_first(one, 5, 0)],
            points=tuple(
                struct.unpack("<d", _first(point, 1, bytes(8)))[0] for point in _inside(one, 4)
            ),
        )


def sketches(payload: bytes) -> Iterator[Sketches]:
    """Those of a ``SketchPayload``."""
    for one in _inside(payload, 1):
        yield Sketches(
            metric=_text(one, 1),
            tags=frozenset(tag.decode() for tag in _inside(one, 4)),
            count=sum(_first(sketch, 2, 0) for sketch in _inside(one, 7)),
        )


def stats(payload: bytes) -> Iterator[Stats]:
    """Those of a ``StatsPayload``."""
    parsed, _ = _unpacked(payload, 0)
    for client in parsed["Stats"]:
        for bucket in client["Stats"]:
            for group in bucket["Stats"]:
                yield Stats(
                    service=group["Service"],
                    operation=group["Name"],
                    resource=group["Resource"],
                    hits=group["Hits"],
                    errors=group["Errors"],
                )


def _inside(message: Any, *path: int) -> Iterator[Any]:
    """All values at the end of a path of fields."""
    if not path:
        yield message
        return
    for number, value in _fields(message):
        if number == path[0]:
            yield from _inside(value, *path[1:])


def _first(message: bytes, number: int, default: Any) -> Any:
    return next(_inside(message, number), default)


def _text(message: bytes, number: int) -> str:
    return str(_first(message, number, b"").decode())


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value: Any
        if key & 7 == _VARINT:
            value, at = _varint(message, at)
        else:
            length = {_FIXED_64: 8, _FIXED_32: 4}.get(key & 7)
            if length is None:
                length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_LENGTHS = {
    0xC4: 1,
    0xC5: 2,
    0xC6: 4,
    0xD9: 1,
    0xDA: 2,
    0xDB: 4,
    0xDC: 2,
    0xDD: 4,
    0xDE: 2,
    0xDF: 4,
}


def _unpacked(packed: bytes, at: int) -> tuple[Any, int]:
    """A value in MessagePack, and where the next one begins."""
    kind, at = packed[at], at + 1
    if kind < 0x80 or kind >= 0xE0:
        return kind if kind < 0x80 else kind - 256, at
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind in _NUMBERS:
        (number,) = struct.unpack_from(_NUMBERS[kind], packed, at)
        return number, at + struct.calcsize(_NUMBERS[kind])
    if kind in _LENGTHS:
        width = _LENGTHS[kind]
        length, at = int.from_bytes(packed[at : at + width], "big"), at + width
    else:
        length = kind & (0x1F if kind >= 0xA0 else 0x0F)
    if kind >= 0xDE or kind < 0x90:
        pairs, at = _several(packed, at, 2 * length)
        return dict(zip(pairs[::2], pairs[1::2], strict=True)), at
    if kind >= 0xDC or kind < 0xA0:
        return _several(packed, at, length)
    raw = packed[at : at + length]
    return raw if kind in (0xC4, 0xC5, 0xC6) else raw.decode(), at + length


def _several(packed: bytes, at: int, number: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(number):
        value, at = _unpacked(packed, at)
        values.append(value)
    return values, at
