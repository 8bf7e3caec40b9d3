# SPDX-License-Identifier: Apache-2.0
"""The instruments of one kind of kernel: counts are read when they are collected, times buffered.

Which kernel it is, and what its series mean, this module ignores; ``semconv.METRICS`` says which
instruments there are.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from agent_kernel_otel import counts, semconv
from agent_kernel_otel._version import __version__
from agent_kernel_otel.counts import CountGroup, Series, add_up
from agent_kernel_otel.faults import faults
from agent_kernel_otel.histograms import BufferedHistogram, record_waiting
from agent_kernel_otel.locks import SafeLock
from agent_kernel_otel.semconv import MetricDefinition

Observed = Callable[[], Iterable[tuple[int | float, tuple[str | None, ...]]]]
"""Says what is the case now: numbers, each with its label values in the order of the definition."""

_HISTOGRAMS: Final = {
    "invocation_duration": semconv.INVOCATION_DURATION,
    "time_to_first_chunk": semconv.METRIC_TIME_TO_FIRST_CHUNK,
    "policy_duration": semconv.POLICY_DURATION,
    "driver_duration": semconv.DRIVER_DURATION,
    "firewall_duration": semconv.FIREWALL_DURATION,
    "execute_tool_duration": semconv.EXECUTE_TOOL_DURATION,
}


class Metrics:
    """The instruments of one kind of kernel on one meter provider.

    Args:
        scope: Name of the instrumentation scope.
        system: Value of ``agent_kernel.system``.
        group: What was counted.
        meter_provider: Where the metrics go; the global provider by default, which the app may
            set later.

    Attributes:
        system: The same.
    """

    invocation_duration: BufferedHistogram | None = None
    time_to_first_chunk: BufferedHistogram | None = None
    policy_duration: BufferedHistogram | None = None
    driver_duration: BufferedHistogram | None = None
    firewall_duration: BufferedHistogram | None = None
    execute_tool_duration: BufferedHistogram | None = None

    def __init__(
        self,
        scope: str,
        system: str,
        group: CountGroup,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        provider = meter_provider or get_meter_provider()
        self.system = system
        # Weakly: the provider has our callbacks, and is the app's to let go.
        self._provider = weakref.ref(provider)
        self._meter = provider.get_meter(scope, __version__)
        self._groups = [group]
        self._before: list[Callable[[], object]] = []
        self._observed: dict[str, list[Observed]] = {}
        self._attributes: dict[Series, dict[str, str]] = {}
        self._counted: dict[str, list[Observation]] = {}
        self._create_observable()
        self.set_level("info")

    @property
    def home(self) -> Any:
        """The provider, once there is a real one; None where it is gone."""
        return _real(self._provider())

    def is_for(self, system: str, home: Any) -> bool:
        """Whether these are the instruments of a kind of kernel on a provider."""
        return self.system == system and home is not None and self.home is home

    def set_level(self, level: str, *, gen_ai: bool = False) -> None:
        """Add the histograms that a level has and that are not there yet.

        Args:
            level: ``info`` or ``debug``.
            gen_ai: Whether ``gen_ai.execute_tool.duration`` is wanted.
        """
        wanted = {"info", level, "opt-in" if gen_ai else level}
        for name, definition in _HISTOGRAMS.items():
            if definition.level in wanted and getattr(self, name) is None:
                instrument = self._meter.create_histogram(
                    definition.name,
                    definition.unit,
                    definition.description,
                    explicit_bucket_boundaries_advisory=definition.bounds,
                )
                setattr(self, name, BufferedHistogram(instrument))

    def count(self, group: CountGroup) -> None:
        """Read the counts of one more group."""
        _add(self._groups, group)

    def observe(self, definition: MetricDefinition, callback: Observed) -> None:
        """Have a gauge report what a callback says.

        Args:
            definition: The gauge.
            callback: Called at each collection; if it raises, there is nothing to report.
        """
        _add(self._observed.setdefault(definition.name, []), callback)

    def before_collection(self, callback: Callable[[], object]) -> None:
        """Have something done first in each collection."""
        _add(self._before, callback)

    def attributes(self, series: Series) -> Mapping[str, str]:
        """The attributes of a series; the same object each time."""
        attributes = self._attributes.get(series)
        if attributes is None:
            attributes = self._attributes[series] = self._attributes_of(series)
        return attributes

    def _attributes_of(self, series: Series) -> dict[str, str]:
        name, *labels = series
        definition = semconv.METRICS[str(name)]
        labelled = zip(definition.attributes, labels, strict=True)
        attributes = {key: label for key, label in labelled if label is not None}
        if definition.of_kernel:
            attributes[semconv.SYSTEM] = self.system
        return attributes

    def _create_observable(self) -> None:
        create: dict[str, Callable[..., object]] = {
            "counter": self._meter.create_observable_counter,
            "updowncounter": self._meter.create_observable_up_down_counter,
            "gauge": self._meter.create_observable_gauge,
        }
        # The SDK calls back in the order of creation, within one collection one after another.
        begin = self._begin_collection
        for definition in semconv.METRICS.values():
            if definition.of_kernel and definition.observable:
                create[definition.instrument](
                    definition.name,
                    [self._callback(definition.name, begin)],
                    definition.unit,
                    definition.description,
                )
                begin = _nothing

    def _callback(
        self, name: str, begin: Callable[[], None]
    ) -> Callable[[CallbackOptions], list[Observation]]:
        def report(_: CallbackOptions) -> list[Observation]:
            begin()
            return [*self._counted.get(name, ()), *self._observe(name)]

        return report

    def _begin_collection(self) -> None:
        """Read everything once, so that all counters are of the same moment."""
        self._counted = {}
        for other in _all():
            if other is not self and other.is_for(self.system, self.home):
                self._stand_in_for(other)
        for callback in self._before:
            _safely(callback, "preparing a collection of metrics")
        _safely(record_waiting, "recording the values of histograms")
        _safely(self._read_counts, "reading what was counted")

    def _stand_in_for(self, other: Metrics) -> None:
        """Report what another is told, whose provider turned out to be the same as ours.

        It was made before the app set the global provider, and has nothing that is called back.
        """
        for group in other._groups:
            self.count(group)
        for callback in other._before:
            self.before_collection(callback)
        for name, callbacks in other._observed.items():
            for observed in callbacks:
                _add(self._observed.setdefault(name, []), observed)

    def _read_counts(self) -> None:
        totals = add_up(group.totals() for group in self._groups)
        active = add_up(group.active() for group in self._groups)
        counted: dict[str, list[Observation]] = {}
        for series, number in (*totals.items(), *active.items()):
            observation = Observation(number, self.attributes(series))
            counted.setdefault(str(series[0]), []).append(observation)
        self._counted = counted

    def _observe(self, name: str) -> list[Observation]:
        observations: list[Observation] = []
        for callback in self._observed.get(name, ()):
            observations += self._ask(name, callback)
        return observations

    def _ask(self, name: str, callback: Observed) -> list[Observation]:
        try:
            return [
                # Not kept, because these come and go with what is observed.
                Observation(number, self._attributes_of((name, *labels)))
                for number, labels in callback()
            ]
        except Exception:
            faults.swallow(f"observing {name}")
            return []


def _add(to: list[Any], one: object) -> None:
    if one not in to:
        to.append(one)


def _safely(action: Callable[[], object], doing: str) -> None:
    try:
        action()
    except Exception:
        faults.swallow(doing)


def _nothing() -> None:
    pass


def _real(provider: Any) -> Any:
    """What stands behind the API's own provider, once the app has set it. That is private."""
    return getattr(provider, "_real_meter_provider", None) or provider


class _Registry:
    """All instruments of this process.

    Attributes:
        lock: Held while some are made. Never by a collection, for which who makes them may wait.
        metrics: Replaced, never changed.
    """

    def __init__(self) -> None:
        self.lock = SafeLock()
        self.metrics: tuple[weakref.ref[Metrics], ...] = ()


_registry: Final = _Registry()


def _all() -> list[Metrics]:
    return [metrics for reference in _registry.metrics if (metrics := reference()) is not None]


def metrics_for(
    scope: str,
    system: str,
    meter_provider: MeterProvider | None,
    level: str,
    *,
    gen_ai: bool = False,
) -> Metrics | None:
    """The instruments of a kind of kernel on a provider, made at most once.

    Args:
        scope: Name of the instrumentation scope.
        system: Value of ``agent_kernel.system``.
        meter_provider: Where the metrics go; None for the global provider.
        level: ``off``, ``info`` or ``debug``.
        gen_ai: Whether ``gen_ai.execute_tool.duration`` is wanted.

    Returns:
        The instruments, which live as long as their provider does; None where the level is off.
    """
    if level == "off":
        return None
    group = counts.group_of(system, meter_provider)
    home = _real(meter_provider or get_meter_provider())
    with _registry.lock:
        living = _all()
        metrics = next((one for one in living if one.is_for(system, home)), None)
        if metrics is None:
            metrics = Metrics(scope, system, group, meter_provider)
            _registry.metrics = tuple(map(weakref.ref, [*living, metrics]))
        metrics.count(group)
        metrics.set_level(level, gen_ai=gen_ai)
        return metrics
