# SPDX-License-Identifier: Apache-2.0
"""Writes the packaged dashboards: ``python -m agent_kernel_otel.dashboards.build``.

Needs ``grafana-foundation-sdk``, which the development environment has. A kernel more is a module
more, whose dashboards are listed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent_kernel_otel.dashboards import kelpie, weaver
from agent_kernel_otel.dashboards.grafana import as_json

if TYPE_CHECKING:
    from agent_kernel_otel.dashboards.model import Dashboard

DASHBOARDS: Final[tuple[Dashboard, ...]] = (*weaver.DASHBOARDS, *kelpie.DASHBOARDS)
FOLDER: Final = Path(__file__).parent / "json"


def built() -> dict[str, str]:
    """All dashboards, by the names of their files."""
    return {f"{dashboard.name}.json": as_json(dashboard) for dashboard in DASHBOARDS}


def main() -> None:
    """Writes them, and removes those that are no more."""
    FOLDER.mkdir(exist_ok=True)
    files = built()
    for old in FOLDER.glob("*.json"):
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
