# SPDX-License-Identifier: Apache-2.0
"""The command as a whole: exit codes, ``--json``, and a command that it watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_kernel_otel.doctor.masking import shown_address
from tests.distro.zero_code import KERNEL_APP
from tests.doctor.apps import EXIT_CODE, GRANTS
from tests.doctor.harness import INSTRUMENT, codes_of, doctor, report
from tests.support.faulty_collector import FaultyCollector
from tests.support.otlp_sink import OtlpSink

APPS = str(Path(__file__).with_name("apps.py"))


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as receiver:
        yield receiver


def watch(
    app: str, sink: OtlpSink, env: Mapping[str, str] | None = None, *, launcher: bool = True
) -> dict[str, Any]:
    """What the doctor reports of an app."""
    command = [*([INSTRUMENT] if launcher else []), sys.executable, APPS, app]
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, **(env or {})}
    return report("--", *command, env=variables)


def test_no_problem_is_exit_code_0_and_a_problem_1(sink: OtlpSink) -> None:
    healthy = doctor(env={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint})
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert "no problems" in healthy.stdout
    assert "took an empty request" in healthy.stdout
    ill = doctor(
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_TRACES_SAMPLER": "always_off"}
    )
    assert (ill.returncode, ill.stderr) == (1, "")
    assert "✗ OTEL_TRACES_SAMPLER=always_off" in ill.stdout
    assert "  fix: unset OTEL_TRACES_SAMPLER" in ill.stdout


def test_a_note_alone_is_exit_code_0(sink: OtlpSink) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint, "OTEL_METRICS_EXPORTER": "none"}
    done = doctor(env=env)
    assert done.returncode == 0
    assert "no problems, 1 note" in done.stdout


def test_wrong_usage_is_exit_code_2() -> None:
    assert doctor("--loud", env={}).returncode == 2
    missing = doctor("--offline", "--", "/nowhere/app", env={})
    assert missing.returncode == 2
    assert "cannot run /nowhere/app" in missing.stderr


def test_offline_asks_nobody(sink: OtlpSink) -> None:
    before = len(sink.headers())
    done = doctor("--offline", env={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint})
    assert done.returncode == 0
    assert len(sink.headers()) == before


def test_json_is_one_object_of_known_shape(sink: OtlpSink) -> None:
    found = watch("working", sink)
    assert set(found) == {
        *("problems", "notes", "python", "packages", "kernels", "wrapt_c_extension"),
        *("selection", "sampling", "configuration", "signals", "command", "processes"),
    }
    assert found["problems"] == found["notes"] == []
    assert found["command"] == {"program": "opentelemetry-instrument", "exit_code": 0}
    assert found["selection"]["configures"] == "agent-kernel-otel"
    assert found["kernels"][0]["name"] == "weaver-kernel"
    assert found["kernels"][0]["in_range"]
    assert [(one["signal"], one["outcome"]) for one in found["signals"]] == [
        ("traces", "ok"),
        ("metrics", "ok"),
        ("logs", "ok"),
    ]
    assert {one["source"] for one in found["configuration"]} == {
        *("environment", "our default", "OpenTelemetry's default")
    }


def test_stdout_of_the_command_does_not_mix_with_the_json(sink: OtlpSink) -> None:
    done = doctor(
        *("--json", "--", INSTRUMENT, sys.executable, APPS, "working"),
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint},
    )
    assert "the app's own words" in done.stderr
    assert "the app's own words" not in done.stdout


def test_a_process_tells_what_was_patched_called_and_sent(sink: OtlpSink) -> None:
    found = watch("working", sink)
    (process,) = found["processes"]
    assert process["selection"]["ours"]
    assert process["kernels"] == {"imported": ["weaver_kernel"], "met": 1}
    patched = process["patched"]["weaver_kernel.kernel.Kernel"]
    assert {"grant_capability", "invoke", "_policy", "_firewall"} <= set(patched)
    assert process["providers"]["traces"].startswith("opentelemetry.sdk.")
    assert process["providers"]["sampler"].startswith("ParentBased{root:AlwaysOn")
    books = process["telemetry"]["traces"]
    assert (books["ended"], books["sent"]) == (2 * GRANTS, 2 * GRANTS)
    assert (books["refused"], books["dropped"], books["pending"]) == (0, {}, 0)
    assert process["settings"]["span_level"] == "info"
    assert process["versions"]["weaver-kernel"]


def test_the_text_shows_the_same(sink: OtlpSink) -> None:
    done = doctor(
        *("--", INSTRUMENT, sys.executable, APPS, "working"),
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint},
    )
    assert done.returncode == 0
    assert "the command ended with exit code 0; 1 process reported" in done.stdout
    assert "kernels imported: weaver_kernel; kernels that made calls: 1" in done.stdout
    assert f"traces         {2 * GRANTS} ended · {2 * GRANTS} sent · 0 refused" in done.stdout


@pytest.mark.parametrize(("app", "exit_code"), [("leave", EXIT_CODE), ("crash", 1)])
def test_how_the_app_ends_is_shown_and_is_no_problem_of_telemetry(
    app: str, exit_code: int, sink: OtlpSink
) -> None:
    found = watch(app, sink)
    assert found["command"]["exit_code"] == exit_code
    assert found["problems"] == []
    (process,) = found["processes"]
    assert process["telemetry"]["traces"]["sent"] == 2 * GRANTS


def test_a_forked_child_has_a_report_of_its_own(sink: OtlpSink) -> None:
    found = watch("fork", sink)
    parent, child = sorted(found["processes"], key=lambda one: one["pid"])
    assert child["parent_pid"] == parent["pid"]
    assert found["problems"] == []
    for process in (parent, child):
        sent = process["telemetry"]["traces"]["sent"]
        assert sent == 2 * GRANTS * (2 if process is parent else 1)


def test_an_app_without_the_launcher_was_never_configured(sink: OtlpSink) -> None:
    found = watch("working", sink, launcher=False)
    assert found["processes"] == []
    (finding,) = found["problems"]
    assert finding["code"] == "not_instrumented"
    assert "doctor -- opentelemetry-instrument" in finding["fix"]


@pytest.mark.parametrize("app", ["vanish", "killed"])
def test_a_process_that_cannot_report_is_explained(app: str, sink: OtlpSink) -> None:
    found = watch(app, sink)
    assert codes_of(found) == {"no_report"}
    (finding,) = found["problems"]
    expected = {"vanish": "os._exit", "killed": "signal 9"}[app]
    assert expected in finding["problem"]
    assert found["command"]["exit_code"] == {"vanish": EXIT_CODE, "killed": 137}[app]


@pytest.mark.parametrize(
    ("app", "variables", "code"),
    [
        ("idle", {}, "kernel_not_imported"),
        ("importing", {}, "kernel_not_called"),
        ("working", {"OTEL_TRACES_SAMPLER": "always_off"}, "nothing_sampled"),
        ("working", {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "weaver_kernel"}, "not_loaded"),
    ],
)
def test_a_process_without_spans_is_explained(
    app: str, variables: dict[str, str], code: str, sink: OtlpSink
) -> None:
    assert code in codes_of(watch(app, sink, variables))


def test_what_was_lost_is_a_problem() -> None:
    with FaultyCollector("refused") as collector:
        command = (INSTRUMENT, sys.executable, APPS, "working")
        found = report("--", *command, env=collector.environment())
    assert codes_of(found) == {"connection_refused", "dropped"}
    lost = [one["problem"] for one in found["problems"] if one["code"] == "dropped"]
    assert any(f"{2 * GRANTS} of {2 * GRANTS} spans" in problem for problem in lost)


def test_what_was_refused_is_a_problem() -> None:
    with FaultyCollector("partial_success", count=2) as collector:
        command = (INSTRUMENT, sys.executable, APPS, "working")
        found = report("--", *command, env=collector.environment())
    refused = [one["problem"] for one in found["problems"] if one["code"] == "refused"]
    assert any(f"2 of {2 * GRANTS} spans" in problem for problem in refused)


def test_no_secret_of_the_environment_or_the_app_is_shown(sink: OtlpSink) -> None:
    secret = f"canary{os.urandom(8).hex()}"
    env = {
        "ORDERS_NONCE": secret,
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{secret}",
        "OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY": secret,
    }
    for arguments in ((), ("--json",)):
        # The app prints its own secrets: its output is its own business.
        done = doctor(*arguments, "--", INSTRUMENT, sys.executable, str(KERNEL_APP), env=env)
        shown = done.stdout[done.stdout.index("✓ installed") :] if not arguments else done.stdout
        assert done.returncode == 0, done.stdout
        assert secret not in shown


def test_addresses_lose_what_may_be_secret() -> None:
    shown = shown_address("https://user:pass@host:4318/v1/k3yk3yk3yk3yk3yk3y/traces?token=abc#x")
    assert shown == "https://host:4318/v1/[REDACTED]/traces"
    assert shown_address("user:pass@host:4317") == "host:4317"
