# SPDX-License-Identifier: Apache-2.0
"""The kernels of one seed, and the application that uses them."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weaver_kernel import Capability, CapabilityRegistry, Kernel, Principal, SafetyClass
from weaver_kernel.models import SensitivityTag  # type: ignore[attr-defined]

from tests.simulation.clock import Deadlock, SimClock, SimLoop
from tests.simulation.collaborators import (
    Witness,
    make_budget,
    make_engine,
    make_firewall,
    make_handle_store,
    make_provider,
    make_router,
    make_trace_store,
)
from tests.simulation.drivers import MAKES, Behaviour
from tests.simulation.journal import Run, current
from tests.simulation.operations import Operations
from tests.simulation.plan import CAPABILITIES, KernelPlan, Op, Plan, Round

PEOPLE = (
    Principal("reader", roles=["reader"]),
    Principal("writer", roles=["reader", "writer"]),
    Principal("admin", roles=["reader", "writer", "admin"]),
    Principal("nobody"),
    Principal("tenant", roles=["reader", "pii_reader"], attributes={"tenant": "t1"}),
    Principal("service", roles=["reader", "writer", "service"]),
)
SAFETY = (SafetyClass.READ, SafetyClass.WRITE, SafetyClass.DESTRUCTIVE, SafetyClass.READ)
SENSITIVITY = (SensitivityTag.NONE, SensitivityTag.NONE, SensitivityTag.PII, SensitivityTag.NONE)


_PATIENCE = 30
"""Rounds after which a kernel whose budget is spent is replaced."""


@dataclass
class Site:
    """One kernel, what it is made of, and what came out of it.

    Attributes:
        name: Its name, with the number of its incarnation.
        issue: Makes tokens without anybody's being asked.
        tokens: What it granted, and whom to.
        handles: What it gave out, and to whom.
        rounds_without_budget: For how long its budget has been spent.
    """

    name: str
    plan: KernelPlan
    kernel: Any
    provider: Any
    budget: Any
    issue: Callable[..., Any]
    tokens: list[tuple[Any, int]] = field(default_factory=list)
    handles: list[tuple[Any, int]] = field(default_factory=list)
    rounds_without_budget: int = 0


class World:
    """Plays a plan.

    Args:
        plan: What to play.
        clock: The time in which it plays.
        on_event: Told of what comes to pass and is not the world's own affair.

    Attributes:
        runs: What came to pass in each operation, by number.
        sites: The kernels.
        running: How many invocations run that somebody waits for.
        lingering: How many streams were dropped, and perhaps not yet closed.
    """

    def __init__(
        self, plan: Plan, clock: SimClock, on_event: Callable[[str, Any], None] | None = None
    ) -> None:
        self.plan = plan
        self.clock = clock
        self.runs: dict[int, Run] = {}
        self.sites: list[Site] = []
        self.retired: list[str] = []
        self.running = 0
        self.lingering = 0
        self._on_event = on_event or (lambda _what, _site: None)
        self._witness = Witness(clock, self._run_of)
        self._behaviour = Behaviour(
            clock,
            lambda ctx: self.runs[ctx.args["op"]],
            self._on_event,
            self._perform,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="simulation-")
        self._incarnations = 0
        self._operations = Operations(self)
        for number in range(len(plan.kernels)):
            self.sites.append(self._build(number))

    def _run_of(self, place: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
        if place == "record":
            # A stream that was left is closed by the event loop, in anybody's context.
            number = args[0].args.get("op")
            if number is not None:
                return self.runs[number]
        run = current.get()
        assert run is not None, f"{place} was asked outside any operation"
        return run

    def _build(self, number: int) -> Site:
        plan, witness = self.plan.kernels[number], self._witness
        own = plan.own_classes
        self._incarnations += 1
        folder = Path(self._folder.name) / str(self._incarnations)
        folder.mkdir()
        registry = CapabilityRegistry()
        for each, capability in enumerate(CAPABILITIES):
            registry.register(
                Capability(
                    capability, capability, "does it", SAFETY[each % len(SAFETY)],
                    SENSITIVITY[each % 3], allowed_fields=["id"] if each == 2 else [],
                )
            )  # fmt: skip
        provider, issue = make_provider(witness, own=own)
        shared = plan.shares_budget_with
        budget = self.sites[shared].budget if shared is not None and shared < number else None
        if budget is None and plan.budget is not None:
            budget = make_budget(witness, plan.budget, own=own)
        stores = self._stores(number, folder)
        kernel = Kernel(
            registry,
            policy=make_engine(plan.engine, witness),
            token_provider=provider,
            router=make_router(witness, plan.routes, own=own),
            firewall=make_firewall(witness, own=own),
            handle_store=stores[0],
            trace_store=stores[1],
            budget_manager=budget,
            kernel_id=plan.name,
        )
        for driver_id in plan.drivers:
            make = MAKES[driver_id.partition("-")[0]]
            kernel.register_driver(make(driver_id, self._behaviour))
        name = f"{plan.name}#{self._incarnations}"
        site = Site(name, plan, kernel, provider, budget, issue)
        self._on_event("made", site)
        return site

    def _stores(self, number: int, folder: Path) -> tuple[Any, Any]:
        """A handle store and a trace store, which may be another kernel's too."""
        plan, witness = self.plan.kernels[number], self._witness
        shared = plan.shares_stores_with
        if shared is not None and shared < len(self.sites):
            owner = vars(self.sites[shared].kernel)
            return owner["_handle_store"], owner["_trace_store"]
        own = plan.own_classes
        handles = make_handle_store(witness, plan.max_handles, plan.max_bytes, own=own)
        return handles, make_trace_store(plan.traces, witness, folder)

    def leave_behind(self) -> None:
        """Begin operations that wait for ever, and close their event loop under them."""
        loop = SimLoop(self.clock)
        loop.set_exception_handler(lambda _loop, _context: None)
        tasks = [loop.create_task(self._perform(op)) for op in self.plan.orphans]
        with suppress(Deadlock):
            loop.run_until_complete(asyncio.wait(tasks))
        # One of the kernels goes as well, and may be collected before what runs on it.
        self._happens("retire", self.plan.orphans[0].kernel)
        loop.close()
        del tasks
        gc.collect()

    # Playing --------------------------------------------------------------------------------

    async def play(self) -> None:
        """Play all rounds."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        for number, each in enumerate(self.plan.rounds):
            for event, detail in each.events:
                self._happens(event, detail)
            await self._play_round(each)
            if number % 1000 == 0:
                gc.collect(1)

    def _happens(self, event: str, detail: int) -> None:
        if event == "jump":
            self.clock.jump(detail)
        elif event == "retire":
            site = self.sites[detail]
            self.retired.append(site.name)
            self._on_event("retired", site)
            self.sites[detail] = self._build(detail)
        elif event == "reset one":
            self._on_event(event, self.sites[detail])
        else:
            self._on_event(event, None)

    async def _play_round(self, each: Round) -> None:
        tasks = [asyncio.create_task(self._perform(op)) for op in each.ops]
        await asyncio.gather(*tasks)
        # Streams that were dropped are closed by the event loop in the turns that follow.
        for _ in range(12):
            await asyncio.sleep(0)
        self.lingering = 0
        for op in each.ops:
            self._let_go(op)
        for number, site in enumerate(self.sites):
            if site.budget is not None and not site.budget.remaining:
                site.rounds_without_budget += 1
                if site.rounds_without_budget > _PATIENCE:
                    self._happens("retire", number)
        self._on_event("round", each)

    def _let_go(self, op: Op) -> None:
        """Keep no exception's frames: they hold kernels and streams, which are to be collected."""
        for each in op.all():
            for error in self.runs[each.number].injected if each.number in self.runs else ():
                raised: BaseException | None = error
                while raised is not None:
                    raised.__traceback__ = None
                    raised = raised.__context__

    async def _perform(self, op: Op) -> None:
        site = self.sites[op.kernel]
        run = Run(op, site.name)
        self.runs[op.number] = run
        outer = current.set(run)
        with self._operations.surroundings(op):
            before = dict(copy_context().items())
            await self._operations.perform(run, site)
            after = dict(copy_context().items())
        run.leaks = [
            variable.name
            for variable in {**before, **after}
            if before.get(variable) is not after.get(variable)
        ]
        with suppress(ValueError):  # a task that is destroyed has lost its context
            current.reset(outer)

    def close(self) -> None:
        """Remove what the world wrote."""
        self._folder.cleanup()
