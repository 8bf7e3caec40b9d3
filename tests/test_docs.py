# SPDX-License-Identifier: Apache-2.0
"""The pages say what the code does: references are current, links lead somewhere, settings exist."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import agent_kernel_otel
from agent_kernel_otel import InstrumentationConfig, cli, semconv
from agent_kernel_otel.weaver.targets import OPERATIONS, SEAMS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_generated_pages_are_up_to_date() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_reference_has_every_name_and_every_patch() -> None:
    page = (ROOT / "docs" / "tracing.md").read_text(encoding="utf-8")
    attributes = [attribute.name for attribute in semconv.ATTRIBUTES.values() if attribute.on]
    for name in (*semconv.SPANS, *attributes, *semconv.EVENTS):
        assert f"| `{name}` |" in page, name
    for target in OPERATIONS:
        assert f"| `{target.method}` |" in page
    for seam in SEAMS:
        assert f"| `{seam.attribute}` |" in page


def test_the_reference_has_every_metric_with_its_name_in_prometheus() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for metric in semconv.METRICS.values():
        assert f"| `{metric.name}` | `{metric.prometheus_name}` |" in page
        for key in metric.attributes:
            assert f"| `{key}` | {semconv.ATTRIBUTES[key].bound} |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}
            assert anchor in anchors, f"{page.name} links to {target}"


def test_the_readme_lists_exactly_the_settings_that_exist_with_their_defaults() -> None:
    table = README[README.index("| setting |") : README.index("## The console")]
    rows = {
        cells[1].strip("` "): cells[3].strip("` ")
        for cells in (line.split("|") for line in table.splitlines()[2:] if line.startswith("|"))
    }
    shown = {
        "None": {"random per process", "generated"},
        "frozenset()": {"none"},
        "False": {"false"},
    }
    assert sorted(rows) == sorted(setting.name for setting in fields(InstrumentationConfig))
    for setting in fields(InstrumentationConfig):
        default = str(setting.default)
        assert rows[setting.name] in shown.get(default, {default}), setting.name


def test_the_readme_names_only_what_can_be_imported_and_run() -> None:
    for name in re.findall(r"from agent_kernel_otel import (.+)", README):
        for imported in name.split(","):
            assert hasattr(agent_kernel_otel, imported.strip())
    commands = set(re.findall(r"agent-kernel-otel (\w+)", README))
    assert commands == set(cli.COMMANDS)
