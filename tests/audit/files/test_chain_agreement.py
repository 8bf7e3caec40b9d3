# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to a store, the chain holds for us exactly when it does for the kernel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_kernel_otel.audit.files import AuditFileError
from tests.audit.files.test_chain import Lines, by_kernel, rewrite, verify
from tests.audit.files.written import jsonl, sqlite, traces

NUMBER = 5

_place = st.integers(0, NUMBER - 1)
_json = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(), st.text(max_size=3))
_steps = st.one_of(
    st.tuples(st.just("remove"), _place),
    st.tuples(st.just("swap"), _place, _place),
    st.tuples(st.just("repeat"), _place),
    st.tuples(st.just("set"), _place, st.sampled_from(["seq", "prev_hash", "record_hash"]), _place),
    st.tuples(st.just("payload"), _place, st.sampled_from(["error", "args", "status", "x"]), _json),
    st.tuples(st.just("number"), _place, st.integers(-1, 9)),
)


def _apply(lines: Lines, step: tuple[Any, ...]) -> None:
    """Do one thing to the records, taking fields from other records so that some of them fit."""
    what, at, *rest = step
    if at >= len(lines):
        return
    if what == "remove":
        del lines[at]
    elif what == "repeat":
        lines.insert(at, {**lines[at]})
    elif what == "swap" and rest[0] < len(lines):
        lines[at], lines[rest[0]] = lines[rest[0]], lines[at]
    elif what == "set" and rest[1] < len(lines):
        lines[at][rest[0]] = lines[rest[1]][rest[0]]
    elif what == "payload":
        lines[at]["trace"] = {**lines[at]["trace"], rest[0]: rest[1]}
    elif what == "number":
        lines[at]["seq"] = rest[0]


@pytest.fixture(scope="module", params=["audit.jsonl", "audit.db"])
def original(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path: Path = tmp_path_factory.mktemp("original") / request.param
    return (jsonl if path.suffix == ".jsonl" else sqlite)(path, traces(NUMBER))


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_steps, max_size=3))
def test_records_that_are_changed_removed_added_and_moved(
    original: Path, steps: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / original.name
        path.write_bytes(original.read_bytes())

        def change(lines: Lines) -> None:
            for step in steps:
                _apply(lines, step)
            if path.suffix == ".db":  # which has each number once, and is read in their order
                found: dict[int, dict[str, Any]] = {}
                for line in lines:
                    found.setdefault(line["seq"], line)
                lines[:] = found.values()

        rewrite(path, change)
        kernel = by_kernel(path)
        (ours,) = verify(path)
    assert ours.ok == kernel.ok
    assert ours.records == kernel.records_checked - (not kernel.ok)
    if path.suffix == ".db" and not ours.ok:
        assert ours.place == f"seq {kernel.first_bad_seq}"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_bytes_that_are_changed(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.jsonl"
    path.unlink(missing_ok=True)
    content = bytearray(jsonl(path, traces(2)).read_bytes())
    # The end of the last line stays, without which it would be one that is being written.
    at = data.draw(st.integers(0, len(content) - 2))
    content[at] = data.draw(st.integers(0x20, 0x7E))
    path.write_bytes(content)
    try:
        kernel = by_kernel(path).ok
    except Exception:  # as the kernel says that it cannot read a line
        kernel = False
    try:
        ours = verify(path)[0].ok
    except AuditFileError:
        ours = False
    assert ours == kernel
