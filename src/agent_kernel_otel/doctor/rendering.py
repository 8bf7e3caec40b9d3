# SPDX-License-Identifier: Apache-2.0
"""The doctor's report as text for people."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from agent_kernel_otel.doctor.answers import Answer, Outcome
from agent_kernel_otel.doctor.destinations import Destination
from agent_kernel_otel.doctor.diagnosis import Diagnosis
from agent_kernel_otel.doctor.facts import Facts, Package
from agent_kernel_otel.doctor.findings import Finding
from agent_kernel_otel.doctor.masking import shown_choice
from agent_kernel_otel.doctor.observation import Observation
from agent_kernel_otel.doctor.sampling import sampling_in_words

_WIDTH: Final = 100
_THEIRS: Final = "opentelemetry-"
_LABEL: Final = 15
_GOOD, _BAD, _DOUBTFUL, _NEUTRAL = "✓", "✗", "!", "·"
_PLAIN: Final = {"✓": "+", "✗": "x", "·": "-", "→": "->"}
_COLOURS: Final = {_GOOD: "32", _BAD: "31", _DOUBTFUL: "33", _NEUTRAL: "2"}


def text_of(diagnosis: Diagnosis, stream: TextIO | None = None) -> str:
    """The report.

    Args:
        diagnosis: What to report.
        stream: Where it will be written: it decides on colour and on symbols. None for plain text.
    """
    lines = "\n".join(_lines(diagnosis)) + "\n"
    if stream is not None and not _can_encode(stream):
        for symbol, plain in _PLAIN.items():
            lines = lines.replace(symbol, plain)
    elif stream is not None and _wants_colour(stream):
        lines = "".join(map(_coloured, lines.splitlines(keepends=True)))
    return lines


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    codes = {finding.code for finding in diagnosis.problems}
    yield from _installed(diagnosis.facts, codes)
    yield from _configured(diagnosis.facts, codes)
    yield from _signals(diagnosis)
    if diagnosis.observation is not None:
        yield from _processes(diagnosis.observation)
    yield ""
    yield "configuration"
    yield from _settings(diagnosis.facts)
    yield ""
    yield from _findings(diagnosis)


def _installed(facts: Facts, codes: set[str]) -> Iterator[str]:
    wrong = codes & {"package_missing", "package_out_of_range", "python_out_of_range"}
    versions: dict[str, list[str]] = {}
    for package in facts.packages:
        if package.version is not None or not package.optional:
            versions.setdefault(package.version or "missing", []).append(package.name)
    said = [f"{_in_short(names)} {version}" for version, names in versions.items()]
    compiled = "with" if facts.wrapt_is_compiled else "without"
    said = [f"{one} {compiled} its C extension" if "wrapt" in one else one for one in said]
    text = " · ".join([*said, f"Python {facts.python}"])
    yield from _row(_BAD if wrong else _GOOD, "installed", text)
    for kernel in facts.kernels:
        symbol = _GOOD if kernel.in_range else _BAD
        yield from _row(symbol, "kernel", f"{_package(kernel)}  (works with {kernel.required})")


def _in_short(names: Sequence[str]) -> str:
    """Names of one version, with what OpenTelemetry's begin with said once."""
    theirs = [n.removeprefix(_THEIRS) for n in names if n.startswith(_THEIRS)]
    others = [name for name in names if not name.startswith(_THEIRS)]
    return ", ".join([*others, *([f"opentelemetry {', '.join(theirs)}"] if theirs else [])])


def _package(package: Package) -> str:
    return f"{package.name} {package.version or 'is not installed'}"


def _configured(facts: Facts, codes: set[str]) -> Iterator[str]:
    who = facts.selection.configures or "nobody"
    symbol = _GOOD if facts.selection.ours else _BAD if "sdk_disabled" in codes else _DOUBTFUL
    yield from _row(symbol, "configured by", f"{who}: {shown_choice(facts.selection.reason)}")
    name, meaning = sampling_in_words(facts)
    kept = not codes & {"sampler_keeps_nothing", "sampler_argument_unreadable"}
    yield from _row(_GOOD if kept else _BAD, "sampling", ": ".join(filter(None, (name, meaning))))


def _signals(diagnosis: Diagnosis) -> Iterator[str]:
    if not diagnosis.facts.destinations:
        yield from _row(_NEUTRAL, "signals", "nothing is known of where they go")
    answers = {answer.destination: answer for answer in diagnosis.answers or ()}
    for destination in diagnosis.facts.destinations:
        yield from _signal(destination, answers.get(destination))


def _signal(destination: Destination, answer: Answer | None) -> Iterator[str]:
    if not destination.protocol:
        symbol = _BAD if destination.unwritable else _NEUTRAL
        file = f" → {destination.endpoint}" if destination.endpoint else ""
        yield from _row(symbol, destination.signal, shown_choice(destination.exporter) + file)
        return
    where = f"{shown_choice(destination.protocol)} → {destination.endpoint}"
    if answer is None:
        yield from _row(_NEUTRAL, destination.signal, where)
    elif answer.outcome is Outcome.OK:
        took = f"took an empty request in {answer.seconds * 1000:.0f} ms"
        yield from _row(_GOOD, destination.signal, f"{where}  {took}")
    else:
        why = answer.outcome.value.replace("_", " ")
        yield from _row(_BAD, destination.signal, f"{where}  {why}")


def _processes(seen: Observation) -> Iterator[str]:
    count = len(seen.reports)
    reported = "1 process reported" if count == 1 else f"{count or 'no'} processes reported"
    yield ""
    yield f"the command ended with exit code {seen.exit_code}; {reported}"
    for report in seen.reports:
        yield from _process(report)


def _process(report: Mapping[str, Any]) -> Iterator[str]:
    selection, kernels = report.get("selection") or {}, report.get("kernels") or {}
    sampler = _short_sampler((report.get("providers") or {}).get("sampler") or "")
    said = [f"configured by {selection.get('configures') or 'nobody'}"]
    if sampler:
        said.append(f"sampler {sampler}")
    yield from _row(_NEUTRAL, f"process {report['pid']}", " · ".join(said))
    imported = ", ".join(kernels.get("imported") or ()) or "none"
    met = f"kernels imported: {imported}; kernels that made calls: {kernels.get('met') or 0}"
    yield from _row(" ", "", met)
    for name, attributes in (report.get("patched") or {}).items():
        yield from _row(" ", "", f"patched: {name} ({', '.join(attributes)})")
    for signal, entry in (report.get("telemetry") or {}).items():
        dropped = sum((entry.get("dropped") or {}).values())
        lost = dropped + entry["refused"] + entry["pending"]
        yield from _row(
            _BAD if lost else _GOOD,
            signal,
            f"{entry['ended']} ended · {entry['sent']} sent · {entry['refused']} refused · "
            f"{dropped} dropped · {entry['pending']} pending",
        )


def _short_sampler(description: str) -> str:
    # What it does with each kind of parent is five times as long, and seldom the question.
    return re.sub(r"(\{root:[^,]*),.*\}", r"\1}", description)


def _settings(facts: Facts) -> Iterator[str]:
    width = max((len(setting.name) for setting in facts.settings), default=0)
    for setting in facts.settings:
        yield f"  {setting.name:<{width}}  {setting.value}  ({setting.source})"


def _findings(diagnosis: Diagnosis) -> Iterator[str]:
    counts = (_count(len(diagnosis.problems), "problem"), _count(len(diagnosis.notes), "note"))
    yield ", ".join(counts)
    for symbol, findings in ((_BAD, diagnosis.problems), (_DOUBTFUL, diagnosis.notes)):
        for finding in findings:
            yield from _finding(symbol, finding)


def _finding(symbol: str, finding: Finding) -> Iterator[str]:
    yield from _wrapped(f"{symbol} ", finding.problem)
    yield from _wrapped("  fix: ", finding.fix)


def _row(symbol: str, label: str, text: str) -> Iterator[str]:
    yield from _wrapped(f"{symbol} {label:<{_LABEL}}", text)


def _wrapped(first: str, text: str) -> Iterator[str]:
    filled = textwrap.wrap(
        text, _WIDTH - len(first), break_long_words=False, break_on_hyphens=False
    ) or [""]
    for position, line in enumerate(filled):
        yield f"{first if position == 0 else ' ' * len(first)}{line}".rstrip()


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _can_encode(stream: TextIO) -> bool:
    try:
        "".join(_PLAIN).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _wants_colour(stream: TextIO) -> bool:
    return (
        stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
        and sys.platform != "win32"
    )


def _coloured(line: str) -> str:
    colour = _COLOURS.get(line[:1])
    return line if colour is None else f"\033[{colour}m{line[:1]}\033[0m{line[1:]}"
