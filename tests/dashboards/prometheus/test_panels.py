# SPDX-License-Identifier: Apache-2.0
"""Every query of every panel has an answer after a real run, whatever its viewer chooses."""

from __future__ import annotations

import pytest

from tests.dashboards.packaged import DASHBOARDS, KELPIE, WEAVER, Json, chosen, expressions
from tests.dashboards.prometheus.asking import ALL, Asked

STILL = {
    "Running", "Running by capability",  # all have ended
    "Not answering",  # it did
    "Slower than a second",  # none was
}  # fmt: skip
"""Panels that show 0 after the run."""


def _queries(names: list[str]) -> list[object]:
    return [
        pytest.param(DASHBOARDS[name], panel, expression, id=f"{name}-{panel['title']}-{number}")
        for name in names
        for number, (panel, expression) in enumerate(expressions(DASHBOARDS[name]))
    ]


@pytest.mark.parametrize(("dashboard", "panel", "expression"), _queries(WEAVER))
def test_a_panel_of_the_weaver_kernel_shows_what_the_run_did(
    dashboard: Json, panel: Json, expression: str, weaver: Asked
) -> None:
    _shows_something(dashboard, panel, expression, weaver)


@pytest.mark.parametrize(("dashboard", "panel", "expression"), _queries(KELPIE))
def test_a_panel_of_kelpie_shows_what_its_page_says(
    dashboard: Json, panel: Json, expression: str, kelpie: Asked
) -> None:
    _shows_something(dashboard, panel, expression, kelpie)


def _shows_something(dashboard: Json, panel: Json, expression: str, asked: Asked) -> None:
    for variables in (ALL, asked.all_by_name(dashboard)):
        values = asked.values(panel, expression, variables)
        assert values
        assert any(values) or panel["title"] in STILL


@pytest.mark.parametrize("name", WEAVER)
def test_a_variable_of_the_weaver_kernel_offers_what_there_is(name: str, weaver: Asked) -> None:
    offered = weaver.options(DASHBOARDS[name])
    assert offered["job"] == ["agent"]
    assert len(offered["instance"]) == 1
    if "capability" in offered:
        assert {"orders.list", "orders.purge", "_OTHER"} <= set(offered["capability"])
    if "session" in offered:
        assert len(offered["session"]) >= 2


@pytest.mark.parametrize("name", KELPIE)
def test_a_variable_of_kelpie_offers_what_there_is(name: str, kelpie: Asked) -> None:
    offered = kelpie.options(DASHBOARDS[name])
    assert set(offered) == set(chosen(DASHBOARDS[name]))
    assert all(offered.values())


def test_one_capability_alone_can_be_chosen(weaver: Asked) -> None:
    dashboard = DASHBOARDS["weaver-overview"]
    by_title = {panel["title"]: expression for panel, expression in expressions(dashboard)}
    variables = {**ALL, "capability": "orders\\\\.list"}
    (panel,) = (p for p in dashboard["panels"] if p["title"] == "Running by capability")
    instant = {**panel, "type": "stat"}
    assert len(weaver.values(instant, by_title["Invocations by capability"], ALL)) > 1
    assert len(weaver.values(instant, by_title["Invocations by capability"], variables)) == 1


def test_a_choice_that_nothing_has_shows_nothing(weaver: Asked) -> None:
    for name in WEAVER:
        for panel, expression in expressions(DASHBOARDS[name]):
            assert not weaver.values(panel, expression, {**ALL, "instance": "no such instance"})


def test_exemplars_can_be_asked_for_where_a_panel_wants_them(weaver: Asked) -> None:
    wanted = [
        query["expr"]
        for name in WEAVER
        for panel in DASHBOARDS[name]["panels"]
        for query in panel.get("targets", [])
        if query.get("exemplar")
    ]
    assert wanted
    for expression in wanted:
        # The page of an app carries none; the question is understood.
        assert weaver.exemplars(expression) == []
