# SPDX-License-Identifier: Apache-2.0
"""What a sampler means."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.doctor.facts import Facts

_DEFAULT: Final = "parentbased_always_on"
_MEANING: Final = {
    "always_on": "every trace is kept",
    "always_off": "no trace is kept",
    "parentbased_always_on": "every trace is kept, unless the caller's trace is not",
    "parentbased_always_off": "only traces that a caller has started and kept",
}


def sampling_in_words(facts: Facts) -> tuple[str, str]:
    """The sampler in force, and what it means."""
    if facts.is_configured_by_file:
        return "as the configuration file has it", ""
    name = facts.value("OTEL_TRACES_SAMPLER") or _DEFAULT
    if name not in facts.registered["opentelemetry_traces_sampler"]:
        name = _DEFAULT
    if name in _MEANING:
        return name, _MEANING[name]
    if not name.endswith("traceidratio"):
        return name, "a sampler that is not OpenTelemetry's own"
    try:
        share = float(facts.value("OTEL_TRACES_SAMPLER_ARG"))
    except ValueError:
        share = 1.0
    parent = ", or as the caller has decided" if name.startswith("parentbased") else ""
    return name, f"{share:.4g} of all traces are kept{parent}"
