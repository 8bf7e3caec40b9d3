# SPDX-License-Identifier: Apache-2.0
"""What a dashboard is, before it is Grafana's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent_kernel_otel.dashboards.promql import Expression

Kind = Literal["timeseries", "stat", "bargauge", "table"]
Colour = Literal["green", "orange", "red", "blue"]

GRID_WIDTH: Final = 24


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: Its title.
        kind: How it is drawn.
        expressions: Its queries; of a table the columns after those of the attributes.
        shows: What it shows.
        advice: What to do when it is red, or looks wrong.
        steps: Values from which on it has a colour; below the first it is green.
        unit: Grafana's name of the unit of its values.
        width: How much of the grid's 24 columns it takes.
        height: Its height, in the grid's rows.
        interval: The least time between two points, and so the least window of a rate.
        empty: What a panel without data says.
    """

    title: str
    kind: Kind
    expressions: tuple[Expression, ...]
    shows: str
    advice: str
    steps: tuple[tuple[float, Colour], ...] = ()
    unit: str = "short"
    width: int = 12
    height: int = 8
    interval: str | None = None
    empty: str | None = None

    @property
    def description(self) -> str:
        """What its reader is told, in Markdown."""
        red = any(colour == "red" for _, colour in self.steps)
        when = "When it is red" if red else "When it looks wrong"
        return f"{self.shows}\n\n**{when}:** {self.advice}"


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """What a viewer chooses.

    Attributes:
        name: Its name in queries.
        label: Its name for the viewer.
        query: Which values there are; of one without a query the viewer writes it.
    """

    name: str
    label: str
    query: str = ""


@dataclass(frozen=True)
class Dashboard:
    """One dashboard.

    Attributes:
        name: The name of its file; with a prefix its id in Grafana.
        title: Its title.
        description: What it answers.
        tags: The kernel that it is about, and the like.
        variables: What a viewer chooses, besides the data source.
        rows: Its panels.
        search: Attributes of spans whose traces it links to, by the variable that has the value.
    """

    name: str
    title: str
    description: str
    tags: tuple[str, ...]
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    search: Mapping[str, str] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """Its id in Grafana, which links to it keep."""
        return f"agent-kernel-{self.name}"
