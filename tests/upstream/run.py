# SPDX-License-Identifier: Apache-2.0
"""Runs weaver-kernel's own test suite without and with the instrumentation, and compares.

Fails on any test whose outcome changed, any span left open, any context left attached or
detached wrongly, and any fault that the instrumentation reports of itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.matrix import environments

RELEASE = "0.12.0"
KERNEL = f"weaver-kernel[dev,mcp,otel,policy]=={RELEASE}"


def _source(into: Path) -> Path:
    """The kernel's source distribution, which holds its tests, unpacked."""
    archive = environments.cache() / f"weaver_kernel-{RELEASE}.tar.gz"
    if not archive.exists():
        download = f"-m pip download --quiet --no-deps --no-binary :all: --dest {into}"
        environments.run([sys.executable, *download.split(), f"weaver-kernel=={RELEASE}"])
        # Moved in one step, so that an interrupted download is never taken for a whole one.
        (into / archive.name).replace(archive)
    shutil.unpack_archive(archive, into)
    return into / f"weaver_kernel-{RELEASE}"


def _suite(python: Path, source: Path, package: Path, options: str = "") -> dict[str, Any]:
    """Run the suite once, and return the plugin's report."""
    report = source.parent / "report.json"
    report.unlink(missing_ok=True)
    plugins = Path(__file__).parent
    options = f"-q -p no:cacheprovider -p no:randomly --hypothesis-seed=0 -p watch {options}"
    done = subprocess.run(
        [python, "-m", "pytest", f"--watch-report={report}", *options.split()],
        cwd=source,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "PYTHONPATH": os.pathsep.join([str(package), str(plugins)]),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(source.parent / "hypothesis"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if not report.exists():
        raise SystemExit(f"pytest did not run\n{done.stdout}{done.stderr}")
    return {**json.loads(report.read_text()), "output": done.stdout}


def _compare(python: Path, wheel: Path, package: Path) -> bool:
    """Run the suite without us and at each span level, and tell what is different."""
    version = ".".join(map(str, environments.version_of(python) or ()))
    own = environments.environment(f"upstream-{version}", python, wheel, [KERNEL])
    with tempfile.TemporaryDirectory() as scratch:
        source = _source(Path(scratch))
        bare = _suite(own, source, package)
        print(f"Python {version}, without us: {_summary(bare)}", flush=True)
        problems = [] if bare["outcomes"] else [f"no test ran\n{bare['output']}"]
        for level in ("info", "debug"):
            watched = _suite(own, source, package, f"--instrumented={level}")
            events = sum(n for name, n in watched["emitted"].items() if name.startswith("event "))
            spans = sum(watched["emitted"].values()) - events
            print(f"Python {version}, level {level}: {_summary(watched)}; ", end="")
            print(f"{spans} spans, {events} events", flush=True)
            problems += [f"level {level}: {line}" for line in _problems(bare, watched)]
    for problem in problems:
        print(f"  {problem}")
    return not problems


def _problems(bare: dict[str, Any], watched: dict[str, Any]) -> list[str]:
    before, after = bare["outcomes"], watched["outcomes"]
    changed = [
        f"{test}: {before.get(test, 'absent')} without us, {after.get(test, 'absent')} with us"
        for test in sorted(before.keys() | after.keys())
        if before.get(test) != after.get(test)
    ]
    if changed:
        changed.append(watched["output"])
    if not watched["emitted"]:
        changed.append("nothing was emitted, so the instrumentation was not active")
    return [*changed, *watched["violations"]]


def _summary(run: dict[str, Any]) -> str:
    counts = Counter(run["outcomes"].values())
    rest = [f"{n} {outcome}" for outcome, n in counts.items() if outcome != "passed"]
    return ", ".join([f"{counts['passed']} passed", *(rest or ["0 failed"])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--python",
        action="append",
        help="version (3.12), command or path; several times; default: all that this machine has",
    )
    wanted = parser.parse_args().python
    found = environments.interpreters().values()
    pythons = [environments.interpreter(name) for name in wanted] if wanted else [*found]
    with tempfile.TemporaryDirectory() as scratch:
        wheel = environments.build_wheel(Path(scratch))
        package = environments.install_package(wheel, Path(scratch))
        good = [_compare(python, wheel, package) for python in pythons]
    print(f"{good.count(True)} passed, {good.count(False)} failed")
    return 0 if good and all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
