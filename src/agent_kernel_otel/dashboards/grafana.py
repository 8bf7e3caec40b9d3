# SPDX-License-Identifier: Apache-2.0
"""Dashboards as Grafana reads them: for version 10.1 and later, made by Grafana's own builders.

The only module that needs ``grafana-foundation-sdk``, which in turn needs Python 3.11; its types are
not checked where the code is checked for 3.10.
"""

from __future__ import annotations

import json
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from agent_kernel_otel import semconv
from agent_kernel_otel.dashboards import explore
from agent_kernel_otel.dashboards.model import GRID_WIDTH
from agent_kernel_otel.dashboards.promql import label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_kernel_otel.dashboards.model import Dashboard, Kind, Panel, Variable
    from agent_kernel_otel.dashboards.promql import Expression

TAG: Final = "agent-kernel"
"""What all our dashboards have, by which they link to each other."""
DATASOURCE: Final = "datasource"

_METRICS: Final = models.DataSourceRef(type_val="prometheus", uid=f"${{{DATASOURCE}}}")
_STATUS_COLOURS: Final = {
    "success": "green",
    "error": "red",
    "denied": "orange",
    "cancelled": "blue",
}
_BUILDERS: Final[dict[Kind, Any]] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "bargauge": bargauge.Panel,
    "table": table.Panel,
}


def as_json(dashboard: Dashboard) -> str:
    """The file of a dashboard, which Grafana provisions or imports."""
    built = _dashboard(dashboard).build()
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _dashboard(dashboard: Dashboard) -> builders.Dashboard:
    built = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags([TAG, *dashboard.tags])
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .annotations([])
        .link(
            builders.DashboardLink("Agent kernels")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
    )
    built.with_variable(builders.DatasourceVariable(DATASOURCE).label("Metrics").type("prometheus"))
    for backend, name in explore.BACKENDS.items():
        built.with_variable(
            builders.DatasourceVariable(backend)
            .label(name)
            .type(backend)
            .hide(models.VariableHide.HIDE_VARIABLE)
        )
        if dashboard.search:
            # What a viewer writes, a link of a dashboard does not encode by itself.
            wanted = {key: f"${{{given}:percentencode}}" for key, given in dashboard.search.items()}
            built.link(_link(f"Search in {name}", explore.link(backend, explore.Search(wanted))))
    for variable in dashboard.variables:
        built.with_variable(_variable(variable))
    for panel in _laid_out(dashboard):
        built.with_row(panel) if isinstance(panel, builders.Row) else built.with_panel(panel)
    return built


def _variable(variable: Variable) -> Any:
    if not variable.query:
        return builders.TextBoxVariable(variable.name).label(variable.label).default_value("")
    return (
        builders.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(_METRICS)
        .query(variable.query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(True)
        .include_all(True)
        # Also what lacks the label: a list of all values would leave it out.
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _laid_out(dashboard: Dashboard) -> Iterator[Any]:
    """Rows and panels, each with its place: from left to right, then in the next line."""
    number, top = 0, 0
    for row in dashboard.rows:
        number += 1
        yield (
            builders.Row(row.title)
            .id(number)
            .grid_pos(models.GridPos(h=1, w=GRID_WIDTH, x=0, y=top))
        )
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > GRID_WIDTH:
                top, left, height = top + height, 0, 0
            number += 1
            place = models.GridPos(h=panel.height, w=panel.width, x=left, y=top)
            yield _panel(panel).id(number).grid_pos(place)
            left, height = left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel) -> Any:
    built = (
        _BUILDERS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .datasource(_METRICS)
        .unit(panel.unit)
        .thresholds(_thresholds(panel))
        .targets(
            [
                _query(panel, letter, expression)
                for letter, expression in zip(ascii_uppercase, panel.expressions, strict=False)
            ]
        )
    )
    if panel.kind == "stat" and panel.expressions[0].whole:
        built.decimals(0)
    if panel.interval:
        built.interval(panel.interval)
    if panel.empty:
        built.no_value(panel.empty)
    links = list(_trace_links(panel))
    if links:
        built.data_links(links)
    return _DRAWN[panel.kind](built, panel)


def _timeseries(built: Any, panel: Panel) -> Any:
    built.color_scheme(_colours(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    built.legend(
        common.VizLegendOptions()
        .display_mode(options.LegendDisplayMode.TABLE)
        .placement(options.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["mean", "max", "lastNotNull"])
    )
    built.tooltip(
        common.VizTooltipOptions()
        .mode(options.TooltipDisplayMode.MULTI)
        .sort(options.SortOrder.DESCENDING)
    )
    built.fill_opacity(10).axis_soft_min(0).show_points(options.VisibilityMode.AUTO)
    if panel.steps:
        built.thresholds_style(common.GraphThresholdsStyleConfig().mode("dashed"))
    if panel.expressions[0].by == (semconv.STATUS,):
        for status, colour in _STATUS_COLOURS.items():
            fixed = {"mode": "fixed", "fixedColor": colour}
            built.override_by_name(status, [models.DynamicConfigValue("color", fixed)])
    return built


def _stat(built: Any, panel: Panel) -> Any:
    built.color_scheme(_colours(models.FieldColorModeId.THRESHOLDS))
    built.graph_mode(options.BigValueGraphMode.NONE).reduce_options(_last())
    return built.color_mode(
        options.BigValueColorMode.BACKGROUND if panel.steps else options.BigValueColorMode.VALUE
    )


def _bargauge(built: Any, panel: Panel) -> Any:
    built.color_scheme(_colours(models.FieldColorModeId.THRESHOLDS))
    built.orientation(options.VizOrientation.HORIZONTAL).reduce_options(_last())
    if panel.unit == "percentunit":
        built.min(0).max(1)
    return built.display_mode(options.BarGaugeDisplayMode.GRADIENT)


def _table(built: Any, panel: Panel) -> Any:
    several = len(panel.expressions) > 1
    values = {
        f"Value #{letter}" if several else "Value": expression
        for letter, expression in zip(ascii_uppercase, panel.expressions, strict=False)
    }
    names = {label(key): title_of(key) for key in panel.expressions[0].by}
    names |= {value: expression.legend for value, expression in values.items()}
    built.with_transformation(models.DataTransformerConfig("merge", options={}))
    built.with_transformation(
        models.DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: place for place, name in enumerate(names)},
                "renameByName": names,
            },
        )
    )
    for expression in panel.expressions:
        shown = [models.DynamicConfigValue("unit", expression.unit)]
        if expression.whole:
            shown.append(models.DynamicConfigValue("decimals", 0))
        built.override_by_name(expression.legend, shown)
    first = common.TableSortByFieldState().display_name(panel.expressions[0].legend).desc(True)
    return built.sort_by([first])


_DRAWN: Final[dict[Kind, Any]] = {
    "timeseries": _timeseries,
    "stat": _stat,
    "bargauge": _bargauge,
    "table": _table,
}


def _query(panel: Panel, letter: str, expression: Expression) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expression.text).ref_id(letter).datasource(_METRICS)
    if panel.kind == "table":
        return query.instant().format(PromQueryFormat.TABLE)
    legend = expression.legend or " ".join(f"{{{{{label(key)}}}}}" for key in expression.by)
    query.legend_format(legend or panel.title).format(PromQueryFormat.TIME_SERIES)
    if panel.kind == "timeseries":
        # Those of the others are the same.
        return query.range().exemplar(expression.exemplars and expression is panel.expressions[0])
    return query.instant()


def _trace_links(panel: Panel) -> Iterator[builders.DashboardLink]:
    expression = panel.expressions[0]
    if panel.kind == "table":
        # By the name that a column has before it gets a heading: quotes would not outlive the address.
        values = {key: f"${{__data.fields.{label(key)}}}" for key in expression.by}
    else:
        values = {key: f"${{__field.labels.{label(key)}}}" for key in expression.by}
    search = explore.search_for(expression, values)
    if search is not None:
        for backend, name in explore.BACKENDS.items():
            yield _link(f"Traces in {name}", explore.link(backend, search))


def title_of(key: str) -> str:
    """An attribute as the heading of a column."""
    words = key.removeprefix("agent_kernel.").replace(".", " ").replace("_", " ")
    return words.capitalize()


def _link(title: str, url: str) -> builders.DashboardLink:
    return (
        builders.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(url)
        .target_blank(True)
    )


def _thresholds(panel: Panel) -> builders.ThresholdsConfig:
    steps = [models.Threshold(value=None, color="green")]
    steps += [models.Threshold(value=value, color=colour) for value, colour in panel.steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _colours(mode: models.FieldColorModeId) -> builders.FieldColor:
    return builders.FieldColor().mode(mode)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
