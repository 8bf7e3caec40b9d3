# SPDX-License-Identifier: Apache-2.0
"""Collectors that fail in every way: the app does what it does without us, and the books balance.

For each way to fail, over each protocol, an app ends by itself, or by SIGTERM, or has forked
children that do.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Mapping

import pytest

from tests.distro.apps.faulty_app import CHILDREN, EXIT_CODE
from tests.distro.faulty_runs import SIGNALS, Case, Outcome, run_all
from tests.support.faulty_collector import Protocol

MODES = ("exit", "sigterm", "fork")
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http/protobuf")
NOBODY_THERE = ("refused", "dns_failure", "tar_pit", "tls_mismatch")
ANSWERING = ("slow", "flapping", "server_error", "resource_exhausted")
FAULTY = [
    Case(behaviour, protocol, mode)
    for behaviour, protocol, mode in itertools.product(NOBODY_THERE + ANSWERING, PROTOCOLS, MODES)
]
PARTIAL = [Case("partial_success", protocol, "exit", count=3) for protocol in PROTOCOLS]
PLAIN = [Case("plain_text", protocol, "exit") for protocol in PROTOCOLS]
HEALTHY = [Case("healthy", protocol, mode) for protocol in PROTOCOLS for mode in MODES]
BARE = {mode: Case(None, "grpc", mode) for mode in MODES}
ALL = [*FAULTY, *PARTIAL, *PLAIN, *HEALTHY]
EXIT_SECONDS = 2.0
MEMORY_KILOBYTES = 80_000
"""For full queues of 16,384 spans at 3 kB each, as many log records, and what is being sent."""

every_case = pytest.mark.parametrize("case", ALL, ids=str)


@pytest.fixture(scope="module")
def outcomes() -> Mapping[Case, Outcome]:
    """All processes run side by side: most of the time they wait."""
    outcomes = run_all([*ALL, *BARE.values()])
    for case, outcome in outcomes.items():
        if case.behaviour and outcome.returncode == -signal.SIGTERM and not outcome.reports:
            # The time was over before it had reported, on a busy machine: once more, alone.
            outcomes |= run_all([case])
    return outcomes


@every_case
def test_the_apps_output_and_exit_code_are_those_without_us(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    bare, ours = outcomes[BARE[case.mode]], outcomes[case]
    assert bare.output
    assert ours.output == bare.output
    assert ours.returncode == bare.returncode == (-15 if case.mode == "sigterm" else EXIT_CODE)
    assert "Traceback" not in ours.errors


@every_case
def test_the_end_is_held_up_for_two_seconds_at_most(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    late = _seconds_late(case, outcomes)
    assert len(late) == (1 + CHILDREN if case.mode == "fork" else 1)
    if max(late.values()) > EXIT_SECONDS:
        # All threads of the app were slowed down by all the others: once more, alone.
        late = _seconds_late(case, run_all([case, BARE[case.mode]]))
    assert max(late.values()) < EXIT_SECONDS, late


@every_case
def test_whatever_ended_was_sent_or_refused_or_dropped(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    reports = outcomes[case].reports
    assert len(reports) == (1 + CHILDREN if case.mode == "fork" else 1)
    for report in reports:
        assert set(report) == set(SIGNALS)
        for entry in report.values():
            assert entry["ended"] == entry["sent"] + entry["refused"] + _dropped(entry), report
            assert entry["pending"] == 0


@every_case
def test_every_span_and_log_record_is_in_the_books(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    healthy = outcomes[Case("healthy", case.protocol, case.mode)].total("ended")
    ours = outcomes[case].total("ended")
    assert (ours["traces"], ours["logs"]) == (healthy["traces"], healthy["logs"])
    # One collection when a process starts, one when it ends.
    assert ours["metrics"] >= len(outcomes[case].reports)


@every_case
def test_sent_is_what_the_collector_acknowledged(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    sent, acknowledged = outcomes[case].total("sent"), outcomes[case].acknowledged
    if case.behaviour == "slow":
        # It cannot always tell that nobody waits any more: a forked child keeps connections open.
        assert all(sent[signal] <= acknowledged[signal] for signal in SIGNALS)
    else:
        assert sent == acknowledged


@pytest.mark.parametrize("case", HEALTHY, ids=str)
def test_a_healthy_collector_gets_everything(case: Case, outcomes: Mapping[Case, Outcome]) -> None:
    assert outcomes[case].total("sent") == outcomes[case].total("ended")


@pytest.mark.parametrize(
    "case", [case for case in ALL if case.behaviour == "server_error"], ids=str
)
def test_what_is_answered_with_an_error_is_refused(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    assert all(outcomes[case].total("refused").values())


@pytest.mark.parametrize("case", PARTIAL, ids=str)
def test_items_that_are_rejected_one_by_one_are_refused(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    refused = outcomes[case].total("refused")
    assert refused["traces"] >= case.count


@pytest.mark.parametrize("case", [case for case in ALL if case.behaviour in NOBODY_THERE], ids=str)
def test_nothing_counts_as_sent_where_nobody_answers(
    case: Case, outcomes: Mapping[Case, Outcome]
) -> None:
    assert not any(outcomes[case].total("sent").values())
    assert not any(outcomes[case].total("refused").values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_is_bounded_while_nobody_answers(protocol: Protocol) -> None:
    bare, ours = Case(None, protocol, "burst"), Case("tar_pit", protocol, "burst")
    outcomes = run_all([bare, ours])
    (report,) = outcomes[ours].reports
    assert report["traces"]["ended"] > 30_000
    assert outcomes[ours].growth - outcomes[bare].growth < MEMORY_KILOBYTES
    assert outcomes[ours].seconds["end"] - outcomes[bare].seconds["end"] < EXIT_SECONDS


def _seconds_late(case: Case, outcomes: Mapping[Case, Outcome]) -> dict[str, float]:
    """By how much each process ended later than it does without us."""
    bare, ours = outcomes[BARE[case.mode]].seconds, outcomes[case].seconds
    return {process: ours[process] - bare[process] for process in ours}


def _dropped(entry: dict[str, dict[str, int]]) -> int:
    return sum(entry["dropped"].values())
