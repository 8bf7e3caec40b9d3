# SPDX-License-Identifier: Apache-2.0
"""Play seeds.

``python -m tests.simulation --seed 7`` plays one seed in this process; ``--seeds 20`` plays several
and ``--minutes 10`` as many as it can, each in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from tests.simulation.seed import OPERATIONS, evidence_of, plan_of, problems_of, telemetry_of

_SHOWN = 5
_HANGS_AFTER = 900.0
_SAME = 2_000
"""Operations of a seed whose telemetry is compared with that of the same seed."""


def main(arguments: list[str] | None = None) -> int:
    """Play what is asked for; 1 if a seed failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="the seed, or the first of several")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--minutes", type=float, help="play seeds for as long as this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("--count", type=int, default=OPERATIONS, help="operations of each seed")
    parser.add_argument("--plant", help="a defect to plant into the product first")
    parser.add_argument("--telemetry", action="store_true", help="print the seed's telemetry only")
    parser.add_argument(
        "--same", action="store_true", help="see too that a seed always gives the same telemetry"
    )
    options = parser.parse_args(arguments)
    if options.telemetry:
        sys.stdout.write(telemetry_of(plan_of(options.seed, options.count)))
        return 0
    if options.minutes is None and options.seeds == 1 and not options.same:
        return _play_here(options)
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = [seed for seed in pool.map(lambda seed: _play(seed, options), _seeds(options))
                  if seed is not None]  # fmt: skip
    print("failed: " + ", ".join(map(str, failed)) if failed else "all seeds passed")
    return 1 if failed else 0


def _seeds(options: argparse.Namespace) -> Iterator[int]:
    if options.minutes is None:
        return iter(range(options.seed, options.seed + options.seeds))
    # A pool takes all of its tasks at once: those that come too late are not played.
    options.end = time.monotonic() + options.minutes * 60
    return iter(range(options.seed, options.seed + max(1, int(options.minutes * 60))))


def _play(seed: int, options: argparse.Namespace) -> int | None:
    """Play a seed in another process; the seed if it failed."""
    if options.minutes is not None and time.monotonic() > options.end:
        return None
    command = [sys.executable, *_command(seed, options)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_HANGS_AFTER, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"seed {seed} hangs; again: python {' '.join(command[1:])}", flush=True)
        return seed
    print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode == 0 and options.same and not _is_same(seed):
        print(f"seed {seed} does not always give the same telemetry", flush=True)
        return seed
    return seed if done.returncode else None


def _is_same(seed: int) -> bool:
    command = [sys.executable, "-m", "tests.simulation", "--telemetry"]
    command += ["--seed", str(seed), "--count", str(_SAME)]
    first, second = (subprocess.run(command, capture_output=True, check=True) for _ in range(2))
    return first.stdout == second.stdout


def _play_here(options: argparse.Namespace) -> int:
    planted = nullcontext()
    if options.plant is not None:
        from tests.simulation import defects

        planted = defects.planted(options.plant)
    with planted:
        if _passes(options.seed, options.count):
            return 0
    print(f"seed {options.seed} failed; again: python {' '.join(_command(options.seed, options))}")
    return 1


def _passes(seed: int, count: int) -> bool:
    began = time.monotonic()
    evidence = evidence_of(plan_of(seed, count))
    problems = problems_of(evidence)
    result = "failed" if problems else "passed"
    traced = evidence.traced
    print(
        f"seed {seed} {result}: {count} operations, {sum(traced.plan.injector.drawn.values())} "
        f"faults planned, {len(traced.capture.recorder.in_order)} spans, {traced.forks} forks, "
        f"{traced.reads} reads meanwhile, {time.monotonic() - began:.1f} s",
        flush=True,
    )
    for check, lines in problems.items():
        print(f"  {check}: {len(lines)} problems")
        for line in lines[:_SHOWN]:
            print(f"    {line[:2000]}")
    return not problems


def _command(seed: int, options: argparse.Namespace) -> list[str]:
    command = ["-m", "tests.simulation", "--seed", str(seed)]
    if options.count != OPERATIONS:
        command += ["--count", str(options.count)]
    if options.plant is not None:
        command += ["--plant", options.plant]
    return command


if __name__ == "__main__":
    sys.exit(main())
