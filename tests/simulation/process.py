# SPDX-License-Identifier: Apache-2.0
"""A run of a plan in which nothing is instrumented."""

from __future__ import annotations

import gc
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

from tests.simulation.clock import SimClock, SimLoop, simulated_time
from tests.simulation.plan import Plan
from tests.simulation.world import World


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines that a thousand faults write, and without collecting garbage."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        logging.disable(disabled)
        if collecting:
            gc.enable()


def play(world: World, clock: SimClock) -> None:
    """Play a world to its end, in an event loop of its own, and then what has no proper end."""
    loop = SimLoop(clock)
    try:
        loop.run_until_complete(world.play())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    world.leave_behind()


def play_bare(plan: Plan) -> World:
    """What the application sees where nothing is instrumented."""
    clock = SimClock()
    with quiet(), simulated_time(clock, random.Random(plan.seed)):
        world = World(plan, clock)
        try:
            play(world, clock)
        finally:
            world.close()
    return world
