# SPDX-License-Identifier: Apache-2.0
"""What is shipped is what the builder makes, always the same, and what Grafana's own types read."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel

from agent_kernel_otel.dashboards import build
from tests.dashboards.packaged import DASHBOARDS, FILES, Json

BUILD = (
    "import json; from agent_kernel_otel.dashboards.build import built; print(json.dumps(built()))"
)


def test_the_files_are_what_the_builder_makes() -> None:
    assert build.built() == FILES, "the dashboards have changed: make dashboards"


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_makes_the_same_bytes(seed: str) -> None:
    made = subprocess.run(
        [sys.executable, "-c", BUILD],
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(made.stdout) == FILES


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_grafanas_own_types_read_every_field_of_it(dashboard: Json) -> None:
    register_default_plugins()
    read = Dashboard.from_json(dashboard)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == dashboard
    kinds = {type(panel) for panel in read.panels or ()}
    assert kinds == {Panel, RowPanel}
