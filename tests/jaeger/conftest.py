# SPDX-License-Identifier: Apache-2.0
"""A Jaeger that has the audit trails of real kernels, live and replayed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jaeger.running import Jaeger
from tests.jaeger.trails import IN_HAND, PROTOCOLS, Trail, trail


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    with Jaeger(tmp_path_factory.mktemp("jaeger")) as running:
        yield running


@pytest.fixture(scope="session", params=[IN_HAND, *PROTOCOLS])
def replayed(
    request: pytest.FixtureRequest, jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trail]:
    """A trail that was replayed, one for each way to do it."""
    with trail(request.param, jaeger, tmp_path_factory.mktemp("trail")) as made:
        yield made
