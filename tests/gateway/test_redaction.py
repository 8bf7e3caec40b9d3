# SPDX-License-Identifier: Apache-2.0
"""The second line of defence: what an agent's Collector hides all by itself."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.load import App, Told
from tests.gateway.tiers import Agent, Gateway
from tests.support.otlp_records import Item

SECRETIVE = Path(__file__).with_name("secretive.py")
CAPTURE = {
    "OTEL_AGENT_KERNEL_CAPTURE_CONTENT": "arguments,results,goals,justifications",
    "OTEL_AGENT_KERNEL_CAPTURE_EXCEPTION_TEXT": "true",
}
KEPT = {"SHARE_PERCENT": "100", "LONGEST_CALL": "2s", "WAIT_AFTER_ROOT": "1s"}
PLACES = {
    *("goal", "justification", "argument", "exception"),
    *("span", "key", "event", "scope", "resource", "log", "nested", "metric"),
}
CONTENT_KEYS = {
    *("gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "exception.message"),
    *("exception.stacktrace", "agent_kernel.goal", "agent_kernel.justification"),
}


@dataclass(frozen=True)
class Outcome:
    """What a backend got of the secretive app.

    Attributes:
        places: Where the secrets come from that are in it.
        items: Spans, log records and metrics.
        told: What the app said.
    """

    places: set[str]
    items: dict[str, list[Item]]
    told: Told


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Once by the agent's Collector, and once straight to the gateway."""
    folder = tmp_path_factory.mktemp("secrets")
    found = {}
    for way in ("agent", "straight"):
        secret = f"canary{secrets.token_hex(6)}"
        (folder / way).mkdir()
        with Gateway(folder / way / "gateway", KEPT) as gateway:
            with Agent(folder / way, gateway.port("grpc")) as agent:
                told = App(
                    folder / way,
                    (agent if way == "agent" else gateway).port("grpc"),
                    "secretive",
                    str(SECRETIVE),
                    secret,
                    OTEL_RESOURCE_ATTRIBUTES=f"note=sk-proj-{secret}resource",
                    **CAPTURE,
                ).end()
            gateway.stop()
        text = "".join(file.read_text() for file in gateway.folder.glob("*.jsonl"))
        places = set(re.findall(f"{secret}([a-z]*)", text))
        # A shape may have added letters of its own.
        named = {place for place in PLACES if any(each.startswith(place) for each in places)}
        assert bool(places) == bool(named)
        items = {signal: gateway.kept(signal) for signal in ("traces", "metrics", "logs")}
        found[way] = Outcome(named, items, told)
    return found


def test_without_it_every_secret_arrives(outcomes: Mapping[str, Outcome]) -> None:
    assert outcomes["straight"].places == PLACES


def test_with_it_none_does(outcomes: Mapping[str, Outcome]) -> None:
    assert outcomes["agent"].places == set()


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_all_arrives_that_is_no_secret(signal: str, outcomes: Mapping[str, Outcome]) -> None:
    hidden, open_ = (outcomes[way].items[signal] for way in ("agent", "straight"))
    if signal == "metrics":  # which come as often as they are collected
        assert {metric.name for metric in hidden} == {metric.name for metric in open_} != set()
    else:
        assert len(hidden) == len(open_) == outcomes["agent"].told.books[signal]["ended"] > 0
    for item in hidden:
        assert '"redaction.' not in json.dumps(item.raw)


def test_what_names_an_identity_or_nothing_is_left_as_it_was(
    outcomes: Mapping[str, Outcome],
) -> None:
    by_span: list[list[tuple[str, object]]] = []
    for way in ("agent", "straight"):
        spans = [span for span in outcomes[way].items["traces"] if "kernel" in span.name]
        by_span.append(sorted((span.name, sorted(_unchanging(span).items())) for span in spans))
    assert by_span[0] == by_span[1] != []


def test_content_is_known_by_its_key(outcomes: Mapping[str, Outcome]) -> None:
    items = outcomes["agent"].items
    told = {
        key: value
        for item in (*items["traces"], *items["logs"])
        for key, value in item.attributes.items()
        if key in CONTENT_KEYS
    }
    assert told.keys() == CONTENT_KEYS
    assert {re.sub(r"\*+", "*", str(value)) for value in told.values()} == {"*"}


def _unchanging(span: Item) -> dict[str, object]:
    """Without ids and times, which differ from run to run, and content."""
    varying = ("action_id", "token_id", "call.id", "handle_id", ".age", "kernel_id")
    return {
        key: value
        for key, value in span.attributes.items()
        if key not in CONTENT_KEYS and not key.endswith(varying)
    }
