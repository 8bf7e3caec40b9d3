# SPDX-License-Identifier: Apache-2.0
"""The dashboard of Kelpie, of what it really exports.

Its counters leave it as ``…_total_total``; here they have the names that the Collector gives them.
They are absent, and not 0, until the first event.
"""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.dashboards.model import Dashboard, Row, Variable
from agent_kernel_otel.dashboards.panels import above, lines, number, red_above, table
from agent_kernel_otel.dashboards.promql import (
    INSTANCE,
    JOB,
    STEP,
    current,
    highest,
    increase,
    mean,
    rate,
    resets,
    share,
    share_above,
    unanswered,
    variable_query,
)
from agent_kernel_otel.semconv import MetricDefinition

OPERATION: Final = "operation"
STATUS: Final = "status"

INVOCATIONS: Final = MetricDefinition(
    "kelpie.invocations", "counter", "", "Operations that ended.", (OPERATION, STATUS)
)
INVOCATION_DURATION: Final = MetricDefinition(
    "kelpie.invocation_duration",
    "histogram",
    "s",
    "Time in the handler.",
    (OPERATION,),
    bounds=(0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1_000, 2_500, 5_000, 7_500, 10_000),
)
AGENTS_ACTIVATED: Final = MetricDefinition(
    "kelpie.agents_activated", "counter", "", "Activations of actors.", ()
)
AGENTS_DEACTIVATED: Final = MetricDefinition(
    "kelpie.agents_deactivated", "counter", "", "Agents that were deleted.", ()
)
AGENTS_STORED: Final = MetricDefinition(
    "kelpie.agents_active_count", "gauge", "", "Agents in storage.", ()
)
UPTIME: Final = MetricDefinition("kelpie.server_uptime", "gauge", "s", "Time since the start.", ())
UP: Final = MetricDefinition("up", "gauge", "", "Whether the last scrape was answered.", ())

METRICS: Final = (
    INVOCATIONS,
    INVOCATION_DURATION,
    AGENTS_ACTIVATED,
    AGENTS_DEACTIVATED,
    AGENTS_STORED,
    UPTIME,
)
"""What Kelpie exports, the names of counters repaired."""

_BY: Final = (OPERATION,)
_BY_SERVER: Final = (JOB, INSTANCE)
_NONE_OR_FEW: Final = "none, or too few to tell"
"""Of a share whose part is absent until the first."""
_ERROR: Final = {STATUS: "error"}
_FORWARD_ERROR: Final = {STATUS: "forward_error"}
_MESSAGE: Final = {OPERATION: "handle_message_full"}
_TOOLS: Final = {OPERATION: "continue_with_tool_results"}
_SLOW: Final = 5

_NOW: Final = Row(
    "At a glance",
    (
        number(
            "Not answering",
            unanswered(UP, UPTIME),
            shows="Servers that did not answer the last scrape, of those that have, while this is shown.",
            advice="Kelpie is down or does not answer on its API port, whose `/metrics` is scraped. "
            "One malformed line on it makes a Collector lose the whole page without a word.",
            steps=red_above(1),
            empty="none known",
        ),
        number(
            "Up for",
            current(UPTIME, how="min"),
            shows="Time since the server that started last did.",
            advice="After a restart all counters are gone until the first event of their kind.",
        ),
        number(
            "Restarts",
            resets(UPTIME),
            shows="Restarts, over all that is shown.",
            advice="its log says why it ended. It ends without flushing: the last seconds of "
            "traces are lost.",
            steps=red_above(1),
        ),
        number(
            "Operations",
            rate(INVOCATIONS),
            shows="Operations that ended, a second. `/messages/stream` passes by the dispatcher: such turns "
            "are in no panel, failures included.",
            advice="At 0 while clients send messages, they use that route.",
            empty="none yet",
        ),
        number(
            "Loop in use",
            highest(rate(INVOCATION_DURATION, _BY_SERVER, part="sum")).in_unit("percentunit"),
            shows="Share of time in which the one loop that runs all operations of a server's agents is "
            "busy, on the busiest server.",
            advice="operations wait, and no metric says how long: the clients' spans do. Spread "
            "the agents over more servers: *Loop in use, by server* says from which.",
            steps=above(0.7, 0.9),
            empty="none yet",
        ),
        number(
            "Agents stored",
            current(AGENTS_STORED, how="max"),
            shows="Agents in storage; not those that are active, whatever its name says.",
            advice="A sudden 0 is storage that failed; the page is answered all the same.",
        ),
    ),
)

_WORK: Final = Row(
    "Operations",
    (
        lines(
            "Operations by kind",
            rate(INVOCATIONS, _BY),
            shows="A message is one `handle_message_full`, and a `continue_with_tool_results` for each round "
            "of tools.",
            advice="Many rounds to a message are an agent that goes round in circles.",
        ),
        lines(
            "Operations by status",
            rate(INVOCATIONS, (STATUS,)),
            shows="`forwarded` went to another node. Back-pressure and activations that fail are not here.",
            advice="`error`, `forward_error`: Kelpie's log has the reason.",
        ),
        lines(
            "Failed",
            share(
                increase(INVOCATIONS, _BY, _ERROR, over=STEP), increase(INVOCATIONS, _BY, over=STEP)
            ),
            shows="Share of each kind of operation that failed; without those of which there were fewer "
            "than ten.",
            advice="Kelpie's log has the reason; of messages it is often the model's provider.",
            steps=above(0.01, 0.05),
            empty=_NONE_OR_FEW,
        ),
        lines(
            "Failed to forward",
            share(
                increase(INVOCATIONS, where=_FORWARD_ERROR, over=STEP),
                increase(INVOCATIONS, over=STEP),
            ),
            shows="Share of all operations that were to go to another node, and did not get there.",
            advice="the other node is down or not reached: look at *Not answering*.",
            steps=above(0.01, 0.05),
            empty=_NONE_OR_FEW,
        ),
        lines(
            "Rounds of tools in a message",
            share(
                increase(INVOCATIONS, where=_TOOLS, over=STEP),
                increase(INVOCATIONS, where=_MESSAGE, over=STEP),
            ).in_unit("short"),
            shows="How often, on average, a message calls tools. Kelpie ends it after ten.",
            advice="the agents go round in circles: read their messages.",
            steps=above(5, 9),
            empty=_NONE_OR_FEW,
        ),
        lines(
            "Mean duration",
            mean(INVOCATION_DURATION, _BY),
            shows="Mean time in the handler, without the wait for it. Kelpie's buckets begin at 5 s, so that "
            "a percentile below that would be made up.",
            advice="of messages this is the model and the tools; what clients wait for in "
            "all is on their spans.",
            steps=above(30, 100),
        ),
        lines(
            "Slower than 5 s",
            share_above(_SLOW, INVOCATION_DURATION, _BY),
            shows="Share of operations above the lowest edge of a bucket that says anything; exact. Without "
            "those of which there were fewer than ten.",
            advice="all other agents wait meanwhile: see *Loop in use*.",
            steps=above(0.2, 0.5),
        ),
        lines(
            "Loop in use, by server",
            rate(INVOCATION_DURATION, _BY_SERVER, part="sum").in_unit("percentunit"),
            shows="Share of time in which each server's one loop is busy; 100 % is all that it can do.",
            advice="spread the agents over more servers.",
            steps=above(0.7, 0.9),
        ),
    ),
)

_AGENTS: Final = Row(
    "Agents and servers",
    (
        lines(
            "Activations and deletions",
            rate(AGENTS_ACTIVATED).named("activated"),
            rate(AGENTS_DEACTIVATED).named("deleted"),
            shows="Actors that were activated, which asking for an unknown agent does, too; and agents that "
            "were deleted. Idle ones are not counted.",
            advice="Activations without messages are somebody asking for agents that do not exist.",
        ),
        lines(
            "Agents stored",
            current(AGENTS_STORED, _BY_SERVER, "max"),
            shows="Agents in storage, as each server sees it.",
            advice="A sudden 0 is storage that failed.",
        ),
        lines(
            "Up for, by server",
            current(UPTIME, _BY_SERVER, "max"),
            shows="Time since each server started.",
            advice="A saw is a server that keeps restarting.",
        ),
        table(
            "Operations",
            increase(INVOCATIONS, _BY).named("Operations"),
            increase(INVOCATIONS, _BY, _ERROR).named("Failed"),
            shows="Each kind of operation, over all that is shown.",
            advice="Kelpie's log has the reason of a failure.",
            width=12,
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    "kelpie",
    "Kelpie",
    "What Kelpie exports, its counters' names repaired by the Collector. Pending operations, memory by "
    "tier and storage operations are in its documentation, and are not exported. Its traces are not "
    "those of its clients: join them by the agent's id, and time.",
    ("kelpie",),
    (
        Variable("job", "Job", variable_query(UPTIME, JOB)),
        Variable("instance", "Instance", variable_query(UPTIME, INSTANCE, JOB)),
        Variable("operation", "Operation", variable_query(INVOCATIONS, OPERATION, JOB, INSTANCE)),
        Variable("agent", "Agent id"),
    ),
    (_NOW, _WORK, _AGENTS),
    search={"gen_ai.agent.id": "agent"},
)
DASHBOARDS: Final = (DASHBOARD,)
