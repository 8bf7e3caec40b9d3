# SPDX-License-Identifier: Apache-2.0
"""What a seed means: kernels, and what is done with them, all decided before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.simulation.faults import FaultInjector

CAPABILITIES: Final = tuple(f"cap.{number:02}" for number in range(10))
PRINCIPALS: Final = 6
MODES: Final = ("summary", "table", "handle_only", "raw")
ANSWERS: Final[tuple[Any, ...]] = (
    [{"id": 1, "title": "write"}, {"id": 2, "title": "test"}],
    [{"id": number, "title": "row"} for number in range(30)],
    {"a": {"b": {"c": {"d": 1}}}, "n": 1},
    "mail to someone@example.com",
    [{"email": "a@example.com", "id": 3}],
    [], None, 7,
    [{"id": 1, "text": "long " * 60}],
)  # fmt: skip
NESTED: Final = 10_000_000
"""What the number of a nested operation is higher by."""
ORPHANS: Final = 8
"""Operations whose event loop dies under them, at the end of each seed."""
DEADLINE: Final = 47.777_000_1
"""Seconds that an attempt may take, where its token says so: no pause lasts as long."""

_PLACES: Final = {
    "grant": ("policy", "issue", "record"),
    "invoke": ("verify", "route", "suggest", "allocate", "count", "store", "transform", "record"),
    "dry_run": ("verify", "route", "suggest"),
    "stream": ("verify", "route", "suggest", "store", "transform", "record"),
    "expand": ("expand", "record"),
    "wrong": (),
    "unstarted": (),
}
_WEIGHTS: Final = {
    "grant": 25, "invoke": 40, "stream": 15, "expand": 12, "dry_run": 5, "wrong": 2, "unstarted": 1,
}  # fmt: skip
_TOKENS: Final = (
    ("granted", 45), ("fresh", 37), ("expired", 3), ("revoked", 3), ("tampered", 3),
    ("another's", 3), ("unknown capability", 3), ("bad deadline", 3),
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """What a driver does when it is asked.

    Attributes:
        pauses: Seconds that it sleeps, one after the other; 0 is a bare turn of the loop.
        fault: What it fails with, ``hangs`` and ``complains`` included.
        answer: Which of :data:`ANSWERS` it gives.
        chunks: How many chunks it streams before it ends or fails, where it streams.
    """

    pauses: tuple[float, ...]
    fault: str | None
    answer: int
    chunks: int


@dataclass(frozen=True)
class Op:
    """One operation, and all that befalls it.

    Attributes:
        number: Its number, which is its trace id too.
        kind: Which of the kernel's methods, and how.
        kernel: Which kernel.
        principal: Who asks.
        choices: Arguments.
        faults: By place, the fault that waits there.
        chances: What else befalls it.
        attempts: What drivers do when asked the first time, the second, ...
        work: By place, the nanoseconds that it takes there.
        nested: What its driver does to a kernel, meanwhile.
    """

    number: int
    kind: str
    kernel: int
    principal: int
    choices: Mapping[str, Any]
    faults: Mapping[str, str]
    chances: frozenset[str]
    attempts: tuple[Attempt, ...]
    work: Mapping[str, int]
    nested: Op | None = None

    def all(self) -> Iterator[Op]:
        """This one, and the one in it."""
        yield self
        if self.nested is not None:
            yield self.nested


@dataclass(frozen=True)
class KernelPlan:
    """How one kernel is put together."""

    engine: str
    own_classes: bool
    drivers: tuple[str, ...]
    routes: Mapping[str, tuple[str, ...]]
    budget: int | None
    shares_budget_with: int | None
    shares_stores_with: int | None
    max_handles: int | None
    max_bytes: int | None
    traces: str
    name: str


@dataclass(frozen=True)
class Round:
    """Operations that run at the same time, and what the world does before."""

    events: tuple[tuple[str, int], ...]
    ops: tuple[Op, ...]


@dataclass
class Plan:
    """All of one seed.

    Attributes:
        seed: The seed.
        count: How many operations.
        edges: Bounds of the histograms of whole calls in seconds, which pauses hit exactly and
            miss narrowly.
        stage_edges: The same of the histograms of stages, in nanoseconds.
        span_level: The level of spans.
    """

    seed: int
    count: int
    edges: Sequence[float] = (0.001, 0.1)
    stage_edges: Sequence[int] = (5_000, 1_000_000)
    span_level: str = "info"
    kernels: list[KernelPlan] = field(init=False)
    rounds: list[Round] = field(init=False)
    orphans: tuple[Op, ...] = field(init=False)
    injector: FaultInjector = field(init=False)

    def __post_init__(self) -> None:
        self._rng = rng = random.Random(self.seed)
        self.injector = FaultInjector(random.Random(rng.getrandbits(64)))
        self.kernels = [self._kernel(number) for number in range(rng.randint(4, 6))]
        self.rounds = list(self._rounds())
        self.orphans = tuple(self._orphan(self.count + 1 + each) for each in range(ORPHANS))

    @property
    def turns_back(self) -> bool:
        """Whether the wall clock is set back now and then, and not only forward."""
        return self.seed % 2 == 1

    @property
    def ops(self) -> Iterator[Op]:
        for each in self.rounds:
            for op in each.ops:
                yield from op.all()

    def _kernel(self, number: int) -> KernelPlan:
        rng = self._rng
        kinds = ["memory", "async", "slotted", "instance", "streaming"]
        drivers = tuple(f"{rng.choice(kinds)}-{each}" for each in range(4))
        bounded = rng.choice(["no", "handles", "bytes"])
        budget = rng.choice([None, 500, 1_000, 60_000])
        sharing = number > 0 and rng.random() < 0.3
        return KernelPlan(
            engine=rng.choice(["default", "declarative", "own"]),
            own_classes=rng.random() < 0.5,
            drivers=drivers,
            routes={
                capability: tuple(
                    rng.sample([*drivers, "unregistered"], rng.choice([0, 1, 1, 2, 2, 3]))
                )
                for capability in CAPABILITIES
            },
            budget=budget,
            shares_budget_with=rng.randrange(number) if sharing else None,
            shares_stores_with=rng.randrange(number) if number and rng.random() < 0.2 else None,
            max_handles=rng.choice([5, 40]) if bounded == "handles" else None,
            max_bytes=rng.choice([400, 4_000]) if bounded == "bytes" else None,
            traces=rng.choice(
                ["memory", "memory", "small", "small", "foreign", "foreign", "jsonl"]
            ),
            name=f"kernel-{number}",
        )

    def _rounds(self) -> Iterator[Round]:
        rng, number = self._rng, 0
        while number < self.count:
            size = min(rng.choice([1, 1, 2, 4, 8]), self.count - number)
            ops = tuple(self._with_nested(self._op(number + 1 + each)) for each in range(size))
            number += size
            if not any(op.choices.get("end") == "drop" for op in ops):
                # What closes a stream that was dropped comes later, and must not come too late.
                ops = tuple(replace(op, work=self._work()) for op in ops)
            yield Round(tuple(self._events()), ops)

    def _events(self) -> Iterator[tuple[str, int]]:
        rng = self._rng
        if rng.random() < 0.05:
            yield "jump", rng.choice([-300, -5, 5, 300] if self.turns_back else [5, 300]) * 10**9
        if rng.random() < 0.002:
            yield "jump", 3_700 * 10**9
        if rng.random() < 0.01:
            yield "reset", 0
        if rng.random() < 0.02:
            yield "collect", 0
        if rng.random() < 0.003:
            yield "retire", rng.randrange(len(self.kernels))
        if rng.random() < 0.01:
            yield "reset one", rng.randrange(len(self.kernels))

    def _with_nested(self, op: Op) -> Op:
        if op.kind not in {"invoke", "stream"} or not self.injector.befalls("nests"):
            return op
        inner = self._op(op.number + NESTED)
        while inner.kind not in {"grant", "invoke", "expand"} or "forks" in inner.chances:
            inner = self._op(op.number + NESTED)
        return replace(op, nested=inner)

    def _op(self, number: int) -> Op:
        rng, injector = self._rng, self.injector
        kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        chances = {
            name
            for name in ("wall_clock_jumps", "unsampled", "suppressed", "rootless",
                         "processor_raises", "processor_refuses", "cancelled", "forks")
            if injector.befalls(name)
        }  # fmt: skip
        places = _PLACES[kind]
        faults = injector.draw(places)
        if "transform" in places and injector.befalls("transform.stricter"):
            chances.add("transform.stricter")
        if kind == "grant" and injector.befalls("policy.returns_denied"):
            chances.add("policy.returns_denied")
        choices = getattr(self, f"_{kind}")()
        attempts = tuple(self._attempt(choices, chances) for _ in range(3))
        return Op(
            number,
            kind,
            rng.randrange(len(self.kernels)),
            rng.randrange(PRINCIPALS),
            choices,
            faults,
            frozenset(chances),
            attempts,
            {},
        )

    def _orphan(self, number: int) -> Op:
        """An operation that waits for ever, in its driver or between two frames."""
        op = self._op(number)
        while op.kind not in {"invoke", "stream"}:
            op = self._op(number)
        choices = {**op.choices, "token": "fresh", "constraints": {}, "after": 2, "rest": "forever"}
        choices["end"] = "drop"
        fault = "driver.hangs" if op.kind == "invoke" else None
        attempts = tuple(replace(each, fault=fault, chunks=3) for each in op.attempts)
        chances = op.chances - {"cancelled", "forks"}
        return replace(op, choices=choices, attempts=attempts, chances=chances, faults={})

    def _work(self) -> dict[str, int]:
        rng = self._rng
        places = [each for each in ("policy", "verify", "transform", "store", "record")
                  if rng.random() < 0.15]  # fmt: skip
        return {each: max(0, rng.choice(self.stage_edges) + rng.choice([0, 0, 1, -1]))
                for each in places}  # fmt: skip

    def _attempt(self, choices: Mapping[str, Any], chances: set[str]) -> Attempt:
        rng = self._rng
        fault = self.injector.draw_driver()
        # Only a deadline or a cancellation gets a call out of a driver that hangs.
        if choices.get("deadline"):
            if self.injector.befalls("driver.hangs"):
                fault = "driver.hangs"
            elif self.injector.befalls("driver.hangs_and_complains"):
                fault = "driver.hangs_and_complains"
        pauses = tuple(self._pause() for _ in range(rng.choice([0, 1, 1, 2])))
        if "cancelled" in chances:
            pauses = (0.0, *pauses, self._pause())
        return Attempt(pauses, fault, rng.randrange(len(ANSWERS)), rng.randrange(5))

    def _pause(self) -> float:
        rng = self._rng
        if rng.random() < 0.5:
            return 0.0
        short = [edge for edge in self.edges if edge <= 0.1]
        edge = rng.choice(self.edges if rng.random() < 0.1 else short or self.edges)
        return edge + rng.choice([0, 0, 1e-9, -1e-9])

    def _constraints(self) -> dict[str, Any]:
        return dict(
            self._rng.choice(
                [{}, {}, {"max_rows": 1}, {"allowed_fields": ["id"]}, {"scope": {"id": 1}}]
            )
        )

    def _grant(self) -> dict[str, Any]:
        rng = self._rng
        constraints = self._constraints()
        deadline = rng.random() < 0.3
        if deadline:
            constraints["invoke_timeout_s"] = DEADLINE
        if rng.random() < 0.02:
            constraints["max_rows"] = "many"
        return {
            "capability": self._capability(),
            "justification": rng.choice(["", "needed for the weekly report"]),
            "constraints": constraints,
            "get_token": rng.random() < 0.2,
            "positional": rng.random() < 0.3,
        }

    def _capability(self) -> str:
        rng = self._rng
        return rng.choice(CAPABILITIES) if rng.random() < 0.96 else f"made.up.{rng.randrange(99)}"

    def _token(self) -> dict[str, Any]:
        rng = self._rng
        kinds, weights = zip(*_TOKENS, strict=True)
        deadline = rng.random() < 0.4
        kind = rng.choices(kinds, weights)[0]
        constraints = self._constraints()
        if deadline:
            constraints["invoke_timeout_s"] = DEADLINE
        if kind == "bad deadline":
            constraints["invoke_timeout_s"] = rng.choice([-1, "soon", True])
        return {
            "token": kind,
            "pick": rng.randrange(30),
            "capability": rng.choice(CAPABILITIES),
            "constraints": constraints,
            # A token that was granted brings its own constraints, or none.
            "deadline": deadline and kind not in {"granted", "bad deadline"},
            "mode": rng.choice(MODES),
            "jump": rng.choice([-90, 90] if self.turns_back else [90]),
            "cancel_at": rng.choice([1, 1, 2, 2, 3, 4, 5]),
        }

    def _invoke(self) -> dict[str, Any]:
        return self._token()

    def _dry_run(self) -> dict[str, Any]:
        return self._token()

    def _unstarted(self) -> dict[str, Any]:
        return self._token() | {"stream": self._rng.random() < 0.5}

    def _stream(self) -> dict[str, Any]:
        rng = self._rng
        return self._token() | {
            "end": rng.choice(["drain", "drain", "close", "drop", "throw"]),
            "after": rng.randrange(4),
            "fault_at": rng.randrange(3),
            "rest": self._pause() if rng.random() < 0.2 else None,
        }

    def _expand(self) -> dict[str, Any]:
        rng = self._rng
        return {
            "pick": rng.randrange(10_000),
            "recent": rng.random() < 0.7,
            "handle": rng.choice(["known"] * 8 + ["made up"]),
            "who": rng.choice(["owner"] * 6 + ["another", "nobody"]),
            "query": rng.choice([{}, {"limit": 1}, {"offset": 1}, {"offset": -1},
                                 {"fields": ["id"]}, {"fields": "id"}, {"filter": {"id": 1}}]),
        }  # fmt: skip

    def _wrong(self) -> dict[str, Any]:
        return {"method": self._rng.choice(["invoke", "grant_capability", "expand"])}
