# SPDX-License-Identifier: Apache-2.0
"""The page ``metrics.md``, for ``generate.py``."""

from __future__ import annotations

from collections import Counter

from tables import table

from agent_kernel_otel import semconv
from agent_kernel_otel.pipeline.meter_state import SERIES_LIMIT

_HEAD = """\
# Metrics reference

<!-- Written by docs/generate.py from src/agent_kernel_otel/semconv. Do not edit. -->

Every metric that `agent-kernel-otel` emits. What to ask them: [Monitoring the kernel](monitoring.md).

- *Level* is the lowest `metrics_level` that records it; `opt-in` has a setting of its own,
  `gen_ai_metrics`. `metrics_level=off` stops all but `agent_kernel.telemetry_*`, which are the distro's.
- `agent_kernel.system` says which kernel it is, on all but `agent_kernel.telemetry_*` and `gen_ai.*`,
  besides the attributes listed.
- Counters, up-down counters and gauges are *observable* instruments: they are read at each collection.
  Histograms are recorded, with the trace's context for exemplars.
- In Prometheus a `.` is a `_`, also in attributes: `agent_kernel.capability_id` is the label
  `agent_kernel_capability_id`. The names below are the same on `/metrics` and behind a Collector.
- Principals, actions, tokens and handles are on spans and events, never on metrics.
"""

_RULES = """
## What is counted where

- **A dry run** is in `agent_kernel.dry_runs`, and in `agent_kernel.policy_denials` where its token is
  refused. It is no invocation: neither counted, timed, active nor downgraded.
- **A stream** is one invocation, from its first step to its end, whether it was exhausted, closed early,
  abandoned, cancelled or failed. One that is never iterated is in no metric.
- **A refusal** is in `agent_kernel.policy_denials` once, and as status `denied` where it was refused: at
  the grant in `agent_kernel.grants`, and there is no invocation then; at the enforcement of the token in
  `agent_kernel.invocations`; at the expansion of a handle in `agent_kernel.handles_expanded`.
- **A capability that the kernel does not know** is `_OTHER`, and so is its safety class.
- **Sampling** changes no metric but `agent_kernel.unsampled_operations`.
  `suppress_instrumentation` stops spans and events, not counting.
- **Replayed** audit records are in no metric.
- **Totals belong to the process.** A kernel that goes away takes its gauges along, and leaves its
  counts. A forked child starts at 0.

## Temporality

Cumulative by default. `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta` makes counters and
histograms deltas; up-down counters and gauges stay as they are, and so does `/metrics`. Prometheus
drops deltas that are written to it, without a word.

## How many series

Ids that callers choose cannot make ever new series: of an open set a process keeps the first values
apart, and all others are `_OTHER`; *at most* above is how many that makes. A metric whose
attributes would still multiply to more has a limit of its own, past which the values of its open sets
are `_OTHER`. A histogram is a series for each bucket, and one each for `+Inf`, the sum and the count.

**By default a process exports at most {default:,} series in Prometheus**, with {capabilities} capabilities
of all three safety classes that end in all ways; `capability_id_limit` lowers or raises it. The level
`debug` adds at most {debug:,}, `gen_ai_metrics` at most {opt_in:,}. Under the distro, no instrument keeps
more than {limit:,} attribute sets.
"""


def metrics() -> str:
    """The page ``metrics.md``."""
    every = semconv.METRICS.values()
    used = {key for metric in every for key in metric.attributes} | {semconv.SYSTEM}
    at_most = Counter[str]()
    for metric in every:
        at_most[metric.level] += _series(metric)
    return "\n".join(
        [
            _HEAD,
            "## Instruments\n",
            *table(
                ("metric", "in Prometheus", "kind", "unit", "level", "attributes", "meaning"),
                map(_metric_row, every),
            ),
            "\n## Attributes\n",
            *table(
                ("attribute", "at most", "values", "meaning"),
                (
                    _metric_attribute_row(attribute)
                    for attribute in semconv.ATTRIBUTES.values()
                    if attribute.name in used
                ),
            ),
            "\n## Buckets\n",
            "Upper edges, inclusive, in the unit of the metric; a view of your own can set others.\n",
            *table(
                ("histogram", "buckets"),
                (
                    (f"`{metric.name}`", ", ".join(f"{bound:,}" for bound in metric.bounds))
                    for metric in every
                    if metric.bounds
                ),
            ),
            _RULES.format(
                default=at_most["info"],
                debug=at_most["debug"],
                opt_in=at_most["opt-in"],
                capabilities=semconv.CAPABILITY_ID_LIMIT,
                limit=SERIES_LIMIT,
            ),
            *table(
                ("metric", "attribute sets at most", "series at most"),
                (
                    (f"`{m.name}`", f"{_sets(m):,}", f"{_series(m):,}")
                    for m in sorted(every, key=_series, reverse=True)
                ),
            ),
            "",
        ]
    )


def _sets(metric: semconv.MetricDefinition) -> int:
    return min(semconv.attribute_sets(metric), SERIES_LIMIT)


def _series(metric: semconv.MetricDefinition) -> int:
    return semconv.prometheus_series(metric) // semconv.attribute_sets(metric) * _sets(metric)


def _metric_row(metric: semconv.MetricDefinition) -> tuple[str, ...]:
    return (
        f"`{metric.name}`",
        f"`{metric.prometheus_name}`",
        ("observable " if metric.observable else "") + metric.instrument,
        f"`{metric.unit}`" if metric.unit else "",
        f"`{metric.level}`",
        ", ".join(f"`{key}`" for key in metric.attributes),
        metric.description,
    )


def _metric_attribute_row(attribute: semconv.AttributeDefinition) -> tuple[str, ...]:
    values = [f"`{value}`" for value in attribute.values or attribute.known]
    if attribute.limit:
        values.append(f"the first {attribute.limit} {'others' if values else ''}".rstrip())
    if values and not attribute.values:
        values.append(f"`{semconv.OTHER}`")
    return f"`{attribute.name}`", str(attribute.bound), ", ".join(values), attribute.description
