# SPDX-License-Identifier: Apache-2.0
"""Two gateways behind a load balancer: in good days, when one restarts, and when one is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.gateway.load import Told, agents, wait_for
from tests.gateway.promises import traces_of
from tests.gateway.tiers import Gateway, LoadBalancer

if TYPE_CHECKING:
    from typing_extensions import Self

TURNS = 800
# All, so that a span that is not there was lost and not left out.
KEEP_ALL = {"SHARE_PERCENT": "100", "LONGEST_CALL": "6s", "WAIT_AFTER_ROOT": "2s"}


class Tiers(ExitStack):
    """A load balancer before two gateways, and an app that is at work; a context manager.

    Args:
        folder: An empty directory.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __enter__(self) -> Self:
        super().__enter__()
        self.first = self.enter_context(Gateway(self.folder / "first", KEEP_ALL))
        self.second = self.enter_context(Gateway(self.folder / "second", KEEP_ALL))
        ports = [gateway.port("grpc") for gateway in (self.first, self.second)]
        self.balancer = self.enter_context(LoadBalancer(self.folder, ports))
        self._app = agents(self.folder, self.balancer.port("grpc"), TURNS)
        wait_for(lambda: len(self.second.received()) > 500)
        return self

    def restart_second(self, ending: Callable[[Gateway], None]) -> None:
        """End the second gateway, and start it when the first has gone on without it."""
        port = self.second.port("grpc")
        ending(self.second)
        self._wait_for_more_at_the_first()
        self.second = self.enter_context(Gateway(self.folder / "second", KEEP_ALL, port=port))

    def restart_balancer(self, ending: Callable[[LoadBalancer], None]) -> None:
        """End the load balancer, and start it again."""
        ports = [gateway.port("grpc") for gateway in (self.first, self.second)]
        port = self.balancer.port("grpc")
        ending(self.balancer)
        self.balancer = self.enter_context(LoadBalancer(self.folder, ports, port=port))

    def end(self) -> tuple[Told, list[set[str]], int]:
        """End all in good order.

        Returns:
            What the app told; the traces that each gateway kept; how many spans that the load balancer
            had accepted were lost.
        """
        told = self._app.end()
        self.balancer.stop()
        kept = []
        spans: set[str] = set()
        for gateway in (self.first, self.second):
            gateway.stop()
            kept.append(set(traces_of(gateway.kept())))
            spans.update(span.span_id for span in gateway.kept())
        # Dry runs that went well are dropped: the call, and the verification of its token.
        return told, kept, told.books["traces"]["sent"] - 2 * told.seen["dry runs"] - len(spans)

    def _wait_for_more_at_the_first(self) -> None:
        came = len(self.first.received())
        wait_for(lambda: len(self.first.received()) > came)


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[Tiers]:
    with Tiers(tmp_path) as running:
        yield running


def test_a_gateway_that_is_stopped_and_started_again_costs_nothing(tiers: Tiers) -> None:
    tiers.restart_second(Gateway.stop)
    told, kept, lost = tiers.end()
    assert told.books["traces"]["sent"] == told.books["traces"]["ended"]
    assert all(len(traces) > 100 for traces in kept)
    assert kept[0] & kept[1] == set()
    assert lost == 0


def test_a_load_balancer_that_is_stopped_and_started_again_costs_nothing(tiers: Tiers) -> None:
    for _ in range(3):
        tiers.restart_balancer(LoadBalancer.stop)
    told, kept, lost = tiers.end()
    assert told.books["traces"]["sent"] == told.books["traces"]["ended"]
    assert kept[0] & kept[1] == set()
    assert lost == 0


def test_a_gateway_that_is_killed_costs_what_it_held(tiers: Tiers) -> None:
    tiers.restart_second(Gateway.kill)
    told, kept, lost = tiers.end()
    accepted = told.books["traces"]["sent"]
    print(f"kill -9 of one of two gateways: {lost} of {accepted} spans lost")
    assert kept[0] & kept[1] == set()
    assert 0 < lost < accepted / 2


def test_a_load_balancer_that_is_killed_costs_what_was_in_its_queue(tiers: Tiers) -> None:
    tiers.restart_balancer(LoadBalancer.kill)
    told, kept, lost = tiers.end()
    accepted = told.books["traces"]["sent"]
    print(f"kill -9 of the load balancer: {lost} of {accepted} spans lost")
    assert kept[0] & kept[1] == set()
    assert lost < accepted / 10
