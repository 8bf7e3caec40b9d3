# SPDX-License-Identifier: Apache-2.0
"""What the distro decides, over environments that are plain dicts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource

from agent_kernel_otel import __version__
from agent_kernel_otel.distro.defaults import (
    DEFAULTS,
    apply_defaults,
    is_disabled,
    resource_attributes,
    resource_detectors,
)
from agent_kernel_otel.distro.service import INHERITED, is_helper, service_name


def test_an_empty_environment_gets_all_signals_by_otlp_over_grpc_and_what_production_needs() -> (
    None
):
    environ: dict[str, str] = {}
    apply_defaults(environ)
    assert environ == {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        "OTEL_BSP_MAX_QUEUE_SIZE": "16384",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "128",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "16384",
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "128",
        "OTEL_METRICS_EXEMPLAR_FILTER": "trace_based",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative",
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "OTEL_PROPAGATORS": "tracecontext,baggage",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": resource_detectors(),
    }


def test_what_the_user_set_stays_as_it_is() -> None:
    environ = dict.fromkeys(DEFAULTS, "the user's own")
    before = dict(environ)
    apply_defaults(environ)
    assert environ == before


def test_no_resource_detector_tells_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.orig_argv", ["python", "app.py", "--token", "s3cr3t-of-mine"])
    monkeypatch.setattr("sys.argv", ["app.py", "--token", "s3cr3t-of-mine"])
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", resource_detectors())
    resource = Resource.create()
    assert "os.type" in resource.attributes
    assert "host.id" not in resource.attributes, "the machine's id is nobody's business"
    assert "s3cr3t-of-mine" not in resource.to_json()


def test_an_empty_value_counts_as_not_set() -> None:
    environ = {"OTEL_TRACES_EXPORTER": "", "OTEL_LOGS_EXPORTER": " "}
    apply_defaults(environ)
    assert environ["OTEL_TRACES_EXPORTER"] == environ["OTEL_LOGS_EXPORTER"] == "otlp"


def test_defaults_applied_twice_are_the_same() -> None:
    environ: dict[str, str] = {}
    apply_defaults(environ)
    once = dict(environ)
    apply_defaults(environ)
    assert environ == once


@pytest.mark.parametrize(
    ("value", "disabled"),
    [("true", True), (" TRUE ", True), ("false", False), ("1", False), ("", False)],
)
def test_the_sdk_is_disabled_by_the_word_true_only(value: str, disabled: bool) -> None:
    assert is_disabled({"OTEL_SDK_DISABLED": value}) is disabled


SPAWNED = [
    "python",
    "-c",
    "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)",
    "--multiprocessing-fork",
]
SERVER = ["python", "-I", "-c", "from multiprocessing.forkserver import main; main(8, 9)"]
TRACKER = ["python", "-c", "from multiprocessing.resource_tracker import main;main(4)"]


@pytest.mark.parametrize("command", [SPAWNED, SERVER])
def test_a_child_of_multiprocessing_is_called_what_its_parent_is(command: list[str]) -> None:
    assert service_name(command, {INHERITED: "shop"}) == "shop"
    assert service_name(command, {}) is None
    assert service_name(["python", "-c", "pass"], {INHERITED: "shop"}) is None
    assert not is_helper(command)


def test_multiprocessings_own_process_is_no_service() -> None:
    assert is_helper(TRACKER)
    assert not is_helper(["python", "app.py", "-c", TRACKER[2][5:]])


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "app.py"], "app"),
        (["python", "/srv/shop/orders.py", "--token", "secret"], "orders"),
        (["python", "-u", "-W", "error", "-X", "dev", "app.py", "secret"], "app"),
        (["python", "-Werror", "-Xdev", "app.py"], "app"),
        (["python", "-uBW", "error", "app.py"], "app"),
        (["python", "--check-hash-based-pycs", "always", "app.py"], "app"),
        (["python", "/venv/bin/gunicorn", "shop:app", "-c", "secret"], "gunicorn"),
        (["python", "/venv/bin/serve-1.2"], "serve-1.2"),
        (["python", "-m", "shop.server", "secret"], "shop.server"),
        (["python", "-mshop.server", "secret"], "shop.server"),
        (["python", "-Im", "shop.server", "secret"], "shop.server"),
        (["python", "-m", "shop.__main__"], "shop"),
        (["python", "/srv/shop/__main__.py"], "shop"),
        (["python", "/srv/shop.pyz"], "shop"),
        (["python", "/srv/shop/"], "shop"),
        (["python", "-c", "print('secret')", "secret"], None),
        (["python", "-uc", "secret"], None),
        (["python", "-", "secret"], None),
        (["python", "-i"], None),
        (["python", "-m"], None),
        (["python"], None),
        ([], None),
    ],
)
def test_the_service_is_named_after_script_or_module_and_never_after_arguments(
    command: list[str], name: str | None
) -> None:
    assert service_name(command, {}) == name


def test_a_folder_run_by_a_dot_gives_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    assert service_name(["python", "."], {}) == "shop"
    assert service_name(["python", "__main__.py"], {}) == "shop"


def test_an_endless_name_is_cut() -> None:
    name = service_name(["python", "a" * 1000], {})
    assert name is not None
    assert len(name) == 256


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_SERVICE_NAME": "shop"},
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop"},
        {"OTEL_RESOURCE_ATTRIBUTES": "a=b, service.name = shop"},
    ],
)
def test_a_service_name_of_the_users_is_not_replaced(environ: dict[str, str]) -> None:
    assert "service.name" not in resource_attributes(environ, ["python", "app.py"])


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": ""},
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name="},
        {"OTEL_RESOURCE_ATTRIBUTES": "service.namespace=shop,rubbish"},
    ],
)
def test_where_the_user_named_no_service_the_resource_does(environ: dict[str, str]) -> None:
    assert resource_attributes(environ, ["python", "app.py"]) == {
        "service.name": "app",
        "telemetry.distro.name": "agent-kernel-otel",
        "telemetry.distro.version": __version__,
        "host.name": socket.gethostname(),
    }
