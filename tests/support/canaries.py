# SPDX-License-Identifier: Apache-2.0
"""Unique secrets to plant, made at run time: a literal would be fed back by Hypothesis as an id."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from tests.support.capture import Capture

SHAPES: dict[str, Callable[[str], str]] = {
    "word": lambda unique: unique,
    "bearer": lambda unique: f"Bearer sk-live-{unique}",
    "url": lambda unique: f"https://u:{unique}@h/",
    "mail": lambda unique: f"{unique}@example.com",
}
PATTERNED = ("bearer", "url", "mail")
"""The shapes by which a secret can be known."""


class Canaries:
    """Plants secrets of one shape, and looks for them in all that was exported."""

    def __init__(self, shape: str = "word") -> None:
        self._shape = SHAPES[shape]
        self.planted: dict[str, str] = {}

    def plant(self, place: str) -> str:
        """A new secret for a place."""
        unique = "canary" + secrets.token_hex(8)
        self.planted[place] = unique
        return self._shape(unique)

    def places_in(self, capture: Capture) -> list[str]:
        """The places whose secret was exported, as text or as OTLP bytes."""
        wire = (
            encode_spans(capture.span_exporter.get_finished_spans()).SerializeToString()
            + encode_logs(capture.log_exporter.get_finished_logs()).SerializeToString()
        )
        text = capture.exported_text()
        return [
            place
            for place, unique in self.planted.items()
            if unique in text or unique.encode() in wire
        ]
