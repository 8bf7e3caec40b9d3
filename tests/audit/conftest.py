# SPDX-License-Identifier: Apache-2.0
"""What tests of the audit bridge begin and end with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_kernel_otel.correlation import correlations


@pytest.fixture(autouse=True)
def _no_action_is_known() -> Iterator[None]:
    """Which spans actions have belongs to the process: one test does not see another's."""
    correlations.forget()
    yield
    correlations.forget()
