# SPDX-License-Identifier: Apache-2.0
"""All that is known to differ between the kernel's own ``kernel.stats`` and ours.

The one table of it: each entry says what the kernel does, which of the two is right and why, has
a minimal reproduction that is run as a test, and tells by how much the two differ after any
operation, which the property test applies.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from agent_kernel_otel import kernel_stats
from tests.stats.world import Grant, Invoke, Mode, Operation, Seen, Stream, World

FIELDS = (
    "grants",
    "denials",
    "invocations",
    "invocation_failures",
    "fallback_activations",
    "redaction_events",
    "budget_downgrades",
    "handle_stores",
    "expansions",
)
"""The numbers that both have; beside them there is ``denials_by_reason``."""

Excess = Counter[str]
"""By how much ours are more than the kernel's; a reason has the key ``denials_by_reason:code``."""


@dataclass(frozen=True)
class Difference:
    """One thing that the two count differently.

    Attributes:
        fields: Where it shows.
        kernel: What the kernel does.
        right: Which is right.
        why: And why.
        reproduce: The least that shows it, with a world that nothing has happened in.
        shows: The kernel's number and ours after that.
        excess: By how much ours differ after an operation; ``None`` where no operation of the
            property test brings it about.
    """

    fields: tuple[str, ...]
    kernel: str
    right: Literal["ours", "the kernel", "both"]
    why: str
    reproduce: Callable[[World], Awaitable[object]]
    shows: dict[str, tuple[Any, Any]]
    excess: Callable[[Seen], Excess] | None = None


# What an operation came to, as the app can tell -----------------------------------------------


def is_invocation(seen: Seen) -> bool:
    """Whether it began, and is no dry run."""
    operation = seen.operation
    if isinstance(operation, Stream):
        return operation.close_after != 0
    return isinstance(operation, Invoke) and not operation.dry_run


def status(seen: Seen) -> str:
    """How it ended."""
    error = seen.error
    if seen.closed or isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if error is None:
        return "success"
    refused = bool(getattr(error, "reason_code", None)) or type(error).__name__.startswith("Token")
    return "denied" if refused else "error"


def redacted(seen: Seen) -> bool:
    """Whether the firewall took something out of what the app got."""
    warnings = [warning for frame in seen.frames for warning in frame.warnings]
    return any(not warning.startswith("raw output") for warning in warnings)


def downgraded(seen: Seen) -> bool:
    """Whether the app got, or was to get, another response mode than it asked for."""
    operation = seen.operation
    assert isinstance(operation, (Invoke, Stream))
    got: Mode = seen.frames[-1].response_mode if seen.frames else seen.foreseen
    return seen.reached and got != operation.mode


def everything(seen: Seen) -> Excess:
    """All that an invocation comes to, where the kernel counts nothing of it."""
    return Counter(
        invocations=1,
        invocation_failures=status(seen) == "error",
        fallback_activations=seen.attempts > 1,
        redaction_events=redacted(seen),
        budget_downgrades=downgraded(seen),
    )


def counted_by_kernel(seen: Seen) -> bool:
    """Whether the kernel counts it as an invocation at all."""
    return is_invocation(seen) and seen.reached and not seen.closed and seen.audited


# By how much they differ ----------------------------------------------------------------------


def _refused_before_drivers(seen: Seen) -> Excess:
    return everything(seen) if is_invocation(seen) and not seen.reached else Counter()


def _closed(seen: Seen) -> Excess:
    return everything(seen) if is_invocation(seen) and seen.closed else Counter()


def _audit_failed(seen: Seen) -> Excess:
    lost = is_invocation(seen) and seen.reached and not seen.closed and not seen.audited
    return everything(seen) if lost else Counter()


def _lone_driver(seen: Seen) -> Excess:
    if not counted_by_kernel(seen) or not isinstance(seen.operation, Invoke):
        return Counter()
    alone = seen.operation.attempts in {("fail",), ("crash",)}
    return Counter(fallback_activations=-alone)


def _fallback_cancelled(seen: Seen) -> Excess:
    if not counted_by_kernel(seen) or not isinstance(seen.operation, Invoke):
        return Counter()
    return Counter(fallback_activations=status(seen) == "cancelled" and seen.attempts > 1)


def _cancelled(seen: Seen) -> Excess:
    if not counted_by_kernel(seen) or status(seen) != "cancelled":
        return Counter()
    return Counter(invocation_failures=-(not seen.frames))


def _refused_late(seen: Seen) -> Excess:
    if not counted_by_kernel(seen) or status(seen) != "denied":
        return Counter()
    return Counter(invocation_failures=-(not seen.frames))


def _raw_notice(seen: Seen) -> Excess:
    if not counted_by_kernel(seen):
        return Counter()
    noticed = any(frame.warnings for frame in seen.frames)
    return Counter(redaction_events=redacted(seen) - noticed)


def _stream_failed(seen: Seen) -> Excess:
    if not counted_by_kernel(seen) or not isinstance(seen.operation, Stream):
        return Counter()
    return Counter(invocation_failures=status(seen) == "error" and bool(seen.frames))


def _stream_downgraded(seen: Seen) -> Excess:
    operation = seen.operation
    if not counted_by_kernel(seen) or not isinstance(operation, Stream):
        return Counter()
    return Counter(budget_downgrades=downgraded(seen) - (seen.foreseen != operation.mode))


def _denied_otherwise(code: str) -> Callable[[Seen], Excess]:
    def excess(seen: Seen) -> Excess:
        denied = isinstance(seen.operation, Grant)
        denied = denied and getattr(seen.error, "reason_code", None) == code
        return Counter({"denials": denied, f"denials_by_reason:{code}": denied})

    return excess


# The reproductions ----------------------------------------------------------------------------


def _only(*operations: Operation) -> Callable[[World], Awaitable[object]]:
    async def reproduce(world: World) -> None:
        for operation in operations:
            await world.do(operation)

    return reproduce


async def _reset_amid_an_invocation(world: World) -> None:
    transform = world.firewall.transform

    def reset(*args: Any, **kwargs: Any) -> Any:
        world.kernel.reset_stats()
        kernel_stats(world.kernel).reset()
        return transform(*args, **kwargs)

    world.firewall.transform = reset  # type: ignore[method-assign]
    await world.do(Invoke())


async def _loop_closed_over_a_stream(world: World) -> None:
    world.router._fallback = ["streamer"]
    world.seen = Seen(Stream())
    options = world._prepare(Stream())

    def app() -> None:
        loop = asyncio.new_event_loop()
        stream: Any = world.kernel.invoke_stream(world._token("good"), **options)
        loop.run_until_complete(anext(stream))
        loop.close()

    thread = threading.Thread(target=app)
    thread.start()
    thread.join()
    gc.collect()


async def _many_reasons(world: World) -> None:
    for number in range(101):
        world.policy.code = f"reason_{number}"
        await world.do(Grant(decision="own code"))


DIFFERENCES = {
    "a refusal before the drivers is no invocation": Difference(
        fields=("invocations", "invocation_failures"),
        kernel="counts nothing where the token is refused, the capability is unknown, the deadline "
        "is invalid or the budget is spent",
        right="ours",
        why="somebody called and was turned away: who looks for refusals and exhausted budgets "
        "finds them nowhere in kernel.stats",
        reproduce=_only(Invoke(token="revoked"), Invoke(token="unknown")),
        shows={"invocations": (0, 2), "invocation_failures": (0, 1)},
        excess=_refused_before_drivers,
    ),
    "an invocation whose audit record cannot be written is none": Difference(
        fields=(
            "invocations",
            "invocation_failures",
            "fallback_activations",
            "redaction_events",
            "budget_downgrades",
        ),
        kernel="counts after the record is written, so that nothing is counted where that raises",
        right="ours",
        why="the driver ran, and the caller saw an exception",
        reproduce=_only(Invoke(("fail", "answer"), audit_fails=True)),
        shows={
            "invocations": (0, 1),
            "invocation_failures": (0, 1),
            "fallback_activations": (0, 1),
            "handle_stores": (1, 1),
        },
        excess=_audit_failed,
    ),
    "a coroutine that is closed is no invocation": Difference(
        fields=("invocations", "fallback_activations", "budget_downgrades"),
        kernel="catches CancelledError, but not the GeneratorExit of a coroutine that is closed",
        right="ours",
        why="the driver ran; ours count it as cancelled",
        reproduce=_only(Invoke(("hang",), stopped="closed")),
        shows={"invocations": (0, 1), "invocation_failures": (0, 0)},
        excess=_closed,
    ),
    "a lone driver that fails is a fallback": Difference(
        fields=("fallback_activations",),
        kernel="counts a fallback as soon as one attempt has failed, also where no other is made",
        right="ours",
        why="its own documentation: the first driver failed and a later one was tried",
        reproduce=_only(Invoke(("fail",))),
        shows={"fallback_activations": (1, 0)},
        excess=_lone_driver,
    ),
    "a fallback that is cancelled is none": Difference(
        fields=("fallback_activations",),
        kernel="learns of fallbacks when the drivers are through, which a cancellation prevents",
        right="ours",
        why="the second driver was tried",
        reproduce=_only(Invoke(("fail", "hang"))),
        shows={"fallback_activations": (0, 1)},
        excess=_fallback_cancelled,
    ),
    "a cancellation is a failure": Difference(
        fields=("invocation_failures",),
        kernel="counts a cancelled invocation, and a stream cancelled before its first frame, as "
        "failed",
        right="ours",
        why="its own documentation: every driver failed. None did; ours have invocations_cancelled",
        reproduce=_only(Invoke(("hang",)), Stream(chunks=0, then="hang")),
        shows={"invocations": (2, 2), "invocation_failures": (2, 0)},
        excess=_cancelled,
    ),
    "a refusal after the driver is a failure": Difference(
        fields=("invocation_failures",),
        kernel="does not look at what was raised",
        right="both",
        why="a firewall or a streaming driver that refuses works as it should; ours have "
        "invocations_denied",
        reproduce=_only(Invoke(firewall="refuse"), Stream(chunks=0, then="refuse")),
        shows={"invocations": (2, 2), "invocation_failures": (2, 0)},
        excess=_refused_late,
    ),
    "a notice about raw mode is a redaction": Difference(
        fields=("redaction_events",),
        kernel="takes every warning of a frame for a redaction",
        right="ours",
        why="the notice says that everything was handed out",
        reproduce=_only(Invoke(data="long", mode="raw", admin=True)),
        shows={"redaction_events": (1, 0)},
        excess=_raw_notice,
    ),
    "a stream that fails after a frame is a success": Difference(
        fields=("invocation_failures",),
        kernel="counts a stream as failed only where it gave no frame",
        right="ours",
        why="its consumer saw an exception",
        reproduce=_only(Stream(chunks=1, then="fail")),
        shows={"invocations": (1, 1), "invocation_failures": (0, 1)},
        excess=_stream_failed,
    ),
    "a stream is downgraded by the budget and the admin gate only": Difference(
        fields=("budget_downgrades",),
        kernel="looks at the frame's response mode for invocations, but not for streams",
        right="ours",
        why="the consumer got a stricter mode than it asked for",
        reproduce=_only(Stream(mode="table", firewall="stricter"), Invoke(firewall="stricter")),
        shows={"budget_downgrades": (1, 2)},
        excess=_stream_downgraded,
    ),
    "a refusal by an exception of the app's is none": Difference(
        fields=("denials", "denials_by_reason"),
        kernel="knows PolicyDenied only",
        right="both",
        why="an exception that gives a reason code is a refusal to us, wherever it comes from",
        reproduce=_only(Grant(decision="foreign")),
        shows={"denials": (0, 1), "denials_by_reason": ({}, {"own_refusal": 1})},
        excess=_denied_otherwise("own_refusal"),
    ),
    "a refusal by the token provider is none": Difference(
        fields=("denials", "denials_by_reason"),
        kernel="counts what the policy engine raises, and not what the token provider does",
        right="ours",
        why="the caller saw PolicyDenied",
        reproduce=_only(Grant(issuing_refused=True)),
        shows={"denials": (0, 1), "denials_by_reason": ({}, {"too_many_tokens": 1})},
        excess=_denied_otherwise("too_many_tokens"),
    ),
    "what an invocation did is counted before it ends": Difference(
        fields=("handle_stores", "denials"),
        kernel="counts a stored handle at once",
        right="both",
        why="ours counts an operation with all that it came to, when it ends: a snapshot never "
        "has half of one, and a reset meanwhile leaves all of it to what comes after",
        reproduce=_reset_amid_an_invocation,
        shows={"handle_stores": (0, 1), "invocations": (1, 1)},
    ),
    "a stream whose loop is closed is never counted": Difference(
        fields=("invocations",),
        kernel="counts where its generator is closed, which a loop that is gone never does",
        right="ours",
        why="a frame was handed out",
        reproduce=_loop_closed_over_a_stream,
        shows={"invocations": (0, 1)},
    ),
    "reasons are told apart without limit": Difference(
        fields=("denials_by_reason",),
        kernel="keeps every reason code that it has seen",
        right="both",
        why="ours are also exported: past 100 codes that are not the kernel's own they are one",
        reproduce=_many_reasons,
        shows={
            "denials_by_reason": (
                {f"reason_{number}": 1 for number in range(101)},
                {**{f"reason_{number}": 1 for number in range(100)}, "_OTHER": 1},
            )
        },
    ),
}


def excess_of(seen: Seen) -> Excess:
    """By how much ours are more than the kernel's after an operation, all in all."""
    total: Excess = Counter()
    for difference in DIFFERENCES.values():
        if difference.excess is not None:
            total.update(difference.excess(seen))
    return total
