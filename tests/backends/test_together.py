# SPDX-License-Identifier: Apache-2.0
"""One gateway with the files of all backends: each gets everything, and none gets in another's way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent_kernel_otel import semconv
from tests.backends.isolated import IsolatedIntake
from tests.backends.running import TOUR, Gateway, run_app, wait_until
from tests.collector.running import Collector
from tests.support.ports import HOST

OTLP: Final = ("jaeger", "grafana-cloud", "lgtm")
SPANS: Final = 40
"""Those of the tour, without its dry run, which the gateway drops."""


class Store(Collector):
    """Stands for every backend that takes OTLP, in the network of Datadog's intake."""

    def __init__(self, folder: Path, inside: Sequence[str]) -> None:
        super().__init__(folder, {})
        self._command[:0] = inside

    def times(self, signal: str, key: str) -> Counter[str]:
        """How often each has come, by its name or one of its ids."""
        try:
            return Counter(item.raw[key] for item in self.received(signal) if key in item.raw)
        except (FileNotFoundError, ValueError):
            return Counter()  # it is just being written


def test_every_backend_gets_every_span_once_and_nobody_else_anything(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with (
        IsolatedIntake(tmp_path) as intake,
        Store(tmp_path / "store", intake.inside) as store,
        Gateway(
            tmp_path,
            *(*OTLP, "datadog", "datadog-apm", "kelpie"),
            variables={
                "DD_API_KEY": "0" * 32,
                "GRAFANA_CLOUD_AUTH": "MTp0",
                "GRAFANA_CLOUD_OTLP_ENDPOINT": f"http://{HOST}:{store.port('http')}",
                "LGTM_ENDPOINT": f"http://{HOST}:{store.port('http')}",
                "JAEGER_ENDPOINT": f"{HOST}:{store.port('grpc')}",
                "KELPIE_TARGETS": "[]",
                "KELPIE_OTLP_ENDPOINT": f"{HOST}:0",
            },
            settings=intake.settings,
            inside=intake.inside,
        ) as gateway,
    ):
        run_app(gateway, "tour", TOUR)
        wait_until(lambda: store.times("traces", "spanId").total() == SPANS * len(OTLP))
        wait_until(lambda: store.times("metrics", "name")[semconv.INVOCATIONS.name] == 2)
        wait_until(lambda: len(intake.spans()) == SPANS)
        assert set(store.times("traces", "spanId").values()) == {len(OTLP)}
        assert gateway.warnings() == []
