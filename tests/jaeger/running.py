# SPDX-License-Identifier: Apache-2.0
"""A running Jaeger, and what it answers to the questions that its web page asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.jaeger.build import jaeger
from tests.support.collector_process import TELEMETRY, CollectorProcess
from tests.support.ports import HOST
from tests.support.scraped import HANGS_AFTER

_ANY_PORT: Final = {"endpoint": f"{HOST}:0"}
_LIMIT: Final = 1000


class Jaeger(CollectorProcess):
    """Takes OTLP, keeps it in memory and can be asked; a context manager.

    Args:
        folder: A directory for its configuration.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            jaeger(),
            folder / "jaeger.json",
            {
                "receivers": {"otlp": {"protocols": {"grpc": _ANY_PORT, "http": _ANY_PORT}}},
                "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
                "extensions": {
                    "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": _LIMIT}}}},
                    "jaeger_query": {
                        "storage": {"traces": "memory"},
                        "http": _ANY_PORT,
                        "grpc": _ANY_PORT,
                    },
                },
                "service": {
                    "extensions": ["jaeger_storage", "jaeger_query"],
                    "pipelines": {
                        "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
                    },
                    "telemetry": TELEMETRY,
                },
            },
        )

    def text(self, path: str, **parameters: str | int) -> str:
        """An answer of its HTTP interface; empty where there is nothing of the kind."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        try:
            # Nothing but http is asked for.
            with urlopen(
                f"http://{HOST}:{self.port('query')}{path}{query}", timeout=HANGS_AFTER
            ) as answer:
                return str(answer.read().decode())
        except HTTPError as error:
            if error.code != 404:
                raise
            return ""

    def services(self) -> set[str]:
        """The services that it knows spans of."""
        return set(json.loads(self.text("/api/services"))["data"] or ())

    def found(self, service: str, tags: Mapping[str, str], **parameters: str | int) -> list[Any]:
        """The traces with a span that has all of these tags, as its search finds them.

        Args:
            service: The one that the span is of; Jaeger demands one.
            tags: Attributes of the span or of its resource.
            **parameters: ``start`` and ``end``, in microseconds since the epoch, and others.
        """
        return list(
            json.loads(
                self.text(
                    "/api/traces",
                    service=service,
                    tags=json.dumps(tags),
                    limit=_LIMIT,
                    **parameters,
                )
            )["data"]
        )

    def trace(self, trace_id: str, **parameters: str | int) -> Any:
        """The trace that the page ``/trace/{trace_id}`` shows, or ``None``."""
        text = self.text(f"/api/traces/{trace_id}", **parameters)
        return json.loads(text)["data"][0] if text else None
