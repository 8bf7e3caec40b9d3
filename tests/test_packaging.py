# SPDX-License-Identifier: Apache-2.0
"""What the installed distribution says of itself."""

from __future__ import annotations

from importlib.metadata import EntryPoint, distribution, entry_points, version
from inspect import signature

import pytest
from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined] # fmt: skip
from opentelemetry.sdk._configuration import _BaseConfigurator
from opentelemetry.sdk.trace.export import SpanExporter
from packaging.requirements import Requirement

import agent_kernel_otel

DISTRIBUTION = distribution("agent-kernel-otel")
OURS = [
    ("opentelemetry_instrumentor", "weaver_kernel", BaseInstrumentor),
    ("opentelemetry_distro", "agent_kernel", BaseDistro),
    ("opentelemetry_configurator", "agent_kernel", _BaseConfigurator),
    ("opentelemetry_traces_exporter", "agent_kernel_links", SpanExporter),
]
HOOKS = [
    ("opentelemetry_pre_instrument", "agent_kernel"),
    ("opentelemetry_post_instrument", "agent_kernel"),
]


def _requirements(extra: str | None) -> list[Requirement]:
    found = [Requirement(line) for line in DISTRIBUTION.requires or []]
    if extra is None:
        return [requirement for requirement in found if requirement.marker is None]
    return [
        requirement
        for requirement in found
        if requirement.marker and requirement.marker.evaluate({"extra": extra})
    ]


def _named(group: str, name: str) -> EntryPoint:
    (found,) = (
        entry_point
        for entry_point in entry_points(group=group, name=name)
        if entry_point.value.startswith("agent_kernel_otel.")
    )
    return found


def test_the_instruments_extra_says_what_the_instrumentor_says() -> None:
    extra = {(r.name, r.specifier) for r in _requirements("instruments")}
    stated = map(Requirement, agent_kernel_otel.KernelInstrumentor().instrumentation_dependencies())
    assert extra == {(r.name, r.specifier) for r in stated}


def test_the_auto_loader_finds_no_conflict_with_the_installed_kernel() -> None:
    assert get_dist_dependency_conflicts(DISTRIBUTION) is None


@pytest.mark.parametrize(("group", "name", "kind"), OURS)
def test_each_entry_point_makes_what_its_group_asks_for(group: str, name: str, kind: type) -> None:
    assert isinstance(_named(group, name).load()(), kind)


@pytest.mark.parametrize(("group", "name"), HOOKS)
def test_each_hook_can_be_called_without_arguments(group: str, name: str) -> None:
    signature(_named(group, name).load()).bind()


def test_there_are_no_entry_points_of_ours_but_the_tested_ones() -> None:
    groups = {(point.group, point.name) for point in DISTRIBUTION.entry_points}
    tested = {(group, name) for group, name, _ in OURS} | set(HOOKS)
    assert {one for one in groups if one[0].startswith("opentelemetry")} == tested


def test_there_is_one_version() -> None:
    assert version("agent-kernel-otel") == agent_kernel_otel.__version__


def test_the_zero_code_path_needs_no_extra() -> None:
    core = {requirement.name for requirement in _requirements(None)}
    assert {
        "opentelemetry-sdk",
        "opentelemetry-instrumentation",
        "opentelemetry-instrumentation-logging",
        "opentelemetry-exporter-otlp-proto-grpc",
    } <= core


def test_no_kernel_is_a_core_dependency() -> None:
    assert "weaver-kernel" not in {requirement.name for requirement in _requirements(None)}


@pytest.mark.parametrize("name", agent_kernel_otel.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(agent_kernel_otel, name) is not None
