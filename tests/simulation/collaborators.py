# SPDX-License-Identifier: Apache-2.0
"""Policy engines, stores, firewalls and the like that meet with faults and write down what they did.

Most are the kernel's own objects with one method replaced on the instance; some are subclasses of
the application's, which the product has to treat with more care.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from weaver_kernel import (
    BudgetManager,
    DefaultPolicyEngine,
    Firewall,
    Handle,
    HandleStore,
    HMACTokenProvider,
    SafetyClass,
    StaticRouter,
)
from weaver_kernel.models import PolicyDecision
from weaver_kernel.policy_dsl import DeclarativePolicyEngine
from weaver_kernel.trace import TraceStore

from tests.simulation.clock import SimClock
from tests.simulation.faults import exception_of
from tests.simulation.journal import Entry, Run, failure_of

RunOf = Callable[[str, tuple[Any, ...], dict[str, Any]], Run]
Say = Callable[[Any], tuple[Any, ...]]


class Witness:
    """Makes collaborators tell what they were asked, and meet with the faults of the plan.

    Args:
        clock: The world's clock.
        run_of: Finds the operation that a collaborator is asked for.
    """

    def __init__(self, clock: SimClock, run_of: RunOf) -> None:
        self.clock = clock
        self.run_of = run_of

    def strike(self, run: Run, place: str) -> None:
        """Raise what the plan has for this place, if it has anything."""
        fault = run.op.faults.get(place)
        wanted = run.op.choices.get("fault_at", 0) if place == "transform" else 0
        if run.count(place) != wanted or fault is None:
            return
        error = exception_of(fault)
        run.injected.append(error)
        raise error

    def work(self, run: Run, place: str) -> int:
        """Take the time that the plan has for this place."""
        took = run.op.work.get(place, 0)
        self.clock.pass_by(took)
        return took

    def note(
        self,
        run: Run,
        what: str,
        *said: Any,
        error: BaseException | None = None,
        took: int = 0,
    ) -> None:
        """Write an entry."""
        failure = None if error is None else failure_of(error, run.injected)
        run.entries.append(Entry(what, self.clock.now, said, failure, took))

    def watch(
        self,
        target: Any,
        method: str,
        place: str,
        say: Say,
        around: Callable[..., Any] | None = None,
        asked: Callable[..., tuple[Any, ...]] = lambda *_args, **_kwargs: (),
        spared: str = "none",
    ) -> None:
        """Replace a method on one object by one that tells, and fails where it is planned.

        Args:
            target: The object.
            method: The method.
            place: Where that is, in the names of faults and entries.
            say: What to write down of a result.
            around: Called with the run, the original and its arguments in place of the original.
            asked: What to write down of the arguments where it fails.
            spared: Faults whose names begin so do not befall it.
        """
        original = getattr(target, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            run = self.run_of(place, args, kwargs)
            took = self.work(run, place)
            try:
                if not run.op.faults.get(place, "").startswith(spared):
                    self.strike(run, place)
                if around is None:
                    result = original(*args, **kwargs)
                else:
                    result = around(run, original, *args, **kwargs)
            except BaseException as error:
                self.note(run, place, *asked(*args, **kwargs), error=error, took=took)
                raise
            self.note(run, place, *say(result), took=took)
            return result

        setattr(target, method, watched)


def decision_said(decision: Any) -> tuple[Any, ...]:
    """Of a policy decision: whether it allows, its code, and the rule that it names."""
    steps = decision.trace.steps if decision.trace else []
    rules = [step.name[5:] for step in steps if step.name[:5] == "rule:"]
    allowed = [step for step in steps if step.outcome == "allowed"]
    rule = rules[-1] if rules and allowed and allowed[-1].name[:5] == "rule:" else None
    return (decision.allowed, decision.reason_code and str(decision.reason_code), rule)


class ScriptedEngine:
    """An application's own policy engine, which allows what no fault forbids."""

    __slots__ = ("evaluate",)

    def __init__(self) -> None:
        self.evaluate: Any = self._evaluate

    def _evaluate(
        self, request: Any, capability: Any, principal: Any, *, justification: str
    ) -> Any:
        return PolicyDecision(True, reason="scripted", constraints=dict(request.constraints))


RULES: dict[str, Any] = {
    "default": "deny",
    "rules": [
        {"name": "no-destroy", "match": {"safety_class": ["DESTRUCTIVE"]}, "action": "deny",
         "reason": "never"},
        {"name": "admins", "match": {"roles": ["admin"]}, "action": "allow"},
        {"name": "readers", "match": {"safety_class": ["READ"], "roles": ["reader"]},
         "action": "allow"},
    ],
}  # fmt: skip
DENYING_RULE = "no-destroy"


def make_engine(kind: str, witness: Witness) -> Any:
    """A policy engine: the default one, a declarative one, or the application's own."""

    def around(run: Run, original: Any, *args: Any, **kwargs: Any) -> Any:
        if "policy.returns_denied" in run.op.chances:
            return PolicyDecision(False, reason="no", constraints={}, reason_code="sim_returned")
        return original(*args, **kwargs)

    if kind == "declarative":
        return _declarative_engine(witness, around)
    engine: Any
    if kind == "default":
        limits = {SafetyClass.READ: (300, 1.0), SafetyClass.WRITE: (100, 1.0)}
        engine = DefaultPolicyEngine(rate_limits=limits, clock=witness.clock.monotonic)
    else:
        engine = ScriptedEngine()
    witness.watch(engine, "evaluate", "policy", decision_said, around)
    return engine


def _declarative_engine(witness: Witness, around: Any) -> Any:
    inner = DeclarativePolicyEngine.from_dict(RULES)
    inner_any: Any = inner
    # It passes for the kernel's own, which knows no codes of others.
    witness.watch(inner_any, "evaluate", "policy", decision_said, around, spared="policy.denies")
    told = inner_any.evaluate

    class Engine(DeclarativePolicyEngine):
        explaining = False

        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            if self.explaining:
                return super().evaluate(*args, **kwargs)
            return told(*args, **kwargs)

        def explain(self, *args: Any, **kwargs: Any) -> Any:
            # The kernel's explain() asks evaluate(), which then decides nothing.
            self.explaining = True
            try:
                return super().explain(*args, **kwargs)
            finally:
                self.explaining = False

    _pass_for(Engine, DeclarativePolicyEngine)
    return Engine.from_dict(RULES)


def _pass_for(kind: type, kernels_own: type) -> None:
    """Let a class pass for the kernel's own, where its instances cannot be changed."""
    kind.__name__ = kind.__qualname__ = kernels_own.__name__
    kind.__module__ = kernels_own.__module__


class AppFirewall(Firewall):
    """An application's firewall."""


class AppHandleStore(HandleStore):
    """An application's handle store."""


class AppRouter(StaticRouter):
    """An application's router."""


class AppTokenProvider(HMACTokenProvider):
    """An application's token provider."""


class AppTraces:
    """An application's trace store, which keeps little."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def record(self, trace: Any) -> None:
        self.records.append(trace)

    def get(self, action_id: str) -> Any:
        return next(each for each in self.records if each.action_id == action_id)

    def list_all(self) -> list[Any]:
        return list(self.records)


def make_firewall(witness: Witness, *, own: bool) -> Any:
    """A firewall."""

    def around(run: Run, original: Any, *args: Any, **kwargs: Any) -> Any:
        asked = kwargs["response_mode"]
        if "transform.stricter" in run.op.chances:
            kwargs["response_mode"] = "handle_only"
        return asked, original(*args, **kwargs)

    firewall: Any = Firewall() if own else AppFirewall()
    witness.watch(
        firewall,
        "transform",
        "transform",
        _frame_said,
        around,
        lambda *_args, **kwargs: (kwargs["response_mode"],),
    )
    told = firewall.transform
    firewall.transform = lambda *args, **kwargs: told(*args, **kwargs)[1]
    return firewall


def _frame_said(result: Any) -> tuple[Any, ...]:
    asked, frame = result
    return (asked, frame.response_mode, redactions_of(frame))


def redactions_of(frame: Any) -> int:
    """Warnings of a frame less the two notices about raw mode."""
    notices = ("raw mode requires admin role", "raw output (")
    return sum(not str(warning).startswith(notices) for warning in frame.warnings)


def make_router(witness: Witness, routes: Any, *, own: bool) -> Any:
    """A router."""
    table = {capability: list(drivers) for capability, drivers in routes.items()}
    router = (StaticRouter if own else AppRouter)(table)
    witness.watch(router, "route", "route", lambda plan: tuple(plan.driver_ids))
    return router


def make_provider(witness: Witness, *, own: bool) -> tuple[Any, Any]:
    """A token provider, and its method to issue tokens that nobody watches."""
    provider = (HMACTokenProvider if own else AppTokenProvider)(secret="simulation")
    issue = provider.issue
    witness.watch(provider, "verify", "verify", lambda _: ())
    witness.watch(provider, "issue", "issue", lambda token: (token.token_id,))
    return provider, issue


def make_handle_store(
    witness: Witness, max_handles: int | None, max_bytes: int | None, *, own: bool
) -> Any:
    """A handle store that writes down what it evicts, and why."""
    kind = HandleStore if own else AppHandleStore
    store: Any = kind(max_entries=max_handles or 10_000, max_total_bytes=max_bytes)

    def around(run: Run, original: Any, *args: Any, **kwargs: Any) -> Any:
        before, now = dict(store._meta), witness.clock.utc()
        try:
            result = original(*args, **kwargs)
            if isinstance(result, Handle):
                # Where the wall clock went back, a new one can be the oldest.
                before[result.handle_id] = result
            return result
        finally:
            gone = [handle for key, handle in before.items() if key not in store._meta]
            for handle in gone:
                full = "capacity" if max_handles else "bytes"
                witness.note(run, "evicted", "expired" if handle.expires_at <= now else full)

    witness.watch(store, "store", "store", lambda handle: (handle.handle_id,), around)
    witness.watch(store, "expand", "expand", lambda frame: (frame.response_mode,), around)
    return store


def make_trace_store(kind: str, witness: Witness, folder: Any) -> Any:
    """A trace store."""
    store: Any
    if kind == "jsonl":
        from weaver_kernel.stores import JsonlTraceStore

        store = JsonlTraceStore(folder / "traces.jsonl", secret="simulation")
    elif kind == "foreign":
        store = AppTraces()
    else:
        store = TraceStore(max_entries=50 if kind == "small" else 10_000)

    def around(run: Run, original: Any, trace: Any) -> Any:
        evicted = getattr(store, "evicted_count", 0)
        original(trace)
        return trace, getattr(store, "evicted_count", 0) - evicted

    witness.watch(
        store,
        "record",
        "record",
        lambda told: (told[0].event_type, told[1]),
        around,
        lambda trace: (trace.event_type, 0),
    )
    return store


def make_budget(witness: Witness, total: int, *, own: bool) -> Any:
    """A budget manager, which has slots and can be watched by its class alone."""

    class AppBudget(BudgetManager):
        def suggested_mode(self, requested: Any) -> Any:
            run = witness.run_of("suggest", (), {})
            try:
                witness.strike(run, "suggest")
                suggestion = super().suggested_mode(requested)
            except BaseException as error:
                witness.note(run, "suggest", error=error)
                raise
            witness.note(run, "suggest", requested, suggestion)
            return suggestion

        async def allocate(self, requested: int | None = None) -> int:
            run = witness.run_of("allocate", (), {})
            try:
                witness.strike(run, "allocate")
                if run.op.number % 3 == 0:
                    await asyncio.sleep(0)
                granted = await super().allocate(requested)
            except BaseException as error:
                witness.note(run, "allocate", error=error)
                raise
            witness.note(run, "allocate", granted)
            return granted

        def count_tokens(self, value: Any) -> int:
            run = witness.run_of("count", (), {})
            witness.strike(run, "count")
            return super().count_tokens(value)

    if own:
        _pass_for(AppBudget, BudgetManager)
    return AppBudget(total, default_request=300)
