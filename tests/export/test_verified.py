# SPDX-License-Identifier: Apache-2.0
"""A chain that was verified hides nothing of what is wrong with the file."""

from __future__ import annotations

import pytest

from tests.export.harness import KEY, Receiver, Shell, action_ids, actions, record, trail

VERIFIED = ("audit.jsonl", "--verify-chain")


@pytest.mark.parametrize("arguments", [("audit.jsonl",), VERIFIED])
def test_a_last_line_that_is_cut_off_is_told_of_and_counted(
    shell: Shell, receiver: Receiver, arguments: tuple[str, ...]
) -> None:
    trail(shell.directory / "audit.jsonl", 2).add_text('{"seq": 2, "prev')
    done = shell.export(*arguments, WEAVER_KERNEL_SECRET=KEY)
    assert done.returncode == 1
    assert "audit.jsonl: line 3: " in done.stderr
    summary = shell.summary(*arguments, WEAVER_KERNEL_SECRET=KEY)
    assert (summary["exported"], summary["cut_off"], summary["failed"]) == (2, 1, 1)
    assert set(action_ids(receiver.spans())) == set(actions(range(2)))


def test_a_kept_checkpoint_leaves_it_until_it_is_whole(shell: Shell, receiver: Receiver) -> None:
    audit = trail(shell.directory / "audit.jsonl", 2)
    line = audit.line(record(2))
    audit.add_text(line[:100])
    kept = (*VERIFIED, "--checkpoint", "night.json")
    done = shell.export(*kept, WEAVER_KERNEL_SECRET=KEY)
    assert done.returncode == 0
    assert "it is left for the next run" in done.stderr
    audit.add_text(f"{line[100:]}\n")
    assert shell.summary(*kept, WEAVER_KERNEL_SECRET=KEY)["exported"] == 1
    assert action_ids(receiver.spans()) == actions(range(3))
