# SPDX-License-Identifier: Apache-2.0
"""Queries for Prometheus, made of metric and attribute definitions, so that none names what is not there.

Each query asks for the jobs, instances and, where its metric knows them, capabilities, sessions or
operations that are chosen in the dashboard's variables. Series are told apart by no other label of
their resource: ``job`` and ``instance`` are what they have on every way into Prometheus.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from agent_kernel_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent_kernel_otel.semconv import MetricDefinition

JOB: Final = "job"
INSTANCE: Final = "instance"
STEP: Final = "$__rate_interval"
"""The window of a point of a graph."""
RANGE: Final = "$__range"
"""All that the dashboard shows."""
LEAST: Final = 10
"""Events below which a share says little, and is not shown."""

FILTERS: Final[Mapping[str, str]] = {
    JOB: "job",
    INSTANCE: "instance",
    semconv.CAPABILITY_ID: "capability",
    semconv.GEN_AI_TOOL_NAME: "capability",
    semconv.SESSION: "session",
    "operation": "operation",
}
"""The variable that filters by an attribute."""

_UNITS: Final = {"ms": "ms", "s": "s", "By": "bytes"}


@dataclass(frozen=True)
class Expression:
    """A query, and what is known of its answer.

    Attributes:
        text: The query.
        metric: Name of the metric that it is about.
        by: Attributes by which the series of its answer are told apart.
        where: Values of attributes that all it counts has.
        unit: Grafana's name of the unit of its values.
        legend: What a series of its answer is called; else by its attributes.
        exemplars: Whether its metric has exemplars, which lead to a trace.
        guarded: Whether it has no value where there is too little to tell.
        whole: Whether it counts events, whose extrapolated fractions are not worth showing.
    """

    text: str
    metric: str
    by: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    unit: str = "short"
    legend: str = ""
    exemplars: bool = False
    guarded: bool = False
    whole: bool = False

    def named(self, legend: str) -> Expression:
        """The same, under a name of its own."""
        return replace(self, legend=legend)

    def in_unit(self, unit: str) -> Expression:
        """The same, its values taken for another unit."""
        return replace(self, unit=unit)


def label(key: str) -> str:
    """The label of an attribute."""
    return key.replace(".", "_")


def variable_query(metric: MetricDefinition, key: str, *within: str) -> str:
    """The query of a variable: which values of an attribute there are."""
    matchers = ", ".join(f'{label(k)}=~"${FILTERS[k]}"' for k in within)
    selector = metric.prometheus_name + (f"{{{matchers}}}" if matchers else "")
    return f"label_values({selector}, {label(key)})"


def rate(
    metric: MetricDefinition,
    by: tuple[str, ...] = (),
    where: Mapping[str, str] | None = None,
    *,
    part: str = "",
) -> Expression:
    """How often something happens, a second; of a histogram ``part`` is ``count`` or ``sum``."""
    text = _sum(metric, by, f"rate({_series(metric, where, part)}[{STEP}])")
    return Expression(text, metric.name, by, where or {}, "ops")


def increase(
    metric: MetricDefinition,
    by: tuple[str, ...] = (),
    where: Mapping[str, str] | None = None,
    *,
    over: str = RANGE,
    part: str = "",
) -> Expression:
    """How often something happened."""
    text = _sum(metric, by, f"increase({_series(metric, where, part)}[{over}])")
    return Expression(text, metric.name, by, where or {}, whole=True)


def total(
    metric: MetricDefinition, by: tuple[str, ...] = (), where: Mapping[str, str] | None = None
) -> Expression:
    """How often something happened, over all that is shown, the first time of its kind included.

    For series that begin with their first event, which is no increase: of those that began in that
    time all that they counted is taken.
    """
    series = _series(metric, where)
    begun = f"max_over_time({series}[{RANGE}]) unless {series} offset {RANGE}"
    text = _sum(metric, by, f"({begun}) or increase({series}[{RANGE}])")
    return Expression(f"{text} > 0", metric.name, by, where or {}, whole=True)


def current(metric: MetricDefinition, by: tuple[str, ...] = (), how: str = "sum") -> Expression:
    """What a gauge shows."""
    text = _aggregated(how, metric, by, _series(metric))
    return Expression(text, metric.name, by, unit=_UNITS.get(metric.unit, "short"))


def quantile(
    q: float, metric: MetricDefinition, by: tuple[str, ...] = (), *, over: str = STEP
) -> Expression:
    """The value that a share ``q`` of all stay below."""
    buckets = _aggregated(
        "sum", metric, ("le", *by), f"rate({_series(metric, part='bucket')}[{over}])"
    )
    # Of nothing it is no number, which is not worth showing.
    text = f"histogram_quantile({q}, {buckets}) >= 0"
    name = "" if by else f"p{100 * q:g}"
    return Expression(text, metric.name, by, unit=_UNITS[metric.unit], legend=name, exemplars=True)


def mean(metric: MetricDefinition, by: tuple[str, ...] = ()) -> Expression:
    """The mean of a histogram."""
    total_time = rate(metric, by, part="sum")
    calls = rate(metric, by, part="count")
    text = f"{total_time.text} / ({calls.text} > 0)"
    return Expression(text, metric.name, by, unit=_UNITS[metric.unit])


def share(part: Expression, whole: Expression, least: float = LEAST) -> Expression:
    """The share of something, where there is enough of the whole to tell."""
    keys = ", ".join(map(label, whole.by))
    matching = "" if part.by == whole.by else f"on ({keys}) group_left () "
    text = f"{part.text} / {matching}({whole.text} >= {least:g})"
    return replace(part, text=text, unit="percentunit", guarded=True, whole=False)


def share_above(
    bound: float, metric: MetricDefinition, by: tuple[str, ...] = (), *, over: str = STEP
) -> Expression:
    """The share of what took longer than the upper edge of a bucket: exact, unlike a quantile.

    Raises:
        ValueError: The histogram has no such bucket.
    """
    if bound not in metric.bounds:
        raise ValueError(f"{metric.name} has no bucket that ends at {bound}")
    # Exporters differ in how they write a whole number.
    edge = f"{bound:g}(\\\\.0)?" if bound == int(bound) else f"{bound:g}".replace(".", "\\\\.")
    below = _series(metric, part="bucket", more=(f'le=~"{edge}"',))
    within = _sum(metric, by, f"increase({below}[{over}])")
    calls = increase(metric, by, over=over, part="count").text
    # Extrapolation can make a part a little more than the whole.
    text = f"clamp_min(1 - {within} / ({calls} >= {LEAST}), 0)"
    return Expression(text, metric.name, by, unit="percentunit", guarded=True)


def plus(*expressions: Expression) -> Expression:
    """The sum of several that are told apart alike."""
    return replace(expressions[0], text=" + ".join(each.text for each in expressions))


def full(used: MetricDefinition, limit: MetricDefinition, by: tuple[str, ...]) -> Expression:
    """How full the fullest is, of gauges of what is used and of what may be."""
    text = _aggregated("max", used, by, f"{_series(used)} / ({_series(limit)} > 0)")
    return Expression(text, used.name, by, unit="percentunit")


def highest(expression: Expression) -> Expression:
    """The highest of several."""
    return replace(expression, text=f"max({expression.text})", by=())


def unanswered(up: MetricDefinition, known_by: MetricDefinition) -> Expression:
    """How many targets did not answer the last scrape, of those that have had a series.

    ``up`` is of all that is scraped, whatever it is.
    """
    keys = f"{JOB}, {INSTANCE}"
    had = f"last_over_time({_series(known_by)}[{RANGE}])"
    text = f"sum(({_series(up)} == bool 0) and on ({keys}) {had})"
    return Expression(text, up.name)


def slope(metric: MetricDefinition, by: tuple[str, ...] = ()) -> Expression:
    """How fast a gauge rises, a second."""
    text = _sum(metric, by, f"deriv({_series(metric)}[{STEP}])")
    return Expression(text, metric.name, by)


def resets(metric: MetricDefinition) -> Expression:
    """How often something that rises fell, over all that is shown."""
    return Expression(_sum(metric, (), f"resets({_series(metric)}[{RANGE}])"), metric.name)


def _sum(metric: MetricDefinition, by: tuple[str, ...], text: str) -> str:
    return _aggregated("sum", metric, by, text)


def _aggregated(how: str, metric: MetricDefinition, by: tuple[str, ...], text: str) -> str:
    unknown = set(by) - {*_keys(metric), JOB, INSTANCE, "le"}
    if unknown:
        raise ValueError(f"{metric.name} has no {', '.join(sorted(unknown))}")
    grouping = f" by ({', '.join(map(label, by))}) " if by else ""
    return f"{how}{grouping}({text})"


def _series(
    metric: MetricDefinition,
    where: Mapping[str, str] | None = None,
    part: str = "",
    more: tuple[str, ...] = (),
) -> str:
    where = where or {}
    filtered = [key for key in (JOB, INSTANCE, *metric.attributes) if key in FILTERS]
    # What a query fixes, no variable chooses.
    filtered = [key for key in filtered if key not in where]
    matchers = [f'{label(key)}=~"${FILTERS[key]}"' for key in filtered]
    matchers += [_matcher(metric, key, value) for key, value in where.items()]
    suffix = f"_{part}" if part else ""
    return f"{metric.prometheus_name}{suffix}{{{', '.join((*matchers, *more))}}}"


def _matcher(metric: MetricDefinition, key: str, value: str) -> str:
    """Equality; of a value that begins with ``!`` inequality, of several with ``|`` either of them."""
    operator, bare = ("!=", value[1:]) if value.startswith("!") else ("=", value)
    operator = "=~" if "|" in bare else operator
    if key not in _keys(metric):
        raise ValueError(f"{metric.name} has no {key}")
    definition = semconv.ATTRIBUTES.get(key)
    for one in bare.split("|"):
        if one and definition is not None:
            known = definition.values or (*definition.known, semconv.OTHER)
            if one not in known:
                raise ValueError(f"{key} is never {one}")
    return f'{label(key)}{operator}"{bare}"'


def _keys(metric: MetricDefinition) -> tuple[str, ...]:
    return (*metric.attributes, semconv.SYSTEM) if metric.of_kernel else metric.attributes
