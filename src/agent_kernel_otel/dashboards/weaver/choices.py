# SPDX-License-Identifier: Apache-2.0
"""What a viewer of the Weaver kernel's dashboards chooses."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.dashboards.model import Variable
from agent_kernel_otel.dashboards.promql import INSTANCE, JOB, variable_query
from agent_kernel_otel.semconv import (
    BUDGET_LIMIT,
    CAPABILITY_ID,
    INFO,
    INVOCATIONS,
    SESSION,
)

PROCESSES: Final = (
    Variable("job", "Job", variable_query(INFO, JOB)),
    Variable("instance", "Instance", variable_query(INFO, INSTANCE, JOB)),
)
CAPABILITY: Final = Variable(
    "capability", "Capability", variable_query(INVOCATIONS, CAPABILITY_ID, JOB, INSTANCE)
)
BUDGET_SESSION: Final = Variable(
    "session", "Session", variable_query(BUDGET_LIMIT, SESSION, JOB, INSTANCE)
)
TAGS: Final = ("weaver-kernel",)
