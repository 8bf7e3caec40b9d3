# SPDX-License-Identifier: Apache-2.0
"""The world of the simulation is as wild as it is meant to be, and gives the same every time."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.faults import CHANCES, DRIVER_FAULTS, FAULTS
from tests.simulation.model import Model
from tests.simulation.process import play_bare
from tests.simulation.seed import plan_of
from tests.simulation.told import Told
from tests.simulation.world import World

OPERATIONS = 4_000


@pytest.fixture(scope="module")
def world() -> World:
    return play_bare(plan_of(2, OPERATIONS))


@pytest.fixture(scope="module")
def told(world: World) -> dict[int, Told]:
    model = Model(world.plan.kernels, debug=False)
    return {number: model.told(run) for number, run in world.runs.items()}


def test_every_operation_is_performed(world: World) -> None:
    missing = {op.number for op in world.plan.ops} - world.runs.keys()
    # A nested one is performed by a driver, which may not be reached.
    assert all(number > 10_000_000 for number in missing)
    assert len(world.runs) >= OPERATIONS


@pytest.mark.parametrize("fault", [*FAULTS, *DRIVER_FAULTS, *CHANCES])
def test_every_fault_is_planned(fault: str, world: World) -> None:
    assert world.plan.injector.drawn[fault] > 0


def test_every_exception_is_seen_by_the_application(world: World) -> None:
    seen = Counter(run.failure.kind for run in world.runs.values() if run.failure)
    assert seen.keys() >= {
        "PolicyDenied", "VendorRefusal", "TokenExpired", "TokenInvalid", "TokenRevoked",
        "TokenScopeError", "CapabilityNotFound", "DriverError", "BudgetExhausted", "OSError",
        "HandleNotFound", "HandleExpired", "HandleConstraintViolation", "HandleTooLarge",
        "RuntimeError", "LookupError", "ValueError", "SimCrash", "CancelledError", "ThrownIn",
        "TypeError",
    }  # fmt: skip


def test_all_that_is_counted_comes_to_pass(told: dict[int, Told]) -> None:
    counted: Counter[str] = Counter()
    for each in told.values():
        for series, number in each.counts.items():
            counted[str(series[0]).removeprefix("agent_kernel.")] += number
            if series[0] in {"agent_kernel.handles_evicted", "agent_kernel.downgrades"}:
                counted[str(series[-1])] += number
    assert counted.keys() >= {
        "invocations", "grants", "policy_denials", "driver_attempts", "fallbacks", "redactions",
        "downgrades", "admin_gate", "budget", "firewall", "dry_runs", "budget_exhaustions",
        "handles_stored", "handles_expanded", "handles_evicted", "expired", "capacity", "bytes",
        "audit_records", "audit_failures", "audit_evictions", "unsampled_operations",
    }  # fmt: skip


def test_streams_end_in_every_way(told: dict[int, Told]) -> None:
    ends = {each.root.attributes.get("agent_kernel.stream_end") for each in told.values()
            if each.root is not None}  # fmt: skip
    assert ends == {None, "exhausted", "closed", "abandoned", "cancelled", "failed"}


def test_durations_are_on_bounds_and_on_both_sides_of_them(told: dict[int, Told]) -> None:
    values = {value for each in told.values() for _, _, value in each.observations}
    assert values >= {1.0, 0.999999, 1.000001, 100.0, 99.999999, 100.000001}


def test_a_seed_means_the_same_every_time(world: World) -> None:
    again = play_bare(plan_of(2, OPERATIONS))
    assert again.runs.keys() == world.runs.keys()
    for number, run in world.runs.items():
        assert again.runs[number].seen_by_app() == run.seen_by_app()
