# SPDX-License-Identifier: Apache-2.0
"""The stack after the demo has worked in it, its telemetry on its way in three ways at once."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from weaver_kernel.models import ActionTrace
from weaver_kernel.stores import JsonlTraceStore

from tests.dashboards.prometheus.asking import Asked
from tests.dashboards.prometheus.conftest import LOST
from tests.distro.zero_code import environment, run
from tests.prometheus.server import program
from tests.stack.asking import INTERVAL, RunningJaeger, RunningPrometheus, eventually
from tests.stack.compose import FOLDER
from tests.stack.programs import Program
from tests.stack.stack import Stack
from tests.support.kelpie_page import HISTORY, KelpieStub
from tests.support.ports import HOST, free_port

SERVICE: Final = "support-desk"
AUDITED_SERVICE: Final = "support-desk-audit"
INSTANCE: Final = "desk-1"
FREE_PORTS: Final = dict.fromkeys(
    (
        *("OTLP_GRPC_PORT", "OTLP_HTTP_PORT", "PROMETHEUS_PORT"),
        *("ALERTMANAGER_PORT", "JAEGER_PORT", "GRAFANA_PORT"),
    ),
    "0",
)
"""What has the stack listen wherever there is room."""
HEARD: Final = "agent_kernel_info"
QUICK: Final = {
    **FREE_PORTS,
    "LONGEST_CALL": "5s",
    "DEMO_METRIC_INTERVAL": f"{INTERVAL * 1000:.0f}",
}


Compose = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Worked:
    """The stack when all is quiet.

    Attributes:
        stack: It.
        prometheus: Its Prometheus, which scrapes the Collector.
        others: Another one, which scrapes the app and takes remote write; the label ``way`` tells.
        jaeger: Its Jaeger.
        counted: What ``KernelStats`` of the demo say: metric, values of its attributes, number.
        records: The demo's own audit records.
        secret: What was planted in the demo.
        asked: What dashboards ask, when the kernels' work was done.
        kelpie: The same, when Kelpie's was.
        folders: Where all of these write.
    """

    stack: Stack
    prometheus: RunningPrometheus
    others: RunningPrometheus
    jaeger: RunningJaeger
    counted: list[Any]
    records: list[ActionTrace]
    secret: str
    asked: Asked
    kelpie: Asked
    folders: list[Path]


@pytest.fixture(scope="session")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    secret = f"canary{secrets.token_hex(8)}"
    folder, elsewhere = tmp_path_factory.mktemp("stack"), tmp_path_factory.mktemp("others")
    audit_file = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    page, others_port = free_port(), free_port()
    with ExitStack() as running:
        running.enter_context(_others(elsewhere, others_port, page))
        others = RunningPrometheus(f"http://{HOST}:{others_port}")
        kelpie = running.enter_context(KelpieStub())
        stack = running.enter_context(_stack(folder, others_port, kelpie.port))
        prometheus = RunningPrometheus(stack.address("prometheus", 9090))
        demo = running.enter_context(
            stack.demo(
                *("demo", "--told"),
                OTEL_METRICS_EXPORTER="otlp,prometheus",
                OTEL_EXPORTER_PROMETHEUS_HOST=HOST,
                OTEL_EXPORTER_PROMETHEUS_PORT=str(page),
                DEMO_AUDIT_FILE=str(audit_file),
                DEMO_SECRET=secret,
            )
        )
        misconfigured = running.enter_context(
            stack.demo("demo-misconfigured", "--told", OTEL_EXPORTER_OTLP_LOGS_TIMEOUT="1")
        )
        for app in (demo, misconfigured):
            assert app.hear() == "ready", app.log()
        # Of what is there before anything happens.
        prometheus.wait_for(lambda: prometheus.value(f"count({HEARD})") == 2)
        _wait_for_scrapes(prometheus)
        for deed in ("once", "work", "work"):
            for app in (demo, misconfigured):
                assert app.tell(deed) == "done", app.log()
            _wait_for_scrapes(prometheus)
        prometheus.wait_for(lambda: prometheus.value(LOST))
        asked = Asked(prometheus, time.time())
        counted = json.loads(demo.tell("count"))
        for state in HISTORY:
            kelpie.show(state)
            _wait_for_scrapes(prometheus)
        of_kelpie = Asked(prometheus, time.time())
        _export(audit_file, stack)
        records = JsonlTraceStore(audit_file).list_all()
        jaeger = RunningJaeger(stack.address("jaeger", 16686))
        eventually(lambda: len(jaeger.found(AUDITED_SERVICE, {})) == len(records))
        yield Worked(
            stack=stack,
            prometheus=prometheus,
            others=others,
            jaeger=jaeger,
            counted=counted,
            records=records,
            secret=secret,
            asked=asked,
            kelpie=of_kelpie,
            folders=[folder / "volumes", elsewhere],
        )


def _stack(folder: Path, remote_write: int, kelpie: int) -> Stack:
    return Stack(
        folder,
        variables=QUICK,
        replaced={"interval: 15s": f"interval: {INTERVAL:.0f}s"},
        also=(FOLDER.parent / "remote-write.yaml", FOLDER.parent / "kelpie.yaml"),
        collectors={
            "REMOTE_WRITE_ENDPOINT": f"http://{HOST}:{remote_write}/api/v1/write",
            "KELPIE_TARGETS": json.dumps([f"{HOST}:{kelpie}"]),
            "KELPIE_SCRAPE_INTERVAL": f"{INTERVAL:.0f}s",
            "KELPIE_SCRAPE_TIMEOUT": f"{INTERVAL:.0f}s",
            "KELPIE_OTLP_ENDPOINT": f"{HOST}:{free_port()}",
            "STAGES_INTERVAL": f"{INTERVAL:.0f}s",
        },
    )


def _others(folder: Path, port: int, page: int) -> Program:
    target = {"targets": [f"{HOST}:{page}"], "labels": {"way": "page", "instance": INSTANCE}}
    config = folder / "prometheus.json"  # which is YAML, too
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": f"{INTERVAL:.0f}s"},
                "scrape_configs": [{"job_name": SERVICE, "static_configs": [target]}],
            }
        )
    )
    return Program(
        "others",
        [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{port}",
            "--web.enable-remote-write-receiver",
            "--enable-feature=exemplar-storage",
        ],
        folder,
        ready=f"http://{HOST}:{port}/-/ready",
    )


def _wait_for_scrapes(prometheus: RunningPrometheus) -> None:
    """Until what is now in the apps has been exported and scraped, and a rate can be made of it."""
    prometheus.wait_for_scrapes(4)


def _export(audit_file: Path, stack: Stack) -> None:
    run(
        *("-m", "agent_kernel_otel.cli", "export", str(audit_file)),
        *("--service-name", AUDITED_SERVICE),
        env=environment(
            OTEL_EXPORTER_OTLP_ENDPOINT=stack.address("collector", 4317),
            XDG_STATE_HOME=str(audit_file.parent),
        ),
        instrumented=False,
    )


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """The real Compose: takes its arguments, and runs in an empty directory."""
    binary = tool("docker-compose")

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={key: os.environ[key] for key in ("HOME", "PATH")},
            cwd=tmp_path,
        )

    return ask


def tool(name: str) -> str:
    """A program of ``requirements.txt``."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join((beside, os.environ["PATH"])))
    assert found, f"{name} is missing: pip install -r tests/stack/requirements.txt"
    return found
