# SPDX-License-Identifier: Apache-2.0
"""The dashboards of the Weaver kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent_kernel_otel.dashboards.weaver.audit import DASHBOARD as AUDIT
from agent_kernel_otel.dashboards.weaver.budgets import DASHBOARD as BUDGETS
from agent_kernel_otel.dashboards.weaver.firewall import DASHBOARD as FIREWALL
from agent_kernel_otel.dashboards.weaver.overview import DASHBOARD as OVERVIEW
from agent_kernel_otel.dashboards.weaver.policy import DASHBOARD as POLICY

if TYPE_CHECKING:
    from agent_kernel_otel.dashboards.model import Dashboard

DASHBOARDS: Final[tuple[Dashboard, ...]] = (OVERVIEW, POLICY, BUDGETS, FIREWALL, AUDIT)
