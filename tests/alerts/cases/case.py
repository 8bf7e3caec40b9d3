# SPDX-License-Identifier: Apache-2.0
"""A case, and the notation of its series: a sample a minute, as promtool writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent_kernel_otel import semconv
from agent_kernel_otel.semconv.definitions import MetricDefinition

HOUR = 60
DAY = 24 * HOUR
TARGET = {"job": "shop", "instance": "shop-1"}


@dataclass(frozen=True)
class Fired:
    """An alert that fires.

    Attributes:
        alert: Its name, severity and window.
        description: What it says.
        labels: Those that its rule does not set.
    """

    alert: str
    description: str
    labels: Mapping[str, str] = field(default_factory=lambda: {"job": "shop"})


@dataclass(frozen=True)
class Case:
    """What Prometheus holds, and what fires of it.

    Attributes:
        about: The alert that it is about, by name, severity and window.
        title: What happens, in words.
        minutes: When it is asked.
        series: The samples of each series.
        fires: All alerts of that name that fire then.
        evaluated: Minutes between two evaluations.
    """

    about: str
    title: str
    minutes: int
    series: Mapping[str, str]
    fires: tuple[Fired, ...] = ()
    evaluated: int = 1

    def silently(self, title: str, series: Mapping[str, str]) -> Case:
        """The same at the same time with other series, of which nothing comes."""
        return replace(self, title=title, series=series, fires=())


def series(metric: MetricDefinition | str, labels: Mapping[str, str] | None = None) -> str:
    """A series of a process, by the names of attributes."""
    kept = {**TARGET, **(labels or {})}
    if isinstance(metric, MetricDefinition) and metric.of_kernel:
        kept[semconv.SYSTEM] = semconv.SYSTEM_WEAVER
    name = metric if isinstance(metric, str) else metric.prometheus_name
    matchers = ",".join(f'{label(key)}="{value}"' for key, value in kept.items())
    return f"{name}{{{matchers}}}"


def label(attribute: str) -> str:
    """The name of an attribute in Prometheus."""
    return re.sub(r"\W", "_", attribute)


def rising(a_minute: float, minutes: int, begin: float = 0) -> str:
    """A counter, from 0 unless said."""
    return f"{begin}+{a_minute}x{minutes}"


def flat(value: float, minutes: int) -> str:
    """What does not change, for so many minutes and one."""
    return f"{value}x{minutes}"


def absent(minutes: int) -> str:
    """So many minutes without a sample."""
    return f"_x{minutes}"


def then(*parts: str) -> str:
    """One after the other."""
    return " ".join(parts)
