# SPDX-License-Identifier: Apache-2.0
"""What tracing a kernel costs: against nothing, against the same spans by hand, and against
``weaver_kernel.otel``.

The thread that records the values of histograms in an app is kept from it here, because it would
wake up in another variant's block; what it costs, ``benchmarks/histograms.py`` tells.

Run it with ``make bench`` or ``python benchmarks/overhead.py [--rounds N]``. Microseconds are
for orientation; the ratios are the result.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import opentelemetry.sdk.version
import wrapt
from by_hand import Instruments, info_tree
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from rig import Bench, Providers, Result, Variant, load_library, measure, row

from agent_kernel_otel import instrument_kernel
from agent_kernel_otel.histograms import Buffer
from agent_kernel_otel.weaver.activation import active


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--only", choices=sorted(TABLES), help="one table only")
    options = parser.parse_args()
    Buffer._wake_thread = lambda _: None  # type: ignore[method-assign]
    print(
        f"Python {sys.version.split()[0]}, OpenTelemetry SDK "
        f"{opentelemetry.sdk.version.__version__}, wrapt {wrapt.__version__}"
    )
    for name, table in TABLES.items():
        if options.only in (None, name):
            print(f"\n{table.__doc__}")
            table(options.rounds)


def _variant(
    name: str, bench: Bench, providers: Providers | None, method: str = "invoke"
) -> Variant:
    def prepare() -> None:
        bench.fresh()
        if providers is not None:
            providers.empty()

    return Variant(name, getattr(bench, method), prepare)


def _traced(library: Any, providers: Providers | None, rows: int = 1, **settings: Any) -> Bench:
    bench = Bench(library, rows, fail=settings.pop("fail", False))
    keywords = {} if providers is None else providers.keywords
    instrument_kernel(bench.kernel, span_level="info", **keywords, **settings)
    return bench


def _print(result: Result, lines: list[tuple[str, str, str, str | None]]) -> None:
    for label, name, to, less in lines:
        print(f"  {label:<58}{result.ratio(name, to, less)}")
    times = ", ".join(f"{name} {result.median(name):.1f}" for name in result.times)
    print(f"  (us a call: {times})")


def invocation(rounds: int) -> None:
    """Invocation, 1 row"""
    bare_library, library = load_library(), load_library()
    sampled, unsampled, root_only = Providers(), Providers(ALWAYS_OFF), Providers()
    hand, hand_unsampled, hand_spans = Providers(), Providers(ALWAYS_OFF), Providers()
    spans_only = Providers()
    bare = Bench(bare_library)
    by_hand = _by_hand(bare_library, hand)
    by_hand_unsampled = _by_hand(bare_library, hand_unsampled)
    by_hand_spans = _by_hand(bare_library, hand_spans, metrics=False)
    off = _traced(library, sampled)
    instrument_kernel(off.kernel, **sampled.keywords, span_level="off")
    variants = [
        _variant("bare", bare, None),
        Variant("by hand", by_hand[1], lambda: (by_hand[0].fresh(), hand.empty())[1]),
        Variant(
            "by hand, unsampled",
            by_hand_unsampled[1],
            lambda: (by_hand_unsampled[0].fresh(), hand_unsampled.empty())[1],
        ),
        Variant(
            "by hand, spans only",
            by_hand_spans[1],
            lambda: (by_hand_spans[0].fresh(), hand_spans.empty())[1],
        ),
        _variant("ours", _traced(library, sampled), sampled),
        _variant("ours, spans only", _traced(library, spans_only, metrics_level="off"), spans_only),
        _variant("ours, unsampled", _traced(library, unsampled), unsampled),
        _variant("ours, no SDK", _traced(library, None), None),
        _variant("ours, spans off", off, None),
        _variant("kernel's own", _peer(bare_library, root_only), root_only),
    ]
    _print(
        measure(variants, rounds=rounds),
        [
            ("whole tree, to bare", "ours", "bare", None),
            ("overhead of the tree with metrics, to by hand", "ours", "by hand", "bare"),
            ("overhead of the spans alone", "ours, spans only", "by hand, spans only", "bare"),
            (
                "overhead, unsampled with metrics, to by hand",
                "ours, unsampled",
                "by hand, unsampled",
                "bare",
            ),
            ("unsampled with metrics, to bare", "ours, unsampled", "bare", None),
            ("nothing listening (no SDK), counted, to bare", "ours, no SDK", "bare", None),
            ("spans switched off, to bare", "ours, spans off", "bare", None),
            ("overhead of 4 spans, to the kernel's own 1 span", "ours", "kernel's own", "bare"),
        ],
    )


def root_only(rounds: int) -> None:
    """The operation's span alone, against the kernel's own instrumentation"""
    bare_library, library = load_library(), load_library()
    sampled, unsampled = Providers(), Providers(ALWAYS_OFF)
    peer, peer_unsampled = Providers(), Providers(ALWAYS_OFF)
    variants = [
        _variant("bare", Bench(bare_library), None),
        _variant("ours", _without_views(_traced(library, sampled)), sampled),
        _variant("ours, unsampled", _without_views(_traced(library, unsampled)), unsampled),
        _variant("kernel's own", _peer(bare_library, peer), peer),
        _variant("kernel's own, unsampled", _peer(bare_library, peer_unsampled), peer_unsampled),
    ]
    _print(
        measure(variants, rounds=rounds),
        [
            ("overhead, to the kernel's own", "ours", "kernel's own", "bare"),
            ("overhead, unsampled", "ours, unsampled", "kernel's own, unsampled", "bare"),
        ],
    )


def _without_views(bench: Bench) -> Bench:
    """Leave the operation's own span: not a setting, but what the two have in common."""
    instrumentation = active(bench.kernel)
    assert instrumentation is not None
    instrumentation.views = {key: {} for key in instrumentation.views}
    return bench


def failing(rounds: int) -> None:
    """Failing invocation: the only driver raises"""
    bare_library, library = load_library(), load_library()
    sampled, root_only = Providers(), Providers()
    variants = [
        _variant("bare", Bench(bare_library, fail=True), None, "failing_invoke"),
        _variant("ours", _traced(library, sampled, fail=True), sampled, "failing_invoke"),
        _variant(
            "kernel's own", _peer(bare_library, root_only, fail=True), root_only, "failing_invoke"
        ),
    ]
    _print(
        measure(variants, rounds=rounds),
        [
            ("to bare", "ours", "bare", None),
            ("overhead, to the kernel's own", "ours", "kernel's own", "bare"),
        ],
    )


def granting(rounds: int) -> None:
    """Grant"""
    bare_library, library = load_library(), load_library()
    sampled, root_only = Providers(), Providers()
    variants = [
        _variant("bare", Bench(bare_library), None, "grant"),
        _variant("ours", _traced(library, sampled), sampled, "grant"),
        _variant("kernel's own", _peer(bare_library, root_only), root_only, "grant"),
    ]
    _print(
        measure(variants, rounds=rounds),
        [
            ("to bare (2 spans)", "ours", "bare", None),
            ("the kernel's own (1 span), to bare", "kernel's own", "bare", None),
        ],
    )


def hundred_rows(rounds: int) -> None:
    """Invocation, 100 rows"""
    bare_library, library = load_library(), load_library()
    sampled = Providers()
    variants = [
        _variant("bare", Bench(bare_library, 100), None),
        _variant("ours", _traced(library, sampled, 100), sampled),
    ]
    _print(measure(variants, rounds=rounds, block=12), [("to bare", "ours", "bare", None)])


def streaming(rounds: int) -> None:
    """Stream of 100 chunks"""
    bare_library, library = load_library(), load_library()
    sampled = Providers()
    variants = []
    for name, bench, providers in (
        ("bare", Bench(bare_library), None),
        ("ours", _traced(library, sampled), sampled),
    ):
        bench.kernel.register_driver(_Streamer())
        variants.append(Variant(name, _stream_of(bench), _variant(name, bench, providers).prepare))
    _print(measure(variants, rounds=rounds, block=20), [("to bare", "ours", "bare", None)])


class _Streamer:
    driver_id = "memory"

    async def execute(self, ctx: Any) -> Any:
        raise NotImplementedError

    async def execute_stream(self, ctx: Any) -> Any:  # noqa: ARG002 - the interface's
        for number in range(99):
            yield row(number)
        yield {**row(99), "__is_final__": True}


def _stream_of(bench: Bench) -> Any:
    async def call() -> None:
        frames = bench.kernel.invoke_stream(bench.token, principal=bench.principal, args={})
        async for _ in frames:
            pass

    return call


def _by_hand(library: Any, providers: Providers, *, metrics: bool = True) -> tuple[Bench, Any]:
    bench = Bench(library)
    tracer = providers.tracer_provider.get_tracer("by-hand")

    meter = providers.meter_provider.get_meter("by-hand")
    instruments = Instruments(meter) if metrics else None

    async def call() -> None:
        await bench.invoke()
        info_tree(tracer, instruments)

    return bench, call


def _peer(library: Any, providers: Providers, *, fail: bool = False) -> Bench:
    bench = Bench(library, fail=fail)
    library.instrument_kernel(bench.kernel, tracer_provider=providers.tracer_provider)
    return bench


TABLES = {
    "invocation": invocation,
    "root-only": root_only,
    "failing": failing,
    "granting": granting,
    "hundred-rows": hundred_rows,
    "streaming": streaming,
}

if __name__ == "__main__":
    main()
