# SPDX-License-Identifier: Apache-2.0
"""What is wrong with what is installed, and with what is switched on.

Each finding is a small pure function of the :class:`~agent_kernel_otel.doctor.facts.Facts`;
:data:`FINDERS` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from packaging.specifiers import SpecifierSet

from agent_kernel_otel.distro import defaults
from agent_kernel_otel.doctor.facts import Facts
from agent_kernel_otel.doctor.masking import shown_choice

PROBLEM: Final = "problem"
NOTE: Final = "note"

INSTRUMENTATION: Final = "weaver_kernel"


@dataclass(frozen=True)
class Finding:
    """One thing that explains missing telemetry, or might.

    Attributes:
        code: A name for scripts, which stays.
        severity: ``problem``, or ``note`` for what may be meant so.
        problem: What is so, in one line.
        fix: What to do, in one line.
    """

    code: str
    severity: str
    problem: str
    fix: str


def problem(code: str, what: str, fix: str) -> Finding:
    """A finding that makes the exit code 1."""
    return Finding(code, PROBLEM, what, fix)


def note(code: str, what: str, fix: str) -> Finding:
    """A finding that may be meant so."""
    return Finding(code, NOTE, what, fix)


def python_version(facts: Facts) -> Iterator[Finding]:
    """An interpreter that we do not work with."""
    if not SpecifierSet(facts.python_required).contains(facts.python, prereleases=True):
        yield problem(
            "python_out_of_range",
            f"Python {facts.python} is out of range ({facts.python_required})",
            "use a Python in that range",
        )


def packages(facts: Facts) -> Iterator[Finding]:
    """A package that we need, missing or in a version that we do not work with."""
    for package in facts.packages:
        if package.version is None and not package.optional:
            yield problem(
                "package_missing",
                f"{package.name} is not installed",
                f"pip install '{package.name}{package.required}'",
            )
        elif package.version is not None and not package.in_range:
            yield problem(
                "package_out_of_range",
                f"{package.name} {package.version} is out of range ({package.required})",
                f"pip install '{package.name}{package.required}'",
            )


def wrapt(facts: Facts) -> Iterator[Finding]:
    """A wrapt without its C extension."""
    if not facts.wrapt_is_compiled:
        yield note(
            "wrapt_is_pure_python",
            "wrapt runs without its C extension: each traced call costs microseconds more",
            "unset WRAPT_DISABLE_EXTENSIONS, or reinstall: pip install --force-reinstall wrapt",
        )


def kernels(facts: Facts) -> Iterator[Finding]:
    """No kernel to instrument."""
    if not any(kernel.version for kernel in facts.kernels):
        names = " or ".join(kernel.name for kernel in facts.kernels)
        yield problem(
            "kernel_not_installed",
            f"no agent kernel is installed in this environment ({names})",
            f"pip install {facts.kernels[0].name if facts.kernels else 'weaver-kernel'}"
            ", or run the doctor with the app's own Python",
        )
    for kernel in facts.kernels:
        if kernel.version is not None and not kernel.in_range:
            yield problem(
                "kernel_out_of_range",
                f"{kernel.name} {kernel.version} is out of range ({kernel.required}), "
                "and is not instrumented",
                f"pip install '{kernel.name}{kernel.required}'",
            )


def sdk_disabled(facts: Facts) -> Iterator[Finding]:
    """OpenTelemetry switched off, or not, although meant so."""
    text = facts.environ.get("OTEL_SDK_DISABLED", "").strip().lower()
    if text == "true":
        yield problem(
            "sdk_disabled", "OTEL_SDK_DISABLED=true switches all off", "unset OTEL_SDK_DISABLED"
        )
    elif text not in {"", "false"}:
        yield note(
            "sdk_disabled_unreadable",
            f"OTEL_SDK_DISABLED={shown_choice(text)} switches nothing off: only true does",
            "set it to true, or unset it",
        )


def instrumentation_disabled(facts: Facts) -> Iterator[Finding]:
    """Our instrumentation switched off."""
    names = {
        name.strip() for name in facts.value("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS").split(",")
    }
    hit = names & {INSTRUMENTATION, "*"}
    if hit:
        yield problem(
            "instrumentation_disabled",
            f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS has {', '.join(sorted(hit))}: "
            "the kernel is not instrumented",
            f"take {', '.join(sorted(hit))} out of it",
        )


def selection(facts: Facts) -> Iterator[Finding]:
    """Somebody else, or nobody, configures."""
    for variable, group, consequence in (
        ("OTEL_PYTHON_DISTRO", "opentelemetry_distro", "no defaults are set"),
        ("OTEL_PYTHON_CONFIGURATOR", "opentelemetry_configurator", "nothing is configured"),
    ):
        name = facts.environ.get(variable)
        is_none = variable == "OTEL_PYTHON_CONFIGURATOR" and name == "none"
        if name is not None and not is_none and name not in facts.registered[group]:
            known = ", ".join(sorted(facts.registered[group])) or "none"
            yield problem(
                "distro_unknown",
                f"{variable} names what is not installed: {consequence}",
                f"unset {variable}, or name one of: {known}",
            )
    if not facts.selection.ours and not defaults.is_disabled(facts.environ):
        yield note(
            "configured_by_another",
            f"{facts.selection.configures or 'nobody'} configures, not this package: "
            f"{shown_choice(facts.selection.reason)}",
            f"leave it so, or set OTEL_PYTHON_DISTRO={defaults.ENTRY_POINT} "
            f"and OTEL_PYTHON_CONFIGURATOR={defaults.ENTRY_POINT}",
        )


def exporters(facts: Facts) -> Iterator[Finding]:
    """Signals that go nowhere, unless that is for a variable that cannot be read."""
    unread = {signal.lower() for one in facts.unreadable for signal in one.silences}
    silent = [one.signal for one in facts.destinations if one.exporter == "none"]
    by_file = facts.is_configured_by_file
    if facts.destinations and len(silent) == len(facts.destinations) and not unread:
        yield problem(
            "no_exporter",
            "no signal has an exporter: nothing leaves the process",
            "give the file one"
            if by_file
            else "set OTEL_TRACES_EXPORTER=otlp (likewise METRICS, LOGS)",
        )
    else:
        for signal in (signal for signal in silent if signal not in unread):
            variable = f"OTEL_{signal.upper()}_EXPORTER"
            yield note(
                f"no_{signal}_exporter",
                f"{signal} are not exported: "
                + ("the file has no exporter" if by_file else f"{variable} is none or not set"),
                "leave it so, or " + ("give it one" if by_file else f"set {variable}=otlp"),
            )


def console_exporters(facts: Facts) -> Iterator[Finding]:
    """Signals that are printed instead of sent."""
    for one in facts.destinations:
        if one.exporter == "console":
            yield note(
                "exported_to_the_console",
                f"{one.signal} are printed by the app itself",
                f"leave it so, or set OTEL_{one.signal.upper()}_EXPORTER=otlp",
            )


def sampling(facts: Facts) -> Iterator[Finding]:
    """A sampler that keeps nothing, or only a share."""
    if facts.is_configured_by_file:
        return
    name, argument = facts.value("OTEL_TRACES_SAMPLER"), facts.value("OTEL_TRACES_SAMPLER_ARG")
    if name in {"always_off", "parentbased_always_off"}:
        of_whom = " that this process starts" if name.startswith("parentbased") else ""
        yield problem(
            "sampler_keeps_nothing",
            f"OTEL_TRACES_SAMPLER={name}: no trace{of_whom} is kept",
            "unset OTEL_TRACES_SAMPLER (parentbased_always_on)",
        )
    elif name.endswith("traceidratio"):
        share = _share(argument)
        if share is None:
            yield problem(
                "sampler_argument_unreadable",
                f"OTEL_TRACES_SAMPLER={name} has no share that can be read in "
                "OTEL_TRACES_SAMPLER_ARG: all traces are kept",
                "set OTEL_TRACES_SAMPLER_ARG to a number from 0 to 1",
            )
        elif share == 0:
            yield problem(
                "sampler_keeps_nothing",
                "OTEL_TRACES_SAMPLER_ARG=0: no trace is kept",
                "set it to 1, or unset OTEL_TRACES_SAMPLER",
            )
        elif share < 1:
            yield note(
                "sampler_keeps_a_share",
                f"{share:g} of the traces are kept, about 1 of {max(2, round(1 / share))}: "
                "most calls show no trace",
                "to see every call, unset OTEL_TRACES_SAMPLER",
            )


def _share(argument: str) -> float | None:
    try:
        share = float(argument)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def levels(facts: Facts) -> Iterator[Finding]:
    """Our own spans switched off."""
    if facts.value("OTEL_AGENT_KERNEL_SPAN_LEVEL").lower() == "off":
        yield problem(
            "spans_off",
            "OTEL_AGENT_KERNEL_SPAN_LEVEL=off: the kernel's calls give no spans",
            "unset it (info)",
        )


def temporality(facts: Facts) -> Iterator[Finding]:
    """Delta temporality, which Prometheus drops."""
    preference = facts.value("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE").lower()
    if preference not in {"delta", "lowmemory"}:
        return
    prometheus = any(
        one.signal == "metrics" and (one.peer[1] == 9090 or "/api/v1/otlp" in one.address)
        for one in facts.destinations
    )
    fix = "unset OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE (cumulative)"
    if prometheus:
        yield problem(
            "delta_to_prometheus",
            f"metrics go to Prometheus with {preference} temporality, which it refuses or drops",
            fix,
        )
    else:
        yield note(
            "delta_temporality",
            f"metrics are sent with {preference} temporality: "
            "Prometheus, also behind a Collector's remote write, drops such counters in silence",
            f"if Prometheus is at the end, {fix}",
        )


FINDERS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    python_version,
    packages,
    wrapt,
    kernels,
    sdk_disabled,
    selection,
    instrumentation_disabled,
    exporters,
    console_exporters,
    sampling,
    levels,
    temporality,
)
