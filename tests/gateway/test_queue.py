# SPDX-License-Identifier: Apache-2.0
"""What an agent's Collector has acknowledged arrives, whatever becomes of it and of the gateway."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.gateway.load import Told, agents, wait_for
from tests.gateway.promises import reasons, traces_of
from tests.gateway.tiers import Agent, Gateway
from tests.support.otlp_records import Item
from tests.support.ports import free_port

KEEP_PROMISES = {"SHARE_PERCENT": "0", "LONGEST_CALL": "30s"}


def test_nothing_acknowledged_is_lost_with_a_dead_gateway_and_kill_9(tmp_path: Path) -> None:
    port = free_port()  # where nobody is for now
    with Agent(tmp_path, port) as agent:
        listening = agent.port("grpc")
        brief = agents(tmp_path, listening, turns=500, name="brief")
        long = agents(tmp_path, listening, turns=1500, name="long")
        told = {"brief": brief.end()}  # every span of it has been acknowledged just now
        agent.kill()
    with Agent(tmp_path, port, port=listening) as agent:
        told["long"] = long.end()
        agent.stop()
    queued = sum(file.stat().st_size for file in (tmp_path / "agent").iterdir())
    with (
        Agent(tmp_path, port, port=listening) as agent,
        Gateway(tmp_path / "gateway", KEEP_PROMISES, port=port) as gateway,
    ):
        # Once more, while it sends what has waited.
        wait_for(lambda: len(gateway.received()) > 0)
        agent.kill()
        with Agent(tmp_path, port, port=listening):
            wait_for(lambda: all(_is_there(name, told[name], gateway) for name in told))
            wait_for(lambda: _promises_are_kept(gateway))
        received = gateway.received()
    books = {name: each.books["traces"] for name, each in told.items()}
    spans = {name: _spans_of(name, received) for name in told}
    assert spans["brief"] == books["brief"]["sent"] == books["brief"]["ended"] > 1000
    # Where the answer did not come any more, the span may have.
    assert books["long"]["sent"] <= spans["long"] <= books["long"]["ended"]
    twice = len(received) - sum(spans.values())
    print(
        f"{sum(spans.values())} spans of {sum(b['sent'] for b in books.values())} acknowledged came, "
        f"{twice} of them twice; the queue had {queued} bytes on the disk"
    )


def _is_there(name: str, told: Told, gateway: Gateway) -> bool:
    logs = Counter(log.resource["service.name"] for log in gateway.kept("logs"))
    sent = {signal: int(told.books[signal]["sent"]) for signal in ("traces", "logs")}
    came = _spans_of(name, gateway.received()) >= sent["traces"]
    return came and logs[name] >= sent["logs"] > 0


def _promises_are_kept(gateway: Gateway) -> bool:
    """Whether all is kept that must be, though requests came late and in any order."""
    received, kept = traces_of(gateway.received()), traces_of(gateway.kept())
    promised = {id_ for id_, trace in received.items() if reasons(trace)}
    return all(
        {span.span_id for span in received[id_]} == {span.span_id for span in kept[id_]}
        for id_ in promised
    )


def _spans_of(name: str, spans: list[Item]) -> int:
    return len({span.span_id for span in spans if span.resource["service.name"] == name})
