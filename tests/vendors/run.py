# SPDX-License-Identifier: Apache-2.0
"""Runs a kernel app in environments that hold another vendor's distro beside ours.

The order in which the loader finds two distros is that of ``sys.path``, and within one folder that
in which the file system lists their metadata. So each vendor is tried in four arrangements: ours
before and after it on the path, and both in one folder, installed one after the other and the
other way round.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from agent_kernel_otel.distro.selection import OURS
from tests.matrix import environments
from tests.support.otlp_sink import OtlpSink

APP = Path(__file__).with_name("app.py")
FILE = Path(__file__).with_name("otel.yaml")
KERNEL = "weaver-kernel==0.12.0"
HINT = "OTEL_PYTHON_DISTRO=agent_kernel"


DISTRO_NAMES = {
    "opentelemetry-distro": None,
    "elastic-opentelemetry": "elastic",
    "splunk-opentelemetry": "splunk-opentelemetry",
}
"""What the telemetry of each distribution says of itself."""
ENVIRONMENTS = {
    "opentelemetry": ("opentelemetry-distro==0.66b2",),
    "elastic": ("elastic-opentelemetry==1.18.0",),
    "splunk": ("splunk-opentelemetry==2.13.2",),
    "several": ("elastic-opentelemetry==1.18.0", "splunk-opentelemetry==2.13.2"),
}

Arrange = Callable[[Path, Path, Path], list[Path]]


def ours_before(package: Path, installed: Path, scratch: Path) -> list[Path]:
    return [package]


def ours_after(package: Path, installed: Path, scratch: Path) -> list[Path]:
    return [installed, package]


def ours_installed_first(package: Path, installed: Path, scratch: Path) -> list[Path]:
    folder = scratch / "ours-installed-first"
    shutil.copytree(package, folder)
    _install_metadata(installed, folder)
    return [folder]


def theirs_installed_first(package: Path, installed: Path, scratch: Path) -> list[Path]:
    folder = scratch / "theirs-installed-first"
    folder.mkdir()
    _install_metadata(installed, folder)
    shutil.copytree(package, folder, dirs_exist_ok=True)
    return [folder]


def _install_metadata(installed: Path, into: Path) -> None:
    # All that the loader looks for; the code is taken from where it is.
    for name in DISTRO_NAMES:
        for found in installed.glob(f"{name.replace('-', '_')}-*.dist-info"):
            shutil.copytree(found, into / found.name)


ARRANGEMENTS: tuple[Arrange, ...] = (
    ours_before,
    ours_after,
    ours_installed_first,
    theirs_installed_first,
)


class Run:
    """The app run once, and what came of it."""

    def __init__(self, python: Path, path: list[Path], **variables: str) -> None:
        self.nonce = secrets.token_hex(12)
        with OtlpSink() as sink:
            done = subprocess.run(
                [str(python.with_name("opentelemetry-instrument")), str(python), str(APP)],
                env={
                    **_without_settings(os.environ),
                    "PYTHONPATH": os.pathsep.join(map(str, path)),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "ORDERS_NONCE": self.nonce,
                    "OTEL_SERVICE_NAME": "orders",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
                    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                    **variables,
                },
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            self.spans = sink.spans()
            self.logs = sink.logs()
            self.bytes = sink.raw_bytes()
        self.code = done.returncode
        self.printed = done.stderr
        last = (done.stdout.splitlines() or [""])[-1]
        self.report: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
        self.hints = [line for line in self.printed.splitlines() if HINT in line]

    def problems(self, calls_itself: str | None, hint_names: str | None) -> Iterator[str]:
        """What is not as it must be.

        Args:
            calls_itself: The ``telemetry.distro.name`` of who must have configured.
            hint_names: Who the one line must say configures; ``None`` where there must be none.
        """
        if self.code or not self.report:
            yield f"the app ended with {self.code}"
            return
        names = [span.name for span in self.spans]
        for name in ("grant", "invoke", "policy.evaluate", "driver.execute"):
            if f"agent_kernel.{name}" not in names:
                yield f"no span agent_kernel.{name} arrived"
        if len({span.span_id for span in self.spans}) != len(names):
            yield "a span arrived twice"
        distros = {span.resource.get("telemetry.distro.name") for span in self.spans}
        if distros != {calls_itself}:
            yield f"configured by {distros}, expected {calls_itself}"
        if not self.logs:
            yield "no log record arrived"
        if self.nonce.encode() in self.bytes:
            yield "a planted secret left"
        if "not allowed" in self.printed:
            yield "the SDK was set up twice"
        if calls_itself != OURS and "agent_kernel already loaded" in self.printed:
            yield "the loader claims that ours configured"
        if (self.report["queue"] is not None) != (calls_itself == OURS):
            yield f"our defaults are set: {self.report['queue']}"
        if len(self.hints) != (hint_names is not None):
            yield f"{len(self.hints)} hint lines"
        elif hint_names is not None and not self.hints[0].startswith(f"{hint_names} configures"):
            yield "the hint names somebody else"
        if HINT in self.report["child"]:
            yield "the hint is repeated in the child"


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    mine = ("OTEL_", "PYTHON", "AGENT_KERNEL", "WEAVER_KERNEL", "SPLUNK_", "ELASTIC_")
    return {name: value for name, value in environ.items() if not name.startswith(mine)}


def check(name: str, base: Path, wheel: Path, package: Path) -> Iterator[str]:
    """Every run in one environment; yields a line for each."""
    requirements = [*ENVIRONMENTS[name], KERNEL]
    python = environments.environment(f"vendor-{name}", base, wheel, requirements)
    (installed,) = python.parents[1].glob("lib/python3*/site-packages")
    with tempfile.TemporaryDirectory() as scratch:
        for arrange in ARRANGEMENTS:
            path = arrange(package, installed, Path(scratch))
            label = f"{name}, {arrange.__name__.replace('_', ' ')}"
            run = Run(python, path)
            found = run.report.get("found", [])
            first = next((one for one in found if one != OURS), "")
            label_found = f"{label} (found {', '.join(found)})"
            yield _line(label_found, run, DISTRO_NAMES.get(first), first)
            if arrange in {ours_before, ours_after}:
                run = Run(python, path, OTEL_PYTHON_DISTRO="agent_kernel")
                yield _line(f"{label}, ours chosen", run, OURS, None)
            if "splunk" in first and arrange in {ours_before, ours_after}:
                # Its configurator reads such files itself: our settings in them hold all the same.
                run = Run(python, path, OTEL_CONFIG_FILE=str(FILE))
                inner = ["agent_kernel.route"]
                yield _line(f"{label}, with a file", run, DISTRO_NAMES[first], first, inner)


def _line(
    label: str,
    run: Run,
    calls_itself: str | None,
    hint_names: str | None,
    further_spans: Iterable[str] = (),
) -> str:
    problems = list(run.problems(calls_itself, hint_names))
    names = {span.name for span in run.spans}
    problems += [f"no span {name} arrived" for name in further_spans if name not in names]
    if not problems:
        return f"{label}: passed"
    printed = "\n    ".join(["", *run.printed.splitlines()])
    return f"{label}: FAILED\n  " + "\n  ".join(problems) + printed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vendors", nargs="*", default=[*ENVIRONMENTS], help="default: all")
    parser.add_argument("--python", default=sys.executable, help="version, command or path")
    options = parser.parse_args()
    base = environments.interpreter(options.python)
    failed = passed = 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        wheel = environments.build_wheel(Path(scratch))
        package = environments.install_package(wheel, Path(scratch))

        def lines(name: str) -> list[str]:
            return list(check(name, base, wheel, package))

        for found in pool.map(lines, options.vendors):
            for line in found:
                print(line, flush=True)
                failed += "FAILED" in line
                passed += "FAILED" not in line
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
