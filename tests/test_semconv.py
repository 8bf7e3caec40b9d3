# SPDX-License-Identifier: Apache-2.0
"""The registry of names: well formed, without contradictions, and true to the conventions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import opentelemetry.semconv
import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.weaver.targets import OPERATIONS, SEAMS

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)+")


def constants() -> dict[str, str]:
    return {
        name: value
        for name, value in vars(semconv).items()
        if name.isupper() and isinstance(value, str)
    }


def conventions() -> dict[str, set[str]]:
    """Names of attributes in the installed package of conventions, by their constants' names."""
    found: dict[str, set[str]] = {}
    # Read, not imported: importing the modules of names in development warns of that.
    for module in Path(opentelemetry.semconv.__path__[0]).rglob("*_attributes.py"):
        for name, value in re.findall(r'^([A-Z_0-9]+): Final = "(.+)"', module.read_text(), re.M):
            found.setdefault(name, set()).add(value)
    return found


@pytest.mark.parametrize("name", [*semconv.SPANS, *semconv.EVENTS, *semconv.ATTRIBUTES])
def test_a_name_follows_the_naming_rules(name: str) -> None:
    assert NAME.fullmatch(name)


def test_names_are_unique_across_spans_events_and_attributes() -> None:
    names = [*semconv.SPANS, *semconv.EVENTS, *semconv.ATTRIBUTES]
    assert len(names) == len(set(names))
    values = list(constants().values())
    assert len(values) == len(set(values))


def test_no_name_is_the_namespace_of_another() -> None:
    for names in (semconv.SPANS, semconv.ATTRIBUTES):
        inside = {".".join(name.split(".")[:n]) for name in names for n in range(1, 6)}
        proper = {n for n in names if any(other.startswith(f"{n}.") for other in names)}
        assert proper <= inside
        # A name that is also a namespace cannot be stored as a nested document.
        assert proper == set()


def test_each_registered_name_has_a_constant() -> None:
    registered = {*semconv.SPANS, *semconv.EVENTS, *semconv.ATTRIBUTES}
    assert registered <= set(constants().values())


@pytest.mark.parametrize("attribute", semconv.ATTRIBUTES.values(), ids=lambda a: a.name)
def test_an_attribute_is_on_spans_events_or_metrics_that_exist(attribute: Any) -> None:
    on_metrics = [m for m in semconv.METRICS.values() if attribute.name in m.attributes]
    assert attribute.on or on_metrics
    assert set(attribute.on) <= {*semconv.SPANS, *semconv.EVENTS}
    assert len(attribute.on) == len(set(attribute.on))
    assert attribute.description.endswith(".")
    assert not attribute.values or attribute.type == "string"


def test_a_spans_parent_and_an_operations_exception_event_exist() -> None:
    assert set(semconv.EXCEPTION_EVENTS) <= set(semconv.SPANS)
    assert set(semconv.EXCEPTION_EVENTS.values()) <= set(semconv.EVENTS)
    assert {target.span for target in OPERATIONS} == set(semconv.EXCEPTION_EVENTS)
    assert {name for seam in SEAMS for name in seam.operations} <= set(semconv.SPANS)


@pytest.mark.parametrize(
    "name", [name for name in semconv.ATTRIBUTES if not name.startswith("agent_kernel.")]
)
def test_a_name_of_the_conventions_is_what_their_package_says(name: str) -> None:
    constant = name.upper().replace(".", "_")
    assert conventions().get(constant) == {name}


def test_content_is_never_known_at_the_start() -> None:
    # A sampler sees what is there at the start; content is added after it has decided.
    assert not [a.name for a in semconv.ATTRIBUTES.values()
                if a.sensitivity == "content" and a.at_start]  # fmt: skip
