# SPDX-License-Identifier: Apache-2.0
"""What truly came to pass in an operation, written down by the world and not by the product."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from weaver_kernel import (
    HandleConstraintViolation,
    PolicyDenied,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    TokenScopeError,
)

from tests.simulation.plan import Op

_DENIALS = (
    PolicyDenied, TokenExpired, TokenInvalid, TokenRevoked, TokenScopeError,
    HandleConstraintViolation,
)  # fmt: skip


class Failure(NamedTuple):
    """An exception, as the application can tell it from others.

    Attributes:
        kind: Its class.
        module: Where that class is from.
        text: Its text.
        reason_code: The code that it holds.
        status: What it means for the operation whose caller sees it.
        injected: Which of the exceptions that the world made for this operation it is.
        cause: The same of what it was raised from or during, outermost first.
    """

    kind: str
    module: str
    text: str
    reason_code: str | None
    status: str
    injected: int | None
    cause: tuple[tuple[str, str], ...]


def failure_of(error: BaseException, injected: list[BaseException]) -> Failure:
    """Describe an exception."""
    code = getattr(error, "reason_code", None)
    code = str(getattr(code, "value", code)) if isinstance(code, str) and code else None
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        status = "cancelled"
    elif code is not None or isinstance(error, _DENIALS):
        status = "denied"
    else:
        status = "error"
    chain: list[tuple[str, str]] = []
    before = error.__cause__ or error.__context__
    while before is not None and len(chain) < 5:
        chain.append((type(before).__qualname__, str(before)))
        before = before.__cause__ or before.__context__
    same = [number for number, each in enumerate(injected) if each is error]
    kind = type(error)
    return Failure(
        kind.__qualname__, kind.__module__, str(error), code, status,
        same[0] if same else None, tuple(chain),
    )  # fmt: skip


class Entry(NamedTuple):
    """One thing that a collaborator of the kernel was asked, and what came of it.

    Attributes:
        what: Which collaborator, or which part of the operation.
        at: When, in nanoseconds of the monotonic clock.
        said: What it answered, as plain values.
        failure: What it raised.
        took: How long it took, in nanoseconds.
    """

    what: str
    at: int
    said: tuple[Any, ...] = ()
    failure: Failure | None = None
    took: int = 0


@dataclass
class Run:
    """One operation as it came to pass.

    Attributes:
        op: What was planned.
        kernel: Name of the kernel that it ran on, its incarnation included.
        injected: Exceptions that the world made for it.
        entries: What its collaborators saw, in order.
        facts: What the caller knows besides: the capability, the token's kind, and so on.
        result: What it returned, as text.
        failure: What it raised.
        leaks: Context variables that it left changed, by name.
        began: When its call began.
        ended: When its call was over.
    """

    op: Op
    kernel: str = ""
    injected: list[BaseException] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    result: str | None = None
    failure: Failure | None = None
    leaks: list[str] = field(default_factory=list)
    began: int = 0
    ended: int = 0
    asked: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> int:
        """How often something was asked before, this time not included."""
        before = self.asked.get(what, 0)
        self.asked[what] = before + 1
        return before

    def of(self, what: str) -> list[Entry]:
        """The entries of one collaborator."""
        return [entry for entry in self.entries if entry.what == what]

    def seen_by_app(self) -> tuple[Any, ...]:
        """All that an application or its collaborators can see of the operation."""
        entries: list[Any] = list(self.entries)
        if self.op.kind == "stream":
            # The event loop closes what a stream leaves behind, in an order of its own.
            entries.sort(key=repr)
        return (self.kernel, self.result, self.failure, self.began, self.ended, entries)


current: ContextVar[Run | None] = ContextVar("simulation.run", default=None)
"""The operation that the running task performs."""
