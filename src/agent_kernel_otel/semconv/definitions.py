# SPDX-License-Identifier: Apache-2.0
"""What is said of each name: the shapes of the registries' entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "debug"]
MetricLevel = Literal["info", "debug", "opt-in"]
Instrument = Literal["counter", "updowncounter", "gauge", "histogram"]
ValueType = Literal["string", "boolean", "int", "double"]
Sensitivity = Literal["none", "id", "identity", "content"]

_PROMETHEUS_UNITS = {"ms": "_milliseconds", "s": "_seconds", "By": "_bytes"}


@dataclass(frozen=True)
class SpanDefinition:
    """One kind of span.

    Attributes:
        name: The span's name.
        level: Lowest ``span_level`` that creates it.
        opened_by: The kernel operation or collaborator call that it covers.
        parent: Name of the span it is a child of, or "the caller's span".
    """

    name: str
    level: Level
    opened_by: str
    parent: str


@dataclass(frozen=True)
class AttributeDefinition:
    """One attribute of spans, events or metrics.

    Attributes:
        name: The attribute key.
        type: Type of its values.
        description: What a value means, with its unit where it has one.
        on: Names of the spans and events that may carry it.
        sensitivity: ``none``; ``id`` for generated ids; ``identity`` for who acts (see the
            ``principal_id`` setting); ``content`` for user data, which is opt-in.
        values: The closed set of values, empty where it is open.
        at_start: Whether it is known when the span starts, so that samplers see it.
        known: Values of an open set that metrics always keep apart.
        limit: How many more the metrics of a process keep apart; all others are
            :data:`~agent_kernel_otel.semconv.OTHER`.
        follows: Key of the attribute whose value decides this one's, if there is one.
    """

    name: str
    type: ValueType
    description: str
    on: tuple[str, ...]
    sensitivity: Sensitivity
    values: tuple[str, ...]
    at_start: bool
    known: tuple[str, ...] = ()
    limit: int = 0
    follows: str | None = None

    @property
    def bound(self) -> int:
        """The most values that it can have on the metrics of a process."""
        return len(self.values) or len(self.known) + self.limit + 1


@dataclass(frozen=True)
class EventDefinition:
    """One log event.

    Attributes:
        name: The event's name (the log record's ``event_name``).
        severity: Its severity text.
        description: When it is emitted.
    """

    name: str
    severity: str
    description: str


@dataclass(frozen=True)
class MetricDefinition:
    """One metric.

    Attributes:
        name: The instrument's name.
        instrument: Kind of instrument.
        unit: Its unit (UCUM).
        description: What it counts or measures.
        attributes: Keys of its attributes, in the order of the label values of a series;
            ``agent_kernel.system``, which a kernel's metrics have besides, is not among them.
        level: Lowest ``metrics_level`` that records it; ``opt-in`` has a setting of its own.
        bounds: The buckets' upper edges, inclusive; of a histogram only.
        series_limit: How many attribute sets a process keeps apart, where its attributes do not
            bound them well enough; past it, each value of an open set is
            :data:`~agent_kernel_otel.semconv.OTHER`. 0 where the attributes bound them.
        of_kernel: Whether ``agent_kernel.system`` is on it.
    """

    name: str
    instrument: Instrument
    unit: str
    description: str
    attributes: tuple[str, ...]
    level: MetricLevel = "info"
    bounds: tuple[float, ...] = ()
    series_limit: int = 0
    of_kernel: bool = True

    @property
    def observable(self) -> bool:
        """Whether it is read when metrics are collected, rather than told of each value."""
        return self.instrument != "histogram"

    @property
    def prometheus_name(self) -> str:
        """Its name in Prometheus; of a histogram without ``_bucket``, ``_count``, ``_sum``."""
        total = "_total" if self.instrument == "counter" else ""
        return self.name.replace(".", "_") + _PROMETHEUS_UNITS.get(self.unit, "") + total
