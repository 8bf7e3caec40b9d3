# SPDX-License-Identifier: Apache-2.0
"""The rules name what there is: series, labels, values, headings of the runbooks; and all have cases."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from agent_kernel_otel import semconv
from tests.alerts.cases import CASES
from tests.alerts.cases.case import label
from tests.alerts.rules import ALERTS, COLLECTOR, FOLDER, RECORDINGS, Alert, Recording

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
TARGET = {"job", "instance", "__name__"}
WORDS = {
    *(
        "sum",
        "count",
        "max",
        "rate",
        "increase",
        "delta",
        "absent",
        "vector",
        "count_over_time",
        "max_over_time",
        "topk",
    ),
    *("and", "or", "unless", "offset"),
}
ATTRIBUTES = {label(name): attribute for name, attribute in semconv.ATTRIBUTES.items()}
OF_KERNEL = {
    metric.prometheus_name: {
        *map(label, metric.attributes),
        *([label(semconv.SYSTEM)] if metric.of_kernel else []),
    }
    for metric in semconv.METRICS.values()
    if not metric.bounds
}
"""The labels of each series, besides the target's."""
RULES: list[Alert | Recording] = [*RECORDINGS, *ALERTS]
QUERIES = re.findall(r"^```promql\n(.+?)\n```$", RUNBOOKS, re.MULTILINE | re.DOTALL)
_RECORDED_AS = r"[a-z_]+:[a-z_]+:(ratio|count|(ratio_rate|rate|increase)\d+[mhd])"


def name(rule: Alert | Recording) -> str:
    return rule.id if isinstance(rule, Alert) else " ".join((rule.name, *rule.labels.values()))


def grouped(expression: str) -> set[str]:
    """The labels by which an expression adds up or joins."""
    found = re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", expression)
    return {one for names in found for one in names.split(", ") if one}


RECORDED = {
    recording.name: grouped(recording.expression)
    | {one for other in RECORDINGS if other.name in recording.expression for one in grouped(other.expression)}
    | set(recording.labels)
    for recording in RECORDINGS
}  # fmt: skip
SERIES = {**OF_KERNEL, **COLLECTOR, **RECORDED}


def selectors(expression: str) -> list[tuple[str, str]]:
    """Each series of an expression, with the matchers of its labels."""
    by_name = re.findall(r'{__name__=~"(\w+)\(_total\)\?"}', expression)
    bare = re.sub(r"\b(by|on|group_left) \([^)]*\)", "", expression)
    bare = re.sub(r"{__name__[^}]*}|\[\w+(?::\w+)?\]|\boffset \w+", "", bare)
    found = re.findall(r"\b([a-z_][\w:]*)(?:{([^}]*)})?", re.sub(r'(?<={)[^"]*"}', "", bare))
    return [(one, "") for one in by_name] + [pair for pair in found if pair[0] not in WORDS]


@pytest.mark.parametrize(
    "expression",
    [*(rule.expression for rule in RULES), *QUERIES],
    ids=[*map(name, RULES), *(f"runbooks {number}" for number, _ in enumerate(QUERIES))],
)
def test_a_rule_names_series_labels_and_values_that_there_are(expression: str) -> None:
    asked = selectors(expression)
    assert asked or expression == "vector(0.01)" or "__name__" in expression
    labels = TARGET.union(*(SERIES[series] for series, _ in asked))
    assert grouped(expression) <= labels
    for series, matchers in asked:
        for key, operator, values in re.findall(r'(\w+)(=~|!=|=)"(.*?)"', matchers):
            assert key in SERIES[series]
            known = ATTRIBUTES[key]
            for value in values.split("|") if operator == "=~" else [values]:
                assert value in (known.values or (*known.known, semconv.OTHER))


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_what_only_rises_is_asked_for_by_its_rate_before_it_is_added_up(
    rule: Alert | Recording,
) -> None:
    counters = [m.prometheus_name for m in semconv.METRICS.values() if m.instrument == "counter"]
    for counter in (*counters, '{__name__=~"'):
        rated = re.findall(
            rf"\b(?:rate|increase)\({re.escape(counter)}[^\[\]()]*(?:\(_total\)\?\"}})?\[\d+[mhd]\]",
            rule.expression,
        )
        assert len(rated) == rule.expression.count(counter)


def test_every_recording_rule_is_asked_for_and_named_by_level_metric_and_operations() -> None:
    asked = {series for rule in RULES for series, _ in selectors(rule.expression)}
    for recording in RECORDINGS:
        assert recording.name in asked
        assert re.fullmatch(_RECORDED_AS, recording.name)


def test_no_two_rules_are_the_same() -> None:
    assert not [one for one, times in Counter(map(name, RULES)).items() if times > 1]


@pytest.mark.parametrize("alert", ALERTS, ids=name)
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: Alert) -> None:
    assert alert.labels["severity"] in {"page", "ticket"}
    assert set(alert.annotations) == {"summary", "description", "runbook_url"}
    assert "$value" in alert.annotations["description"] or "absent(" in alert.expression
    project = re.search(r'Changelog = "(https://.+)/CHANGELOG.md"', PYPROJECT)
    assert project
    page, _, anchor = alert.annotations["runbook_url"].partition("#")
    assert page == f"{project[1]}/docs/runbooks.md"
    assert anchor == alert.name.lower()
    assert f"### {alert.name}\n" in RUNBOOKS


def test_every_runbook_of_an_alert_has_one() -> None:
    assert set(re.findall(r"^### (AgentKernel\w+)$", RUNBOOKS, re.MULTILINE)) == {
        alert.name for alert in ALERTS
    }


@pytest.mark.parametrize("alert", ALERTS, ids=name)
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent(alert: Alert) -> None:
    about = [case for case in CASES if case.about == alert.id]
    assert [case for case in about if alert.id in {fired.alert for fired in case.fires}]
    assert [case for case in about if not case.fires]


def test_every_case_is_about_an_alert() -> None:
    known = {alert.id for alert in ALERTS}
    assert {case.about for case in CASES} <= known
    assert {fired.alert for case in CASES for fired in case.fires} <= known


def test_the_runbooks_name_the_ports_at_which_collectors_tell_of_themselves() -> None:
    ports = {
        port
        for file in FOLDER.parent.glob("*.yaml")
        for port in re.findall(r"_METRICS_PORT:-(\d+)}", file.read_text(encoding="utf-8"))
    }
    assert len(ports) == 3
    introduction = RUNBOOKS.partition("\n## ")[0]
    assert set(re.findall(r"\b\d*8888\b", introduction)) == ports


def test_no_credentials_are_in_the_files() -> None:
    for file in FOLDER.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            told = re.match(r"\s*-?\s*(\w*(?:key|url|token|password|secret)\w*):", line)
            assert not told or told[1].endswith("_file") or told[1] == "runbook_url", line
