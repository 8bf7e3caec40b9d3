# SPDX-License-Identifier: Apache-2.0
"""What the reports of a command's processes mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent_kernel_otel.doctor.facts import Facts
from agent_kernel_otel.doctor.findings import INSTRUMENTATION, Finding, note, problem
from agent_kernel_otel.doctor.masking import shown_answer, shown_choice
from agent_kernel_otel.doctor.observation import LAUNCHER, Observation

_WHY_DROPPED: Final = {
    "queue_full": (
        "more came at once than the queue holds",
        "raise OTEL_BSP_MAX_QUEUE_SIZE (spans) or OTEL_BLRP_MAX_QUEUE_SIZE (log records)",
    ),
    "unanswered": (
        "the receiver did not answer in time",
        "see what this doctor says of the endpoint; OTEL_EXPORTER_OTLP_TIMEOUT is in seconds",
    ),
    "failed": ("the exporter could not send it", "look at the app's log for the exporter's words"),
    "exit": (
        "unsent when the process ended",
        "repair the endpoint; or give the end more time: OTEL_AGENT_KERNEL_EXIT_TIMEOUT",
    ),
}

_ITEMS: Final = {"traces": "spans", "metrics": "metric batches", "logs": "log records"}


def observed(seen: Observation, facts: Facts) -> Iterator[Finding]:
    """What is wrong with what was seen of a command."""
    if not seen.reports:
        yield _no_report(seen, facts)
        return
    for report in seen.reports:
        yield from _books(report, facts)
    if all(_is_idle(report) for report in seen.reports):
        yield from _why_idle(seen.reports[0])


def _no_report(seen: Observation, facts: Facts) -> Finding:
    if not facts.selection.ours:
        return note(
            "no_report",
            "the command's processes did not report: this package does not configure there "
            f"({shown_choice(facts.selection.reason)})",
            "look at what the distro that configures says; or see the note on who configures",
        )
    if not seen.is_instrumented:
        return problem(
            "not_instrumented",
            f"{seen.program} was started without {LAUNCHER}: nothing was configured",
            f"agent-kernel-otel doctor -- {LAUNCHER} {seen.program} ..., "
            "and start the app like that",
        )
    if seen.exit_code >= 128:
        return problem(
            "no_report",
            f"the process was ended by signal {seen.exit_code - 128}, and could not report "
            "nor send what was left",
            "end it with SIGTERM, which is seen to",
        )
    return problem(
        "no_report",
        "the command's processes did not report: they ended by os._exit or SIGKILL, run another "
        "Python than this one, start it with -I or -E, or OpenTelemetry failed to start there",
        "look at the first lines that the app printed, and let it end by itself",
    )


def _books(report: Mapping[str, Any], facts: Facts) -> Iterator[Finding]:
    telemetry: Mapping[str, Any] = report.get("telemetry") or {}
    process = f"process {report['pid']}"
    errors = [str(e["last_error"]) for e in telemetry.values() if e.get("last_error")]
    said = f' ("{shown_answer(errors[0], facts.environ)}")' if errors else ""
    reasons = {reason for entry in telemetry.values() for reason in entry.get("dropped") or ()}
    for reason in sorted(reasons):
        why, fix = _WHY_DROPPED.get(reason, (reason, "look at the app's log"))
        counts = {s: (entry.get("dropped") or {}).get(reason) for s, entry in telemetry.items()}
        what = _listed(telemetry, counts)
        yield problem("dropped", f"{process} dropped {what}: {why}{said}", fix)
    refused = _listed(telemetry, {s: entry.get("refused") for s, entry in telemetry.items()})
    if refused:
        yield problem(
            "refused",
            f"{process}: the receiver refused {refused}{said}",
            "see what this doctor says of the endpoint, and look at the receiver's log",
        )
    pending = _listed(telemetry, {s: entry.get("pending") for s, entry in telemetry.items()})
    if pending:
        yield problem(
            "pending",
            f"{process} ended with {pending} unsent",
            "let it end by itself or by SIGTERM",
        )


def _listed(telemetry: Mapping[str, Any], counts: Mapping[str, int | None]) -> str:
    return ", ".join(
        f"{count} of {telemetry[signal]['ended']} {_ITEMS.get(signal, signal)}"
        for signal, count in counts.items()
        if count
    )


def _is_idle(report: Mapping[str, Any]) -> bool:
    return not ((report.get("telemetry") or {}).get("traces") or {}).get("ended")


def _why_idle(report: Mapping[str, Any]) -> Iterator[Finding]:
    kernels = report.get("kernels") or {}
    settings = report.get("settings")
    sampler = str((report.get("providers") or {}).get("sampler") or "")
    provider = str((report.get("providers") or {}).get("traces") or "")
    if not provider.startswith("opentelemetry.sdk."):
        yield problem(
            "no_provider",
            "the process had no tracer provider of the SDK: nothing could be recorded",
            f"start the app with {LAUNCHER}, or set providers up in its code",
        )
    elif settings is None:
        yield problem(
            "not_loaded",
            f"the instrumentation {INSTRUMENTATION} was not loaded in the process",
            "see the problems above; or call KernelInstrumentor().instrument() in the app",
        )
    elif not kernels.get("imported"):
        yield problem(
            "kernel_not_imported",
            "the app never imported an agent kernel",
            "run the part of the app that uses it: only calls of a kernel are traced",
        )
    elif not kernels.get("met"):
        yield problem(
            "kernel_not_called",
            "the app imported the kernel, and no kernel was called",
            "run the part of the app that grants or invokes; a subclass that overrides these "
            "without super() is not seen",
        )
    elif settings.get("span_level") == "off":
        return  # said by another finding
    else:
        decided = f" ({sampler})" if sampler else ""
        yield problem(
            "nothing_sampled",
            f"kernels were called, and no span was kept: the sampler{decided}, "
            "or the trace that the calls belong to, said no",
            "set OTEL_TRACES_SAMPLER=always_on to see whether spans come then",
        )
