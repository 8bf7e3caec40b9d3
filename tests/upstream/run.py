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
    version = ".".join(map(str, environments.version_of(python) or ()))
    with tempfile.TemporaryDirectory() as scratch:
        own = environments.environment(f"upstream-{version}", python, wheel, [KERNEL])
        source = _source(Path(scratch))
        bare = _suite(own, source, package)
        watched = _suite(own, source, package, "--instrumented")

    before, after = bare["outcomes"], watched["outcomes"]
    problems = [
        f"{test}: {before.get(test, 'absent')} without, {after.get(test, 'absent')} with"
        for test in sorted(before.keys() | after.keys())
        if before.get(test) != after.get(test)
    ]
    changed = bool(problems)
    problems += watched["violations"]
    if not watched["emitted"]:
        problems.append("nothing was emitted, so the instrumentation was not active")
    if not before:
        problems.append(f"no test ran\n{bare['output']}")
    if changed:
        print(watched["output"])
    for problem in problems:
        print(f"  {problem}")
    for title, outcomes in (("without", before), ("with", after)):
        counts = Counter(outcomes.values())
        rest = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if outcome != "passed")
        print(f"Python {version}, {title:>7} us: {counts['passed']} passed, {rest or '0 failed'}")
    emitted = watched["emitted"]
    spans = sum(n for name, n in emitted.items() if not name.startswith("event "))
    print(f"Python {version}: {spans} spans, {sum(emitted.values()) - spans} events, ", end="")
    print(f"{len(problems)} problems", flush=True)
    return not problems


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
