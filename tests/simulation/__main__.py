# SPDX-License-Identifier: Apache-2.0
"""Play seeds: ``python -m tests.simulation --seed 7`` plays one, ``--minutes 10`` as many as it can."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

from tests.simulation.seed import OPERATIONS, evidence_of, plan_of, problems_of, telemetry_of

_SHOWN = 5


def main(arguments: list[str] | None = None) -> int:
    """Play what is asked for; 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the seed, or the first of several")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--minutes", type=float, help="play seeds for as long as this")
    parser.add_argument("--count", type=int, default=OPERATIONS, help="operations of each seed")
    parser.add_argument("--telemetry", action="store_true", help="print the seed's telemetry only")
    parser.add_argument("--plant", help="a defect to plant into the product first")
    options = parser.parse_args(arguments)
    if options.plant is not None:
        from tests.simulation.defects import planted

        with planted(options.plant):
            return _play(options)
    return _play(options)


def _play(options: argparse.Namespace) -> int:
    if options.telemetry:
        sys.stdout.write(telemetry_of(plan_of(options.seed, options.count)))
        return 0
    failed = [seed for seed in _seeds(options) if not _passes(seed, options.count)]
    for seed in failed:
        print(f"seed {seed} failed; again: {_command(seed, options)}")
    return 1 if failed else 0


def _seeds(options: argparse.Namespace) -> Iterator[int]:
    if options.minutes is None:
        yield from range(options.seed, options.seed + options.seeds)
        return
    end = time.monotonic() + options.minutes * 60
    seed = options.seed
    while time.monotonic() < end:
        yield seed
        seed += 1


def _passes(seed: int, count: int) -> bool:
    began = time.monotonic()
    evidence = evidence_of(plan_of(seed, count))
    problems = problems_of(evidence)
    result = "failed" if problems else "passed"
    spans = len(evidence.traced.capture.recorder.in_order)
    faults = sum(evidence.traced.plan.injector.drawn.values())
    print(
        f"seed {seed} {result}: {count} operations, {faults} faults planned, {spans} spans, "
        f"{time.monotonic() - began:.1f} s",
        flush=True,
    )
    for check, lines in problems.items():
        print(f"  {check}: {len(lines)} problems")
        for line in lines[:_SHOWN]:
            print(f"    {line[:2000]}")
    return not problems


def _command(seed: int, options: argparse.Namespace) -> str:
    more = "" if options.count == OPERATIONS else f" --count {options.count}"
    more += f" --plant {options.plant}" if options.plant else ""
    return f"python -m tests.simulation --seed {seed}{more}"


if __name__ == "__main__":
    sys.exit(main())
