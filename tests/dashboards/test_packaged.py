# SPDX-License-Identifier: Apache-2.0
"""The dashboards that are shipped can be provisioned, ask only for what there is, and leave none out."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.dashboards import kelpie
from agent_kernel_otel.dashboards.promql import label
from tests.dashboards.packaged import (
    ALSO,
    DASHBOARDS,
    KELPIE,
    WEAVER,
    Json,
    chosen,
    expressions,
    metrics,
    panels,
    selectors,
    variables,
)

PANELS = {
    "kelpie": 18,
    "weaver-audit": 15,
    "weaver-budgets": 11,
    "weaver-firewall": 17,
    "weaver-overview": 22,
    "weaver-policy": 17,
}
OF_PROMETHEUS = {"job", "instance", "le"}
EACH = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
QUERIES = [
    pytest.param(panel, expression, id=f"{name}-{panel['title']}-{number}")
    for name, dashboard in DASHBOARDS.items()
    for number, (panel, expression) in enumerate(expressions(dashboard))
]


def test_there_are_as_many_panels_as_were_counted() -> None:
    assert {name: len(panels(dashboard)) for name, dashboard in DASHBOARDS.items()} == PANELS


def test_each_has_an_id_of_its_own() -> None:
    uids = [dashboard["uid"] for dashboard in DASHBOARDS.values()]
    assert len({*uids}) == len(uids)
    assert all(re.fullmatch(r"[a-z-]{1,40}", uid) for uid in uids)


@EACH
def test_a_dashboard_is_the_bare_object_that_provisioning_takes(dashboard: Json) -> None:
    assert "dashboard" not in dashboard
    assert dashboard["title"]
    assert "id" not in dashboard  # which is Grafana's to give


@EACH
def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: Json) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len({*ids}) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@EACH
def test_titles_tell_the_panels_of_a_heading_apart(dashboard: Json) -> None:
    seen: set[str] = set()
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            seen = set()
        assert panel["title"]
        assert panel["title"] not in seen
        seen.add(panel["title"])


@EACH
def test_every_panel_asks_the_data_source_that_is_chosen(dashboard: Json) -> None:
    assert variables(dashboard)["datasource"]["query"] == "prometheus"
    for panel in panels(dashboard):
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@EACH
def test_every_panel_says_what_it_shows_and_what_to_do(dashboard: Json) -> None:
    for panel in panels(dashboard):
        shows, advice = panel["description"].split("\n\n")
        colours = {
            step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        }
        when = "When it is red" if "red" in colours else "When it looks wrong"
        assert shows.endswith(".")
        assert re.fullmatch(rf"\*\*{when}:\*\* .+\.", advice)


@EACH
def test_thresholds_rise(dashboard: Json) -> None:
    for panel in panels(dashboard):
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0] == {"color": "green", "value": None}
        values = [step["value"] for step in steps[1:]]
        assert values == sorted(values)


@EACH
def test_every_variable_is_used_and_every_used_one_is_there(dashboard: Json) -> None:
    text = json.dumps({**dashboard, "templating": None})
    queries = " ".join(variable["query"] for variable in chosen(dashboard).values())
    used = {*re.findall(r"\$\{?([a-z]\w*)", text), *re.findall(r"\$(\w+)", queries)}
    assert used == set(variables(dashboard))


@EACH
def test_what_is_chosen_can_be_several_or_all_of_it(dashboard: Json) -> None:
    assert {"job", "instance"} <= set(chosen(dashboard))
    for variable in chosen(dashboard).values():
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".*"
    for _, expression in expressions(dashboard):
        for _, matchers in selectors(expression):
            assert matchers.startswith('job=~"$job", instance=~"$instance"')
            for variable in re.findall(r"\$(\w+)", matchers):
                assert f'=~"${variable}"' in matchers


def test_every_metric_of_the_reference_is_on_a_panel() -> None:
    for names, reference in ((WEAVER, semconv.METRICS.values()), (KELPIE, kelpie.METRICS)):
        shown = {
            metrics()[series].name
            for name in names
            for _, expression in expressions(DASHBOARDS[name])
            for series, _ in selectors(expression)
            if series not in ALSO
        }
        assert shown == {metric.name for metric in reference}


@pytest.mark.parametrize(("panel", "expression"), QUERIES)
def test_a_query_names_series_labels_values_and_buckets_that_there_are(
    panel: Json, expression: str
) -> None:
    asked = [(series, matchers) for series, matchers in selectors(expression)]
    assert asked
    labels = set(OF_PROMETHEUS)
    for series, matchers in asked:
        if series in ALSO:
            assert matchers == 'job=~"$job", instance=~"$instance"'
            continue
        metric = metrics()[series]
        keys = {label(key): key for key in (*metric.attributes, semconv.SYSTEM)}
        labels |= set(keys)
        for name, operator, value in re.findall(r'(\w+)(=~|!=|=)"(.*?)"', matchers):
            if name == "le":
                assert float(value.removesuffix(r"(\\.0)?")) in metric.bounds
            elif value.startswith("$"):
                assert operator == "=~"
            elif name in keys and keys[name] in semconv.ATTRIBUTES:
                definition = semconv.ATTRIBUTES[keys[name]]
                known = {"", *(definition.values or (*definition.known, semconv.OTHER))}
                assert known.issuperset(value.split("|") if operator == "=~" else [value])
    for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(filter(None, grouped.split(", "))) <= labels
    for legend in (query.get("legendFormat", "") for query in panel["targets"]):
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels


@pytest.mark.parametrize(("panel", "expression"), QUERIES)
def test_a_query_does_not_hide_that_there_is_nothing(panel: Json, expression: str) -> None:
    assert "vector(" not in expression
    assert "absent" not in expression
    # Only what began within the range is taken in another way than what was there before.
    begun = r"\(max_over_time\((.+)\[\$__range\]\) unless \1 offset \$__range\) or increase\(\1\["
    assert expression.count(" or ") == len(re.findall(begun, expression))


@pytest.mark.parametrize(("panel", "expression"), QUERIES)
def test_what_only_rises_is_asked_for_by_its_rate_before_it_is_added_up(
    panel: Json, expression: str
) -> None:
    for series, matchers in selectors(expression):
        if series in ALSO:
            continue
        instrument = metrics()[series].instrument
        selector = re.escape(f"{series}{{{matchers}}}")
        rated = re.search(rf"\b(rate|increase|max_over_time)\({selector}\[\$__\w+\]\)", expression)
        if instrument in {"counter", "histogram"}:
            assert rated
            if rated[1] == "max_over_time":  # of what began within the range it is the increase
                assert f"unless {series}{{{matchers}}} offset $__range" in expression
        else:
            assert not rated


@pytest.mark.parametrize(("panel", "expression"), QUERIES)
def test_a_graph_takes_its_window_from_grafana_and_a_number_may_take_all_that_is_shown(
    panel: Json, expression: str
) -> None:
    windows = set(re.findall(r"\[(.+?)\]", expression))
    assert windows <= {"$__rate_interval", "$__range"}
    if panel["type"] == "timeseries":
        assert windows <= {"$__rate_interval"}


@pytest.mark.parametrize(("panel", "expression"), QUERIES)
def test_a_share_is_shown_only_where_there_is_enough_to_tell(panel: Json, expression: str) -> None:
    if " / " in expression and "budget" not in expression and "_sum{" not in expression:
        assert re.search(r" >= 10\)", expression)
        if panel["type"] == "timeseries":
            assert panel["interval"] == "5m"
            # Kelpie's counters are absent until the first.
            part, _, _ = expression.partition(" / ")
            none = "none, or " if "kelpie_invocations_total" in part else ""
            assert panel["fieldConfig"]["defaults"]["noValue"] == f"{none}too few to tell"


@EACH
def test_points_of_durations_link_to_their_traces(dashboard: Json) -> None:
    for panel in panels(dashboard):
        for number, query in enumerate(panel["targets"]):
            of_buckets = "_bucket{" in query["expr"] and panel["type"] == "timeseries"
            exact = "le=~" in query["expr"]
            once = number == 0  # the others of a panel are of the same histogram
            assert query.get("exemplar", False) == (of_buckets and not exact and once)


@pytest.mark.parametrize("name", WEAVER)
def test_panels_link_to_traces_in_tempo_and_in_jaeger(name: str) -> None:
    linked = [
        panel["fieldConfig"]["defaults"]["links"]
        for panel in panels(DASHBOARDS[name])
        if "links" in panel["fieldConfig"]["defaults"]
    ]
    assert linked or name == "weaver-audit"  # which links to them by the action's id
    for links in linked:
        assert [link["title"] for link in links] == ["Traces in Tempo", "Traces in Jaeger"]
        for link, backend in zip(links, ("tempo", "jaeger"), strict=True):
            address = urlsplit(link["url"])
            assert address.path == "/explore"
            pane = json.loads(parse_qs(address.query)["panes"][0])["traces"]
            (query,) = pane["queries"]
            assert pane["datasource"] == query["datasource"]["uid"] == f"${{{backend}}}"
            assert query["datasource"]["type"] == backend


@EACH
def test_a_link_takes_what_its_panel_has(dashboard: Json) -> None:
    for panel in panels(dashboard):
        by = {
            one
            for query in panel["targets"]
            for names in re.findall(r"\bby \(([^)]*)\)", query["expr"])
            for one in names.split(", ")
        }
        for link in panel["fieldConfig"]["defaults"].get("links", []):
            for taken in re.findall(r"\$\{(.+?)\}", link["url"]):
                # Nothing else comes out of Grafana's expansion of an encoded address.
                assert re.fullmatch(r"\w+(\.\w+)*", taken)
                kind, _, name = taken.rpartition(".")
                table = panel["type"] == "table"
                assert kind in ({"", "__data.fields"} if table else {"", "__field.labels"})
                assert name in by or not kind


@EACH
def test_counts_have_no_fractions(dashboard: Json) -> None:
    for panel in panels(dashboard):
        (first, *_) = (query["expr"] for query in panel["targets"])
        counts = re.match(r"sum(?: by \([^)]*\) )?\(\(?(?:increase|max_over_time)\(", first)
        if panel["type"] == "stat" and " / " not in first:
            assert panel["fieldConfig"]["defaults"].get("decimals") == (0 if counts else None)
        if panel["type"] == "table" and counts:
            (properties, *_) = (one["properties"] for one in panel["fieldConfig"]["overrides"])
            assert {"id": "decimals", "value": 0} in properties


def test_an_action_is_found_by_the_id_that_its_audit_record_has() -> None:
    dashboard = DASHBOARDS["weaver-audit"]
    links = {link["title"]: link["url"] for link in dashboard["links"] if link["url"]}
    assert set(links) == {"Search in Tempo", "Search in Jaeger"}
    panes = parse_qs(urlsplit(links["Search in Tempo"]).query)["panes"][0]
    (query,) = json.loads(panes)["traces"]["queries"]
    assert query["query"] == f'{{ span.{semconv.ACTION_ID} = "${{action:percentencode}}" }}'
