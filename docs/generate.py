# SPDX-License-Identifier: Apache-2.0
"""Writes the reference pages from the code; ``--check`` only tells whether they are up to date.

Run it with ``make docs`` after a change to ``semconv``, to the table of patch targets, or to that of
what audit records do not hold.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path

from audit_records_page import audit_records
from metrics_page import metrics
from tables import table

from agent_kernel_otel import InstrumentationConfig, semconv
from agent_kernel_otel.distro.defaults import DEFAULTS_WITH_REASONS, Default
from agent_kernel_otel.pipeline.ledger import LOGS, METRICS, REASONS, TRACES
from agent_kernel_otel.pipeline.meter_state import SERIES_LIMIT
from agent_kernel_otel.weaver.targets import OPERATIONS, OWN_DRIVERS, OWN_FUNCTIONS, SEAMS

DOCS = Path(__file__).parent

_TRACING_HEAD = """\
# Tracing reference

<!-- Written by docs/generate.py from src/agent_kernel_otel/semconv. Do not edit. -->

Everything that `agent-kernel-otel` emits for the Weaver kernel, and what it means. All spans are
`INTERNAL`. Scope: `agent_kernel_otel.weaver`. No schema URL is set: the names are this project's
own, but for `gen_ai.*`, `error.type`, `exception.*` and `security_rule.name`, which follow the
OpenTelemetry semantic conventions (those of GenAI are in development and can still change).

## How to read a trace

- `agent_kernel.status` says how a call ended: `success`, `error`, `denied` or `cancelled`.
  A denial is the kernel doing its work.
- The OpenTelemetry span status is `UNSET` unless the caller of that operation saw an exception
  (then `ERROR`, a denial included), or a driver attempt or a policy engine failed. It never has a
  description, because exception texts hold secrets. A policy span that denies stays `UNSET`.
- Exceptions are log events, not span events. A denial gives a decision event and no exception
  event; a cancellation, and an attempt that a fallback made good, give none.
- An invocation links to the grant of its token, where this process granted it and the grant was
  sampled. `agent_kernel.token_id` on both is what joins them for good.
- With `span_naming=gen_ai` the invoke span is called `execute_tool {capability id}`; its
  attributes are the same.
- A stream is one invoke span, from its first step to its end; it includes the consumer's time.
  Its firewall span covers the whole stream, and its driver span is a child of the operation.
- An unsampled parent is obeyed: no spans then, but log events are emitted all the same.
"""


def tracing() -> str:
    """The page ``tracing.md``."""
    return "\n".join(
        [
            _TRACING_HEAD,
            "## Spans\n",
            *table(
                ("span", "level", "covers", "child of"),
                (
                    (f"`{span.name}`", f"`{span.level}`", span.opened_by, span.parent)
                    for span in semconv.SPANS.values()
                ),
            ),
            "\n## Attributes\n",
            "*Start* marks those that are known when the span starts, so that samplers see them.",
            "Sensitivity: `id` is a generated id, `identity` says who acts and follows the",
            "`principal_id` setting, `content` is user data and is exported only on request.\n",
            *table(
                ("attribute", "type", "on", "start", "sensitivity", "meaning"),
                (_attribute_row(a) for a in semconv.ATTRIBUTES.values() if a.on),
            ),
            "\n## Log events\n",
            *table(
                ("event", "severity", "emitted"),
                (
                    (f"`{event.name}`", event.severity, event.description)
                    for event in semconv.EVENTS.values()
                ),
            ),
            "\nEvents have the context of their span. Their body is a line for people, made of the",
            "names above.\n",
            "## What is patched\n",
            "The `Kernel` class; [how and why](how-it-attaches.md).\n",
            *table(
                ("method of `Kernel`", "opens"),
                ((f"`{target.method}`", f"`{target.span}`") for target in OPERATIONS),
            ),
            "",
            *table(
                ("attribute of `Kernel`", "seen through a view during"),
                (
                    (
                        f"`{seam.attribute}`",
                        ", ".join(f"`{name}`" for name in sorted(seam.operations)),
                    )
                    for seam in SEAMS
                ),
            ),
            "\nWith `propagate_context`, [the trace context is written](how-it-attaches.md#propagation)",
            "into these requests. The drivers are not patched for it, but run on views of themselves; the",
            "function is wrapped in the module of `Kernel`.\n",
            *table(
                ("`propagate_context`", "request of", "where the context goes"),
                (
                    *((f"`{d.path}`", f"`{d.name}.execute`", d.carrier) for d in OWN_DRIVERS),
                    *((f"`{f.path}`", f"`{f.name}`", f.carrier) for f in OWN_FUNCTIONS),
                ),
            ),
            "",
        ]
    )


_CONFIGURATION_HEAD = """\
# Configuration reference

<!-- Written by docs/generate.py from the code. Do not edit. -->

## Settings of the instrumentation

Each can be given by keyword (`KernelInstrumentor().instrument(span_level="debug")`), in
OpenTelemetry's [configuration file](#the-configuration-file), or by an environment variable: its
name in upper case after `OTEL_AGENT_KERNEL_`. A keyword wins over the file, the file over the
environment, and the environment over the default. A keyword that cannot be read raises
`ConfigurationError`; anything else that cannot is reported in one line, and the next source counts.
"""

_CONFIGURATION_FILE = """
## The configuration file

OpenTelemetry's declarative configuration (experimental) needs
`pip install 'agent-kernel-otel[config]'`, and `OTEL_CONFIG_FILE` that names the file. Where it is
set, OpenTelemetry ignores its own variables, so that the file says all:

```yaml
file_format: "1.0"
resource:
  attributes:
    - {name: service.name, value: support-agent}
tracer_provider:
  processors:
    - batch: {exporter: {otlp_grpc: {endpoint: "http://localhost:4317"}}}
instrumentation/development:
  python:
    weaver_kernel:
      span_level: debug
      principal_id: hash
```

`enabled: false` in the block of `weaver_kernel` leaves kernels alone. A file that cannot be used sets
up nothing, so that no data goes where it should not; one line says what is wrong with it.
"""

_DEFAULTS_HEAD = """
## What the distro sets

Under `opentelemetry-instrument`, and only where you have not set the variable; an empty value counts
as not set. What OpenTelemetry reads besides, such as `OTEL_EXPORTER_OTLP_ENDPOINT` or
`OTEL_EXPORTER_OTLP_HEADERS`, is its own.
"""

_BEYOND_VARIABLES = """
Beyond variables:

- The service is named after the script or module, where nothing names it; its process has a
  `service.instance.id`, and a forked child one of its own.
- An instrument keeps at most {limit} attribute sets apart, the others share the one with
  `otel.metric.overflow=true`; on every SDK. A view of your own goes without this bound.
- Metrics are collected once at the start, at intervals, and once at the end, so that a job of a
  second is seen.
- The end of the process, and SIGTERM, send what is left within `exit_timeout` and no longer.

## Metrics of the distro

Those of the kernels: [Metrics reference](metrics.md).
"""


def configuration() -> str:
    """The page ``configuration.md``."""
    meanings = _documented_attributes(InstrumentationConfig)
    return "\n".join(
        [
            _CONFIGURATION_HEAD,
            *table(
                ("setting", "default", "meaning"),
                (
                    (f"`{setting.name}`", _default(setting.default), meanings[setting.name])
                    for setting in fields(InstrumentationConfig)
                ),
            ),
            _CONFIGURATION_FILE,
            _DEFAULTS_HEAD.lstrip(),
            *table(
                ("variable", "set to", "why"),
                (
                    (f"`{default.variable}`", f"`{_shown(default)}`", default.reason)
                    for default in DEFAULTS_WITH_REASONS
                ),
            ),
            _BEYOND_VARIABLES.format(limit=SERIES_LIMIT),
            *table(
                ("metric", "instrument", "unit", "attributes", "meaning"),
                (
                    (
                        f"`{metric.name}`",
                        f"observable {metric.instrument}",
                        f"`{metric.unit}`",
                        ", ".join(f"`{key}`" for key in metric.attributes),
                        metric.description,
                    )
                    for metric in (semconv.TELEMETRY_SENT, semconv.TELEMETRY_DROPPED)
                ),
            ),
            "",
            f"Signals: `{TRACES}`, `{METRICS}`, `{LOGS}`; of metrics, one collection is one item.",
            "Reasons: " + ", ".join(f"`{reason}`" for reason in ("refused", *REASONS)) + ".",
            "",
        ]
    )


def _documented_attributes(of: type) -> dict[str, str]:
    section = inspect.cleandoc(of.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    texts = (re.sub(r"\s+", " ", text).replace("``", "`").strip() for text in entries[1::2])
    return dict(zip(entries[::2], texts, strict=True))


def _default(value: object) -> str:
    if value is None or value == frozenset():
        return "none"
    return f"`{str(value).lower()}`"


def _shown(default: Default) -> str:
    # The page is the same whatever SDK it is made with.
    return "os,process" if "DETECTORS" in default.variable else default.value


def _attribute_row(attribute: semconv.AttributeDefinition) -> tuple[str, ...]:
    values = ""
    if attribute.values:
        values = " One of " + ", ".join(f"`{value}`" for value in attribute.values) + "."
    return (
        f"`{attribute.name}`",
        attribute.type,
        _where(attribute.on),
        "yes" if attribute.at_start else "",
        attribute.sensitivity,
        attribute.description + values,
    )


def _where(names: tuple[str, ...]) -> str:
    if set(names) == {*semconv.SPANS, *semconv.EVENTS}:
        return "everything"
    if set(names) >= set(semconv.SPANS):
        rest = [name for name in names if name not in semconv.SPANS]
        return ", ".join(["every span", *map(_short, rest)])
    return ", ".join(map(_short, names))


def _short(name: str) -> str:
    return f"`{name.removeprefix('agent_kernel.')}`"


PAGES = {
    "tracing.md": tracing,
    "metrics.md": metrics,
    "configuration.md": configuration,
    "audit-records.md": audit_records,
}


def main() -> int:
    """Write the pages, or with ``--check`` name those that differ and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on a drift")
    options = parser.parse_args()
    stale = []
    for name, page in PAGES.items():
        path = DOCS / name
        text = page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not options.check:
            path.write_text(text, encoding="utf-8")
    if options.check and stale:
        print(f"out of date: {', '.join(stale)}; run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
