# SPDX-License-Identifier: Apache-2.0
"""Checks span trees, counts, requests and audit records on every release of weaver-kernel."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.matrix import counted, environments
from tests.matrix.expected import Release
from tests.matrix.spans import differences

RELEASES = [f"0.{minor}.0" for minor in range(3, 13)]


PEERS = ["mcp >=1.20, <2", "opentelemetry-instrumentation-httpx"]
"""What the kernel's own drivers need to make requests, and what is known to write into them too."""


def play(own: Path, script: str, package: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of this package in the environment of a release."""
    return subprocess.run(
        [str(own), "-m", f"tests.matrix.{script}"],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "PYTHONPATH": os.pathsep.join([str(package), str(environments.ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check(release: str, python: Path, wheel: Path, package: Path) -> list[str]:
    """What is wrong on one release; prints its summary line."""
    own = environments.environment(
        f"kernel-{release}", python, wheel, [f"weaver-kernel=={release}", *PEERS]
    )
    done = play(own, "scenario", package)
    if done.returncode:
        return [f"the scenario failed\n{done.stdout}{done.stderr}"]
    report = json.loads(done.stdout.splitlines()[-1])
    problems = [*dict.fromkeys(report["faults"])]
    for script in ("propagation", "replay"):
        done = play(own, script, package)
        if done.returncode:
            return [f"{script} failed\n{done.stdout}{done.stderr}"]
        problems += json.loads(done.stdout.splitlines()[-1])
    if report["release"] != release:
        problems.append(f"the environment has release {report['release']}")
    for when, names in report["not restored"].items():
        problems += [f"after {when}: {name} is not what it was" for name in names]
    trees = Release(set(report["features"]), report["seen"]).expected()
    if trees.keys() != report["scenes"].keys():
        problems.append(f"played {sorted(report['scenes'])}, expected {sorted(trees)}")
    for scene in trees.keys() & report["scenes"].keys():
        problems += [
            f"{scene}: {line}" for line in differences(trees[scene], report["scenes"][scene])
        ]
    features = set(report["features"])
    for scene, got in report["counted"].items():
        # Kernels that are not instrumented write audit records, too.
        audited = {"not instrumented": 0, "uninstrumented": 0, "one kernel of two": 1}
        wanted = counted.expected(
            scene, features, report["seen"][scene], audited.get(scene, got["audited"])
        )
        if got["counts"] != wanted:
            problems.append(f"{scene}: counted as {got['counts']}, not {wanted}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("releases", nargs="*", default=RELEASES, help="default: all supported")
    parser.add_argument("--python", default=sys.executable, help="version, command or path")
    options = parser.parse_args()
    python = environments.interpreter(options.python)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        wheel = environments.build_wheel(Path(scratch))
        package = environments.install_package(wheel, Path(scratch))
        running = [
            (release, pool.submit(check, release, python, wheel, package))
            for release in options.releases
        ]
        for release, future in running:
            problems = future.result()
            failed += bool(problems)
            print(f"weaver-kernel {release}: {'FAILED' if problems else 'passed'}", flush=True)
            for problem in problems:
                print(f"  {problem}")
    print(f"{len(running) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
