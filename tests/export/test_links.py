# SPDX-License-Identifier: Apache-2.0
"""Long after, in another process: replayed spans link to live ones that were written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_kernel_otel.scrub import IDENTIFIER_LIMIT
from tests.distro import zero_code
from tests.export.harness import Jsonl, Receiver, Shell, record, trail

APP = """
import asyncio
from tests.support.kernels import ALICE, grant, make_kernel
from weaver_kernel.stores import JsonlTraceStore

kernel = make_kernel(trace_store=JsonlTraceStore("audit.jsonl", secret="any"))
for _ in range(3):
    asyncio.run(kernel.invoke(grant(kernel).token, principal=ALICE, args={}))
"""


def traceparent(number: int) -> str:
    return f"00-{target(number)}-01"


def target(number: int) -> str:
    return f"{number + 1:032x}-{number + 1:016x}"


def line(number: int, **changes: Any) -> str:
    link = {"action_id": f"action-{number}", "traceparent": traceparent(number), **changes}
    return json.dumps(link) + "\n"


def linked(spans: list[Any]) -> dict[str, list[str]]:
    """The spans that each action's replayed span links to, as :func:`target` has them."""
    return {
        span.attributes["agent_kernel.action_id"]: [
            f"{link['traceId']}-{link['spanId']}" for link in span.raw.get("links", ())
        ]
        for span in spans
    }


def test_what_an_app_wrote_down_is_linked_to_in_another_process(
    shell: Shell, receiver: Receiver
) -> None:
    (shell.directory / "app.py").write_text(APP)
    zero_code.run(
        "app.py",
        env=zero_code.environment(
            PYTHONPATH=str(Path(__file__).parents[2]),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_TRACES_EXPORTER="otlp,agent_kernel_links",
            OTEL_AGENT_KERNEL_LINKS_FILE="links.jsonl",
        ),
        cwd=shell.directory,
    )
    live = {
        span.attributes["agent_kernel.action_id"]: [f"{span.trace_id}-{span.raw['spanId']}"]
        for span in receiver.spans()
        if span.name == "agent_kernel.invoke"
    }
    receiver.forget()
    summary = shell.summary("audit.jsonl", "--links", "links.jsonl")
    assert summary["linked"] == 3
    assert linked(receiver.spans()) == live


def test_a_record_without_a_link_is_exported_without_one(shell: Shell, receiver: Receiver) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    (shell.directory / "links.jsonl").write_text(line(1))
    done = shell.export("audit.jsonl", "--links", "links.jsonl")
    assert linked(receiver.spans()) == {
        "action-0": [], "action-1": [target(1)], "action-2": [],
    }  # fmt: skip
    assert "linked    1" in done.stderr


def test_of_several_files_and_lines_the_first_that_has_an_action_counts(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "audit.jsonl", 3)
    (shell.directory / "old").write_text(line(0) + line(0, traceparent=traceparent(7)))
    (shell.directory / "new").write_text(line(0, traceparent=traceparent(8)) + line(2))
    shell.export("audit.jsonl", "--links", "old", "--links", "new")
    assert linked(receiver.spans()) == {
        "action-0": [target(0)], "action-1": [], "action-2": [target(2)],
    }  # fmt: skip


@pytest.mark.parametrize("action_id", ["a" * (IDENTIFIER_LIMIT + 9), "zürich", "lone \ud800"])
def test_ids_are_compared_as_they_are_exported(
    shell: Shell, receiver: Receiver, action_id: str
) -> None:
    Jsonl(shell.directory / "audit.jsonl").add(record(0, action_id=action_id))
    (shell.directory / "links.jsonl").write_text(line(0, action_id=action_id))
    shell.export("audit.jsonl", "--links", "links.jsonl")
    assert list(linked(receiver.spans()).values()) == [[target(0)]]


def test_lines_that_are_no_links_are_told_with_their_places_and_the_others_count(
    shell: Shell, receiver: Receiver
) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    wrong = [
        "no JSON\n",
        "[1]\n",
        '{"action_id": "a secret"}\n',
        line(0, traceparent="00-12-34-01"),
        line(0, traceparent=f"00-{0:032x}-{1:016x}-01"),
        line(0, action_id=7),
        f"{'x' * 20_000}\n",
        f"{'[' * 8_000}\n",
    ]
    lines = [*wrong, "\n", line(0), '{"action_id": "cu']
    (shell.directory / "links.jsonl").write_text("".join(lines))
    done = shell.export("audit.jsonl", "--links", "links.jsonl")
    assert done.returncode == 0
    assert linked(receiver.spans()) == {"action-0": [target(0)]}
    told = [text for text in done.stderr.splitlines() if text.endswith(": is no link")]
    numbers = *range(1, len(wrong) + 1), len(lines)
    assert told == [f"links.jsonl: line {number}: is no link" for number in numbers]
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "links.jsonl: the links cannot be read: No such file or directory"),
        ("{}\n", "links.jsonl: holds no links; an app writes them that runs with "),
    ],
)
def test_a_file_without_links_is_refused_before_anything_is_exported(
    shell: Shell, receiver: Receiver, content: str | None, why: str
) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    if content is not None:
        (shell.directory / "links.jsonl").write_text(content)
    done = shell.export("audit.jsonl", "--links", "links.jsonl")
    assert done.returncode == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert receiver.spans() == []


def test_a_file_of_links_that_nothing_was_written_to_yet_is_one(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    (shell.directory / "links.jsonl").touch()
    assert shell.summary("audit.jsonl", "--links", "links.jsonl")["linked"] == 0


def test_without_files_of_links_nothing_is_said_of_them(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    assert shell.summary("audit.jsonl", "--dry-run")["linked"] is None
    assert "linked" not in shell.export("audit.jsonl", "--dry-run").stderr


def test_a_file_of_links_is_not_written_over(shell: Shell) -> None:
    trail(shell.directory / "audit.jsonl", 1)
    (shell.directory / "links.jsonl").write_text(line(0))
    done = shell.export("audit.jsonl", "--links", "links.jsonl", "--output", "links.jsonl")
    assert done.returncode == 2
    assert (shell.directory / "links.jsonl").read_text() == line(0)
