# SPDX-License-Identifier: Apache-2.0
"""The page about counting: its flow yields exactly what it says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from agent_kernel_otel import StatsSnapshot
from tests.stats.differences import DIFFERENCES
from tests.test_without_opentelemetry import BLOCK

PAGE = (Path(__file__).parents[2] / "docs" / "counting.md").read_text(encoding="utf-8")

SHOW = """
import json
from dataclasses import fields
print("RESULT", repr((
    {field.name: getattr(seen, field.name) for field in fields(seen)
     if field.name not in ("counts", "denials_by_reason")}
    | {"denials_by_reason": dict(seen.denials_by_reason)},
    {pair: {label: number for label, number in seen.by(*pair).items() if number}
     for pair in PAIRS},
)))
"""


def flow() -> str:
    """The code of the page's flow."""
    (code,) = re.findall(r"test_page\.py[^\n]*\n```python\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that begins with such a heading."""
    lines = PAGE[PAGE.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("absent", [[], ["opentelemetry"]], ids=["with", "without"])
def test_the_flow_comes_to_what_the_page_says(absent: list[str]) -> None:
    numbers = {name: ast.literal_eval(value) for name, value, _ in rows("| field | value |")}
    by_label = {
        (metric, label): ast.literal_eval(counted)
        for metric, label, counted in rows("| metric | label |")
    }
    script = f"ABSENT, PAIRS = {absent!r}, {list(by_label)!r}\n{BLOCK}\n{flow()}\n{SHOW}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    result = done.stdout.rpartition("RESULT ")[2]
    assert ast.literal_eval(result) == (numbers, by_label)


def test_the_flow_has_every_field() -> None:
    named = {name for name, *_ in rows("| field | value |")}
    assert named == {field.name for field in fields(StatsSnapshot)} - {"counts"}


def test_the_page_lists_every_known_difference_from_the_kernels_own_counters() -> None:
    listed = re.findall(r"^- (.+?)[;.]$", PAGE[PAGE.index("To `kernel.stats`") :], re.MULTILINE)
    assert listed == list(DIFFERENCES)
