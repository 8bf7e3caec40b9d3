# SPDX-License-Identifier: Apache-2.0
"""What exporting does to the tail of an app's latency, to its spans in a burst, and to the app
when the collector is dead: our pipelines against the SDK's own, with all defaults.

Run it with ``make bench-latency`` or ``python benchmarks/latency.py``. The processes of all
variants live at the same time and take turns of some seconds, in random order, so that the
machine's other work hits all alike. The ratios are the result.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import handing_over
import opentelemetry.sdk.version

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
SPANS = 4
"""Spans of one call at the default level."""
MOST_CALLS = 9000
"""In a turn: at 10,000 results the kernel's handle store becomes many times slower."""
BARE = "bare"


class Process:
    """A script that answers each JSON line with one; it ends with its standard input."""

    def __init__(self, script: str, *arguments: str, env: dict[str, str], quiet: bool) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )
        self.first = self._read()

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@dataclass
class Variant:
    """One way to be traced, and what was measured of it.

    Attributes:
        name: What it is called.
        way: ``bare``, ``stock`` or ``ours``.
        protocol: How it exports.
        environ: Variables of its own.
        turns: What its process answered, turn by turn.
        lost: Spans that did not arrive, turn by turn.
    """

    name: str
    way: str
    protocol: str = "grpc"
    environ: dict[str, str] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def quantile(self, at: float, what: str = "took") -> float:
        """Microseconds, over all turns."""
        return quantile([time for turn in self.turns for time in _times(turn, what)], at)

    def quantiles(self, at: float, what: str = "took") -> list[float]:
        """Microseconds of each turn."""
        return [quantile(_times(turn, what), at) for turn in self.turns]

    def cpu(self) -> float:
        """Microseconds of the process for each call."""
        return statistics.median(turn["cpu"] / turn["calls"] / 1000 for turn in self.turns)


def _times(turn: dict[str, Any], what: str) -> list[int]:
    if what == "response":  # what a user waits who came when the call was due
        return [took + late for took, late in zip(turn["took"], turn["late"], strict=True)]
    times: list[int] = turn[what]
    return times


def quantile(times: list[int], at: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * at))] / 1000


class Run:
    """All processes of one table; a context manager.

    Args:
        variants: What is to be measured.
        dead: Whether the collector accepts connections and never answers.
    """

    def __init__(self, variants: list[Variant], *, dead: bool = False) -> None:
        self._variants = variants
        self._dead = dead
        self._running = ExitStack()
        self._order = random.Random(20261121)

    def __enter__(self) -> Self:
        base = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
        ports = {
            v.name: "tar pit" if self._dead else v.protocol for v in self._variants if v.way != BARE
        }
        self._receiver = self._start(
            "counting_receiver.py", json.dumps(ports), env=base, quiet=False
        )
        self._apps = {}
        for variant in self._variants:
            port = self._receiver.first.get(variant.name)
            env = {
                **base,
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": variant.protocol,
                **variant.environ,
            }
            self._apps[variant.name] = self._start(
                "paced_app.py", variant.way, env=env, quiet=self._dead
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _start(self, script: str, argument: str, env: dict[str, str], quiet: bool) -> Process:
        process = Process(script, argument, env=env, quiet=quiet)
        self._running.callback(process.end)
        return process

    def turns(self, rounds: int, rate: int, calls: int) -> None:
        """Let all variants take turns, the first round for warming up."""
        for number in range(rounds + 1):
            for variant in self._order.sample(self._variants, len(self._variants)):
                before = self._receiver.ask()
                turn = self._apps[variant.name].ask(
                    rate=rate, count=calls if number else min(calls, 1000), flush=not self._dead
                )
                if not number:
                    continue
                variant.turns.append({**turn, "calls": calls})
                if variant.way != BARE and not self._dead:
                    arrived = self._receiver.ask()[variant.name] - before[variant.name]
                    variant.lost.append(calls * SPANS - arrived)


def _variants(options: argparse.Namespace, protocols: list[str]) -> list[Variant]:
    variants = [Variant(BARE, "bare")]
    for protocol in protocols:
        short = protocol.partition("/")[0]
        variants.append(Variant(f"stock, {short}", "stock", protocol))
        variants.append(Variant(f"ours, {short}", "ours", protocol))
        for also in options.also:
            environ = dict(pair.split("=", 1) for pair in also.split(","))
            variants.append(Variant(f"ours, {short}, {also}", "ours", protocol, environ))
    return variants


def paced(options: argparse.Namespace) -> None:
    """Calls at a steady rate, with a collector that answers"""
    variants = _variants(options, options.protocols)
    with Run(variants) as run:
        run.turns(options.rounds, options.rate, min(options.rate * options.seconds, MOST_CALLS))
    print(f"  {options.rate} calls/s, {options.rounds} turns of {options.seconds} s each")
    _print_times(variants)
    _print_added(variants)


def dead_collector(options: argparse.Namespace) -> None:
    """Calls at a steady rate, with a collector that accepts and never answers"""
    variants = _variants(options, options.protocols)
    with Run(variants, dead=True) as run:
        run.turns(options.rounds, 250, 250 * options.seconds)
    print(f"  250 calls/s, {options.rounds} turns of {options.seconds} s each")
    _print_times(variants)
    for stock, ours in _pairs(variants):
        for at in (0.5, 0.99, 0.999):
            ratio = ours.quantile(at) / stock.quantile(at)
            print(f"  {f'{ours.name}: p{at * 100:g} to stock':<50}{ratio:6.2f}x")


def burst(options: argparse.Namespace) -> None:
    """A burst of 2,000 calls, 8,000 spans, as fast as they go"""
    variants = _variants(options, options.protocols)
    with Run(variants) as run:
        run.turns(5, 0, 2000)
    for variant in variants:
        rate = statistics.median(2000 / turn["elapsed"] * 1e9 for turn in variant.turns)
        lost = f"lost {variant.lost}, " if variant.lost else ""
        print(f"  {variant.name:<50}{lost}{rate:.0f} calls/s")


def queueing(options: argparse.Namespace) -> None:
    """What the app's thread pays to hand a span over"""
    for state, ratio, times in handing_over.measure(options.rounds):
        print(f"  {f'{state}, ours to stock':<50}{ratio}  (ns: {times})")


def _print_times(variants: list[Variant]) -> None:
    print(f"  {'microseconds':<44}| of the call         | since it was due    |")
    print(f"  {'':<44}|   p50    p99  p99.9 |    p99       p99.9 |  CPU  lost  GC")
    for v in variants:
        call = "".join(f"{v.quantile(at):7.0f}" for at in (0.5, 0.99, 0.999))
        response = "".join(f"{v.quantile(at, 'response'):10.0f}" for at in (0.99, 0.999))
        collections = sum(turn["full_collections"] for turn in v.turns)
        print(f"  {v.name:<44}|{call}|{response} |{v.cpu():5.0f}{sum(v.lost):6}{collections:4}")


def _print_added(variants: list[Variant]) -> None:
    bare = variants[0]
    for stock, ours in _pairs(variants):
        print(f"  added by tracing, {ours.name} to {stock.name}:")
        for label, at, what in (
            ("p50 of the call", 0.5, "took"),
            ("p99 of the call", 0.99, "took"),
            ("p99.9 of the call", 0.999, "took"),
            ("p99 since it was due", 0.99, "response"),
            ("p99.9 since it was due", 0.999, "response"),
        ):
            base = bare.quantile(at, what)
            one, other = ours.quantile(at, what) - base, stock.quantile(at, what) - base
            rounds = [
                (mine - none) / (theirs - none)
                for mine, theirs, none in zip(
                    ours.quantiles(at, what),
                    stock.quantiles(at, what),
                    bare.quantiles(at, what),
                    strict=True,
                )
                if theirs > none
            ]
            low, median, high = statistics.quantiles(rounds, n=4)
            print(
                f"    {label:<26}{one / other:6.2f}x  ({one:.0f} to {other:.0f} us)"
                f"   by rounds {median:.2f}x [{low:.2f} to {high:.2f}]"
            )
        cpu = (ours.cpu() - bare.cpu()) / (stock.cpu() - bare.cpu())
        print(f"    {'CPU of the process':<26}{cpu:6.2f}x")


def _pairs(variants: list[Variant]) -> list[tuple[Variant, Variant]]:
    stock = {v.protocol: v for v in variants if v.way == "stock"}
    return [(stock[v.protocol], v) for v in variants if v.way == "ours"]


TABLES = {"paced": paced, "burst": burst, "dead": dead_collector, "queue": queueing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(TABLES), help="one table only")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each variant")
    parser.add_argument("--seconds", type=int, default=5, help="length of a turn")
    parser.add_argument("--rate", type=int, default=1000, help="calls per second")
    parser.add_argument(
        "--protocols", nargs="+", default=["grpc", "http/protobuf"], metavar="PROTOCOL"
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="measure ours under these variables too",
    )
    options = parser.parse_args()
    sdk = opentelemetry.sdk.version.__version__
    print(f"Python {sys.version.split()[0]}, OpenTelemetry SDK {sdk}")
    for name, table in TABLES.items():
        if options.only in (None, name):
            print(f"\n{table.__doc__}")
            table(options)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"\nload of the machine at the end: {load:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
