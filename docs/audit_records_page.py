# SPDX-License-Identifier: Apache-2.0
"""The page ``audit-records.md``, for ``generate.py``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from tables import table

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the package of the tests

from tests.matrix.replay_differences import DIFFERENCES, SPAN_STATUS, UNRECORDED, Difference
from tests.matrix.spans import ABSENT, PRESENT

_HEAD = """\
# Audit records and live spans

<!-- Written by docs/generate.py from tests/matrix/replay_differences.py. Do not edit. -->

The live span of a call knows more than its audit record. These are the differences, by release of
weaver-kernel. Whatever is not listed is the same on the live span and on the
[replayed one](audit.md#what-a-replayed-span-is), which has `agent_kernel.replayed` and
`agent_kernel.result.warnings` besides. Tests make each of these calls on real kernels of all releases and
replay the records: a difference that is not listed fails them, and so does one that is listed and does
not occur.

No record has a start, a duration, a parent, or anything of the single steps (policy decision, driver
attempts, firewall). It has the one time at which it was written: when the call ended, or, for a stream
that was closed early, a moment later.

## Calls that leave no record
"""

_HELD = """
## What records do not hold, or hold wrongly

What a record tells wrongly is replayed as it was recorded, because nothing in it shows that it is wrong.
"""


def audit_records() -> str:
    """The page ``audit-records.md``."""
    return "\n".join(
        [
            _HEAD,
            *table(
                ("call", "weaver-kernel"),
                ((known.situation.text, str(known.releases)) for known in UNRECORDED),
            ),
            _HELD,
            *table(
                (
                    "of the live span",
                    "record of",
                    "weaver-kernel",
                    "replayed as",
                    "the record",
                ),
                (row for difference in DIFFERENCES for row in _rows(difference)),
            ),
            "",
        ]
    )


def _rows(difference: Difference) -> Iterator[tuple[str, ...]]:
    for value, pairs in groupby(difference.replayed.items(), key=lambda pair: pair[1]):
        yield (
            ", ".join(_attribute(name) for name, _ in pairs),
            difference.records,
            str(difference.releases),
            _shown(value),
            difference.why,
        )


def _attribute(name: str) -> str:
    return name if name == SPAN_STATUS else f"`{name}`"


def _shown(value: Any) -> str:
    return {ABSENT: "absent", PRESENT: "recorded"}.get(value, f"`{value}`")
