# SPDX-License-Identifier: Apache-2.0
"""A gateway with too little room for the traces that wait makes senders wait, and loses none."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.load import agents, wait_for
from tests.gateway.promises import reasons, traces_of
from tests.gateway.tiers import Agent, Gateway

ROOM = 100


def test_where_there_is_too_little_room_nothing_is_lost(tmp_path: Path) -> None:
    settings = {"TRACES_IN_MEMORY": str(ROOM), "LONGEST_CALL": "5s", "WAIT_AFTER_ROOT": "1s"}
    with (
        Gateway(tmp_path / "gateway", settings) as gateway,
        Agent(tmp_path, gateway.port("grpc")) as agent,
    ):
        told = agents(tmp_path, agent.port("grpc"), turns=400).end()
        ended = told.books["traces"]["ended"]
        wait_for(lambda: len({span.span_id for span in gateway.received()}) >= ended)
        promised = {
            id_: {span.span_id for span in trace}
            for id_, trace in traces_of(gateway.received()).items()
            if reasons(trace)
        }
        assert len(promised) > ROOM

        def are_kept() -> bool:
            kept = traces_of(gateway.kept())
            return all({s.span_id for s in kept[id_]} == spans for id_, spans in promised.items())

        wait_for(are_kept)
