# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts itself (weaver-kernel 0.12 on) is what we count, but for what is known."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent_kernel_otel import instrument_kernel, kernel_stats, uninstrument_kernel
from tests.stats.differences import DIFFERENCES, FIELDS, Excess, excess_of
from tests.stats.world import Expand, Grant, Invoke, Operation, Reset, Spend, Stream, World
from tests.support.capture import Capture
from tests.support.counting import begin_anew

MODES = st.sampled_from(["summary", "table", "raw", "handle_only"])
OPERATIONS = st.one_of(
    st.builds(
        Grant,
        writes=st.booleans(),
        writer=st.booleans(),
        justification=st.sampled_from(["needed for the weekly report", "x"]),
        decision=st.sampled_from(
            ["usual", "usual", "own code", "no code", "foreign", "crash", "not enforced"]
        ),
        issuing_refused=st.booleans(),
    ),
    st.builds(
        Invoke,
        attempts=st.lists(st.sampled_from(["answer", "fail", "crash", "hang"]), max_size=3).map(
            tuple
        ),
        data=st.sampled_from(["plain", "secret", "long"]),
        mode=MODES,
        admin=st.booleans(),
        token=st.sampled_from(
            ["good", "good", "good", "revoked", "expired", "foreign", "unknown", "bad deadline"]
        ),
        dry_run=st.booleans(),
        audit_fails=st.booleans(),
        firewall=st.sampled_from(["usual", "usual", "crash", "refuse", "stricter"]),
        storing_fails=st.booleans(),
        stopped=st.sampled_from(["cancelled", "closed"]),
    ),
    st.builds(
        Stream,
        chunks=st.integers(0, 3),
        data=st.sampled_from(["plain", "secret", "long"]),
        mode=MODES,
        admin=st.booleans(),
        token=st.sampled_from(["good", "good", "revoked", "unknown", "bad deadline"]),
        then=st.sampled_from(["end", "fail", "refuse", "hang"]),
        close_after=st.none() | st.integers(0, 4),
        audit_fails=st.booleans(),
        firewall=st.sampled_from(["usual", "usual", "crash", "stricter"]),
        streams=st.booleans(),
    ),
    st.builds(Expand, by_owner=st.booleans(), gone=st.booleans(), audit_fails=st.booleans()),
    st.builds(Spend, percent=st.sampled_from([0, 55, 85, 97, 100])),
    st.just(Reset()),
)


def counted(source: Any) -> Counter[str]:
    """The fields that both have."""
    numbers = Counter({name: getattr(source, name) for name in FIELDS})
    for code, number in source.denials_by_reason.items():
        numbers[f"denials_by_reason:{code}"] = number
    return +numbers


async def agree(operations: list[Operation], **settings: Any) -> None:
    """Do it all on one kernel, and compare after each."""
    world = World()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the kernel's own faults
    instrument_kernel(world.kernel, **settings)
    ours = kernel_stats(world.kernel)
    excess: Excess = Counter()
    for operation in operations:
        seen = await world.do(operation)
        if isinstance(operation, Reset):
            ours.reset()
            excess.clear()
        excess.update(excess_of(seen))
        snapshot = ours.snapshot()
        expected = counted(world.kernel.stats)
        expected.update(excess)
        assert counted(snapshot) == +expected, f"after {operation}, which raised {seen.error!r}"
        assert snapshot.invocations_active == 0
    uninstrument_kernel(world.kernel)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(operations=st.lists(OPERATIONS, max_size=20), traced=st.booleans())
@example(operations=[Grant(), Invoke(), Stream(), Expand(), Reset(), Invoke()], traced=True)
def test_the_kernels_own_counters_agree(operations: list[Operation], traced: bool) -> None:
    begin_anew()
    asyncio.run(agree(operations, **(Capture().providers if traced else {})))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_known_difference_is_there(name: str) -> None:
    difference = DIFFERENCES[name]
    world = World()
    instrument_kernel(world.kernel)

    async def reproduce() -> None:
        await difference.reproduce(world)

    asyncio.run(reproduce())
    theirs, ours = world.kernel.stats, kernel_stats(world.kernel).snapshot()
    shown = {name: (getattr(theirs, name), getattr(ours, name)) for name in difference.shows}
    assert shown == difference.shows
    differing = {name for name, (kernel, our) in shown.items() if kernel != our}
    assert differing
    assert differing <= set(difference.fields)


def test_the_fields_that_both_have_are_all_of_the_kernels() -> None:
    theirs = vars(type(World().kernel.stats))["__slots__"]
    assert set(theirs) == {*FIELDS, "denials_by_reason"}
