# SPDX-License-Identifier: Apache-2.0
"""Who configures OpenTelemetry: the decision, whatever is installed and in whatever order."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from itertools import permutations
from typing import NamedTuple

import pytest

from agent_kernel_otel.distro.hints import ANNOUNCED, announce
from agent_kernel_otel.distro.selection import Selection, select


class Package(NamedTuple):
    """What one installed package brings: the names of its distro and of its configurator."""

    module: str
    distro: str | None
    configurator: str | None


OURS = Package("agent_kernel_otel.distro", "agent_kernel", "agent_kernel")
ACME = Package("acme", "acme_distro", "configurator")
EDOT = Package("edot", "distro", "configurator")
SETTER = Package("setter", "setter_distro", None)
BUILDER = Package("builder", None, "builder_setup")


def decide(*found: Package, **environ: str) -> Selection:
    return select(
        {f"OTEL_{name}": value for name, value in environ.items()},
        [
            EntryPoint(one.distro, f"{one.module}.entry:Distro", "opentelemetry_distro")
            for one in found
            if one.distro
        ],
        [
            EntryPoint(one.configurator, f"{one.module}.entry:Set", "opentelemetry_configurator")
            for one in found
            if one.configurator
        ],
    )


def test_alone_ours_configures_and_nothing_is_said() -> None:
    selection = decide(OURS)
    assert (selection.configures, selection.ours) == ("agent-kernel-otel", True)
    assert selection.our_distro
    assert selection.our_defaults
    assert selection.notice is None
    assert selection.reason == "no other distro is installed"


@pytest.mark.parametrize("found", [(OURS, ACME), (ACME, OURS)])
def test_another_vendors_distro_configures_in_either_order(found: tuple[Package, ...]) -> None:
    selection = decide(*found)
    assert (selection.configures, selection.ours, selection.our_distro) == ("acme", False, False)
    assert selection.distro is not None
    assert selection.distro.name == "acme_distro"
    assert selection.configurator is not None
    assert selection.configurator.value == "acme.entry:Set"
    assert selection.notice is not None
    assert selection.notice.startswith("acme configures OpenTelemetry, because ")
    assert selection.notice.endswith("set OTEL_PYTHON_DISTRO=agent_kernel")


@pytest.mark.parametrize("found", list(permutations([OURS, ACME, EDOT])))
def test_of_several_the_first_found_configures_and_the_line_names_all(
    found: tuple[Package, ...],
) -> None:
    first, second = (one.module for one in found if one is not OURS)
    selection = decide(*found)
    assert selection.configures == first
    assert selection.configurator is not None
    assert selection.configurator.value == f"{first}.entry:Set"
    assert selection.notice is not None
    assert f"first found of {first}, {second}" in selection.notice


@pytest.mark.parametrize("found", list(permutations([OURS, ACME, EDOT])))
def test_ours_configures_where_its_distro_is_named(found: tuple[Package, ...]) -> None:
    selection = decide(*found, PYTHON_DISTRO="agent_kernel")
    assert selection.ours
    assert selection.our_defaults
    assert selection.notice is None
    assert selection.reason == "OTEL_PYTHON_DISTRO=agent_kernel"


@pytest.mark.parametrize("found", [(OURS, ACME), (ACME, OURS)])
def test_the_distro_that_is_named_brings_its_configurator(found: tuple[Package, ...]) -> None:
    selection = decide(*found, PYTHON_DISTRO="acme_distro")
    assert (selection.configures, selection.notice) == ("acme", None)
    assert selection.reason == "OTEL_PYTHON_DISTRO=acme_distro"


@pytest.mark.parametrize("found", list(permutations([OURS, ACME, BUILDER])))
def test_the_configurator_that_is_named_configures(found: tuple[Package, ...]) -> None:
    selection = decide(*found, PYTHON_CONFIGURATOR="builder_setup")
    assert (selection.configures, selection.notice) == ("builder", None)
    selection = decide(*found, PYTHON_CONFIGURATOR="agent_kernel")
    assert selection.ours
    assert not selection.our_defaults, "the distro of another is used, and sets its own"
    selection = decide(*found, PYTHON_DISTRO="agent_kernel", PYTHON_CONFIGURATOR="builder_setup")
    assert (selection.configures, selection.our_distro) == ("builder", True)
    assert not selection.our_defaults


def test_none_configures_where_the_user_says_so_and_our_distro_loads_the_instrumentors() -> None:
    selection = decide(OURS, PYTHON_CONFIGURATOR="none")
    assert (selection.configures, selection.ours, selection.our_distro) == (None, False, True)
    assert selection.notice is None


@pytest.mark.parametrize(
    ("variable", "consequence"),
    [("CONFIGURATOR", "OpenTelemetry is not configured"), ("DISTRO", "no defaults are set")],
)
def test_a_name_that_is_not_installed_is_said(variable: str, consequence: str) -> None:
    selection = decide(OURS, ACME, **{f"PYTHON_{variable}": "acmee"})
    assert selection.notice is not None
    assert selection.notice.startswith(f"OTEL_PYTHON_{variable}=acmee names none that is installed")
    assert consequence in selection.notice
    assert "agent_kernel" in selection.notice
    assert not selection.our_defaults
    assert decide(OURS, **{f"PYTHON_{variable}": "none"}).notice is None


@pytest.mark.parametrize("found", [(OURS, SETTER), (SETTER, OURS)])
def test_a_distro_without_a_configurator_gets_ours(found: tuple[Package, ...]) -> None:
    selection = decide(*found)
    assert (selection.ours, selection.our_defaults) == (True, False)
    assert selection.distro is not None
    assert selection.distro.name == "setter_distro"
    assert selection.reason == "setter has no configurator"


@pytest.mark.parametrize("found", [(OURS, BUILDER), (BUILDER, OURS)])
def test_a_configurator_without_a_distro_configures(found: tuple[Package, ...]) -> None:
    selection = decide(*found)
    assert (selection.configures, selection.our_distro) == ("builder", True)
    assert not selection.our_defaults


def test_a_disabled_sdk_is_configured_by_none() -> None:
    selection = decide(OURS, ACME, SDK_DISABLED="true")
    assert (selection.configures, selection.reason) == (None, "OTEL_SDK_DISABLED is true")
    assert selection.notice is None


def test_it_is_said_once_and_not_again_in_a_child(caplog: pytest.LogCaptureFixture) -> None:
    environ: dict[str, str] = {}
    announce(decide(OURS, ACME), environ)
    announce(decide(OURS, ACME), dict(environ))
    assert len(caplog.records) == 1
    assert environ == {ANNOUNCED: "acme"}
    announce(decide(OURS, EDOT), environ)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_there_is_nothing_to_say_of_a_choice_that_the_user_has_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ: dict[str, str] = {}
    announce(decide(OURS, ACME, PYTHON_DISTRO="acme_distro"), environ)
    announce(decide(OURS), environ)
    assert caplog.records == []
    assert environ == {}
