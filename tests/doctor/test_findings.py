# SPDX-License-Identifier: Apache-2.0
"""What can be told of an environment without asking anyone: each finding, and when it is absent."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent_kernel_otel.doctor.diagnosis import diagnose
from agent_kernel_otel.doctor.facts import Facts, Package, gather
from agent_kernel_otel.doctor.links_file import unwritable
from agent_kernel_otel.doctor.rendering import text_of
from tests.doctor.harness import codes, diagnosis

LINKS = {"OTEL_TRACES_EXPORTER": "otlp,agent_kernel_links"}
OVER_HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}

PROBLEMS: list[tuple[dict[str, str], str]] = [
    ({"OTEL_SDK_DISABLED": "true"}, "sdk_disabled"),
    ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "x, weaver_kernel"}, "instrumentation_disabled"),
    ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}, "instrumentation_disabled"),
    ({"OTEL_PYTHON_DISTRO": "nowhere"}, "distro_unknown"),
    ({"OTEL_PYTHON_CONFIGURATOR": "nowhere"}, "distro_unknown"),
    ({f"OTEL_{s}_EXPORTER": "none" for s in ("TRACES", "METRICS", "LOGS")}, "no_exporter"),
    ({"OTEL_TRACES_EXPORTER": "jaeger"}, "value_unreadable"),
    ({"OTEL_METRICS_EXPORTER": "otlp,nowhere"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "udp"}, "value_unreadable"),
    ({"OTEL_TRACES_SAMPLER": "always_off"}, "sampler_keeps_nothing"),
    ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "sampler_keeps_nothing"),
    (
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        "sampler_keeps_nothing",
    ),
    ({"OTEL_TRACES_SAMPLER": "traceidratio"}, "sampler_argument_unreadable"),
    (
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"},
        "value_unreadable",
    ),
    ({"OTEL_TRACES_SAMPLER": "allways_on"}, "value_unreadable"),
    ({"OTEL_AGENT_KERNEL_SPAN_LEVEL": "off"}, "spans_off"),
    ({"OTEL_AGENT_KERNEL_SPAN_LEVEL": "loud"}, "setting_unreadable"),
    ({"OTEL_AGENT_KERNEL_SPAN_LEVLE": "off"}, "setting_unreadable"),
    (
        {
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://localhost:9090/api/v1/otlp/v1/metrics",
            **OVER_HTTP,
        },
        "delta_to_prometheus",
    ),
    ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "deltas"}, "value_unreadable"),
    ({"OTEL_BSP_SCHEDULE_DELAY": "soon"}, "value_unreadable"),
    ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "3s"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_COMPRESSION": "deflate"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10000"}, "timeout_in_milliseconds"),
    ({"OTEL_PROPAGATORS": "tracecontext,b4"}, "propagator_unknown"),
    ({"OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer abc"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "endpoint_without_scheme"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://collector:4317"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "endpoint_empty"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://u:p@collector:4317"}, "credentials_in_endpoint"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/v1/traces", **OVER_HTTP}, "path_twice"),
    ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem"}, "value_unreadable"),
    ({"OTEL_EXPORTER_OTLP_CERTIFICATE": sys.executable}, "file_without_pem"),
    (
        {**LINKS, "OTEL_AGENT_KERNEL_LINKS_FILE": "/nowhere/links.jsonl"},
        "links_file_unwritable",
    ),
    ({"OTEL_EXPORTER_OLTP_ENDPOINT": "http://c:4317"}, "variable_misspelt"),
    ({"OTEL_SERVICE_NAME": "unknown_service"}, "service_name_unknown"),
    ({"OTEL_RESOURCE_ATTRIBUTES": "team"}, "resource_attributes_unreadable"),
    ({"OTEL_CONFIG_FILE": "/nowhere/otel.yaml"}, "configuration_file_unusable"),
]
NOTES: list[tuple[dict[str, str], str]] = [
    ({"OTEL_SDK_DISABLED": "1"}, "sdk_disabled_unreadable"),
    ({"OTEL_PYTHON_CONFIGURATOR": "none"}, "configured_by_another"),
    ({"OTEL_METRICS_EXPORTER": "none"}, "no_metrics_exporter"),
    ({"OTEL_TRACES_EXPORTER": "console"}, "exported_to_the_console"),
    (
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
        "sampler_keeps_a_share",
    ),
    ({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}, "delta_temporality"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317/v1/traces"}, "path_ignored"),
    (
        {"OTEL_SERVICE_NAME": "one", "OTEL_RESOURCE_ATTRIBUTES": "service.name=two"},
        "two_service_names",
    ),
]


@pytest.mark.parametrize(("variables", "code"), PROBLEMS, ids=lambda value: str(value)[:60])
def test_what_hides_telemetry_is_a_problem_with_a_fix(variables: dict[str, str], code: str) -> None:
    found = diagnosis(variables)
    assert code in codes(found)
    for finding in found.problems:
        assert finding.problem
        assert finding.fix
        assert "\n" not in finding.problem + finding.fix


@pytest.mark.parametrize(("variables", "code"), NOTES, ids=lambda value: str(value)[:60])
def test_what_may_be_meant_so_is_a_note(variables: dict[str, str], code: str) -> None:
    found = diagnosis(variables)
    assert code in {finding.code for finding in found.notes}
    assert not found.problems


def test_an_environment_of_ordinary_settings_has_no_finding(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    variables = {
        "OTEL_SERVICE_NAME": "support-agent",
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=1,deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc,x-tenant=blue",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority),
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
        "OTEL_AGENT_KERNEL_SPAN_LEVEL": "debug",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests",
        "OTEL_INSTRUMENTATION_HTTP_EXCLUDED_URLS": "health",
    }
    assert diagnosis(variables).findings == ()
    assert diagnosis({}).findings == ()


def test_the_file_of_links_is_shown_and_whether_it_can_be_written(tmp_path: Path) -> None:
    def found(path: Path) -> tuple[str, set[str]]:
        one = diagnosis({**LINKS, "OTEL_AGENT_KERNEL_LINKS_FILE": str(path)})
        return " ".join(text_of(one).split()), codes(one)

    file = tmp_path / "links.jsonl"
    text, problems = found(file)
    assert f"· traces agent_kernel_links → {file}" in text
    assert not problems
    assert not file.exists()
    file.touch()
    assert not found(file)[1]
    for path, why in ((tmp_path, "it is a folder"), (file / "x", "its folder is not there")):
        text, problems = found(path)
        assert f"✗ traces agent_kernel_links → {path}" in text
        assert problems == {"links_file_unwritable"}
        assert f"cannot write {path}: {why}" in text


def test_a_file_of_links_that_the_user_may_not_write_is_told_of() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        (folder / "links.jsonl").touch(0o444)
        folder.chmod(0o555)
        with _as_nobody():
            reasons = [unwritable(folder / file) for file in ("links.jsonl", "new.jsonl")]
        folder.chmod(0o755)
    assert reasons == ["it may not be read and written", "its folder may not be written to"]


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Without the rights of root, which may write anything."""
    is_root = os.getuid() == 0
    if is_root:
        os.setresuid(65_534, 65_534, 0)
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


def _facts(**changes: object) -> Facts:
    return replace(gather({}), **changes)  # type: ignore[arg-type]


def test_a_kernel_that_is_missing_or_out_of_range_is_a_problem() -> None:
    missing = (Package("weaver-kernel", None, ">=0.3.0"),)
    assert codes(diagnose(_facts(kernels=missing))) == {"kernel_not_installed"}
    old = (Package("weaver-kernel", "0.2.9", ">=0.3.0"),)
    assert codes(diagnose(_facts(kernels=old))) == {"kernel_out_of_range"}
    candidate = (Package("weaver-kernel", "0.13.0rc1", ">=0.3.0"),)
    assert not diagnose(_facts(kernels=candidate)).findings


def test_a_package_that_is_missing_or_out_of_range_is_a_problem() -> None:
    packages = (
        Package("opentelemetry-sdk", "1.42.0", ">=1.43,<2"),
        Package("wrapt", None, ">=1.17"),
        Package("opentelemetry-exporter-prometheus", None, ">=0.64b0", optional=True),
    )
    found = diagnose(_facts(packages=packages))
    assert codes(found) == {"package_out_of_range", "package_missing"}
    assert "pip install 'opentelemetry-sdk>=1.43,<2'" in {one.fix for one in found.problems}


def test_an_interpreter_out_of_range_is_a_problem() -> None:
    assert codes(diagnose(_facts(python="3.9.18"))) == {"python_out_of_range"}


def test_wrapt_without_its_extension_is_a_note() -> None:
    found = diagnose(_facts(wrapt_is_compiled=False))
    assert [finding.code for finding in found.findings] == ["wrapt_is_pure_python"]


@pytest.mark.parametrize("exporters", ["prometheus", "otlp,prometheus"])
def test_an_exporter_without_its_extra_says_what_to_install(
    exporters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_kernel_otel.distro.checks.entry_points", lambda **_: ())
    found = diagnosis({"OTEL_METRICS_EXPORTER": exporters})
    assert [one.fix for one in found.problems] == ["pip install 'agent-kernel-otel[prometheus]'"]
    assert not found.notes


def test_every_setting_names_its_source(tmp_path: Path) -> None:
    facts = gather({"OTEL_SERVICE_NAME": "agent", "OTEL_EXPORTER_OTLP_TIMEOUT": " "})
    shown = {setting.name: (setting.value, setting.source) for setting in facts.settings}
    assert shown["OTEL_SERVICE_NAME"] == ("agent", "environment")
    assert shown["OTEL_EXPORTER_OTLP_TIMEOUT"] == ("3", "our default")
    assert shown["OTEL_BSP_SCHEDULE_DELAY"] == ("5000", "OpenTelemetry's default")
    named = gather({}, ("python", "orders.py")).settings
    assert ("orders", "our default") in {(setting.value, setting.source) for setting in named}
    file = tmp_path / "otel.yaml"
    file.write_text(
        'file_format: "1.0"\n'
        "instrumentation/development: {python: {weaver_kernel: {span_level: debug}}}\n"
    )
    facts = gather({"OTEL_CONFIG_FILE": str(file), "OTEL_TRACES_SAMPLER": "always_off"})
    shown = {setting.name: (setting.value, setting.source) for setting in facts.settings}
    assert shown["weaver_kernel.span_level"] == ("debug", "configuration file")
    assert shown["OTEL_TRACES_SAMPLER"] == ("(ignored)", "configuration file")
