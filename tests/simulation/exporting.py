# SPDX-License-Identifier: Apache-2.0
"""An app that plays a seed and says what it saw; run it bare, or under ``opentelemetry-instrument``."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from agent_kernel_otel import stats
from tests.simulation.process import play_bare
from tests.simulation.seed import plan_of
from tests.simulation.world import World


def seen_in(world: World) -> str:
    """A digest of all that the application saw."""
    seen: list[Any] = [run.seen_by_app() for _, run in sorted(world.runs.items())]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def main() -> None:
    """Play, and print one line of JSON."""
    world = play_bare(plan_of(int(sys.argv[1]), int(sys.argv[2])))
    counted = [[*series, number] for series, number in stats.snapshot().counts.items() if number]
    print(json.dumps({"seen": seen_in(world), "counted": counted}))


if __name__ == "__main__":
    main()
