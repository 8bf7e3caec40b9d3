# SPDX-License-Identifier: Apache-2.0
"""The kinds of panels that dashboards are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent_kernel_otel.dashboards.model import GRID_WIDTH, Colour, Panel

if TYPE_CHECKING:
    from agent_kernel_otel.dashboards.promql import Expression

SHARE_INTERVAL: Final = "5m"
"""A share needs some events, and so some time for each point."""
TOO_FEW: Final = "too few to tell"
NONE_YET: Final = "none"
DEBUG: Final = "Needs `metrics_level=debug`."
FIRST_COUNTS: Final = (
    "A series begins with the first event of its kind, which no rate can see; here it counts, too."
)


def above(orange: float, red: float) -> tuple[tuple[float, Colour], ...]:
    """Steps of what should be low."""
    return ((orange, "orange"), (red, "red"))


def red_above(value: float) -> tuple[tuple[float, Colour], ...]:
    """The step of what should stay below a value."""
    return ((value, "red"),)


def lines(
    title: str,
    *expressions: Expression,
    shows: str,
    advice: str,
    steps: tuple[tuple[float, Colour], ...] = (),
    width: int = 12,
    empty: str | None = None,
) -> Panel:
    """Values over time."""
    first = expressions[0]
    return Panel(
        title,
        "timeseries",
        expressions,
        shows,
        advice,
        steps,
        first.unit,
        width,
        interval=SHARE_INTERVAL if first.guarded else None,
        empty=empty or (TOO_FEW if first.guarded else None),
    )


def number(
    title: str,
    expression: Expression,
    *,
    shows: str,
    advice: str,
    steps: tuple[tuple[float, Colour], ...] = (),
    width: int = 4,
    empty: str | None = None,
) -> Panel:
    """One value, of now or of all that is shown."""
    empty = empty or (TOO_FEW if expression.guarded else None)
    return Panel(
        title,
        "stat",
        (expression,),
        shows,
        advice,
        steps,
        expression.unit,
        width,
        height=4,
        empty=empty,
    )


def bars(
    title: str,
    expression: Expression,
    *,
    shows: str,
    advice: str,
    steps: tuple[tuple[float, Colour], ...] = (),
    width: int = 12,
    empty: str | None = None,
) -> Panel:
    """Values of now beside each other."""
    unit = expression.unit
    return Panel(title, "bargauge", (expression,), shows, advice, steps, unit, width, empty=empty)


def table(
    title: str,
    *columns: Expression,
    shows: str,
    advice: str,
    width: int = GRID_WIDTH,
) -> Panel:
    """A line for each set of attributes; each column is a query that says its name."""
    return Panel(title, "table", columns, shows, advice, width=width, empty=NONE_YET)
