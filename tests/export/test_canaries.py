# SPDX-License-Identifier: Apache-2.0
"""Audit files hold secrets, those of old kernels most of all: none leaves, whatever becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.harness import KEY, Jsonl, Receiver, Shell, denial, failure, record
from tests.support.canaries import Canaries

IDS = frozenset(
    {
        "action_id",
        "capability_id",
        "principal_id",
        "token_id",
        "driver_id",
        "handle_id",
        "sensitivity",
        "reason_code",
        "response_mode",
    }
)
"""What leaves, and is nobody's secret; of the other fields no text does."""


class Planted:
    """Records with a secret of its own wherever text can be that is no id."""

    def __init__(self, shape: str) -> None:
        self.canaries = Canaries(shape)

    def plant(
        self, trace: dict[str, Any], label: str, summary: str | None = None
    ) -> dict[str, Any]:
        def secret(place: str) -> str:
            return self.canaries.plant(f"{label}: {place}")

        nested = {secret("args key"): [secret("args list"), {"password": secret("args value")}]}
        return {
            **trace,
            "args": {"query": secret("args"), **nested},
            "correction": {"note": secret("correction")},
            "result_summary": summary
            or {
                "fact_count": 1,
                "row_count": secret("row_count"),
                "facts": [secret("facts")],
            },
            "justification": secret("justification"),
            secret("unknown key"): secret("unknown field"),
        }

    def records(self) -> list[dict[str, Any]]:
        """What kernels of all releases write, as the oldest of them did: raw."""
        secret = self.canaries.plant
        return [
            self.plant(record(0), "success"),
            self.plant(failure(1, error=secret("error")), "failure"),
            self.plant(denial(2, error=secret("denial")), "denial"),
            self.plant(record(3, event_type="expand", token_id=""), "expansion"),
            self.plant(failure(4, error={"text": secret("error object")}), "odd error"),
            self.plant(record(5, event_type=secret("kind")), "unknown kind"),
            self.plant(record(6, event_type=[secret("kind in a list")]), "no kind"),
            self.plant(record(7, invoked_at=secret("time")), "no time"),
            self.plant(record(8, action_id=None), "no action"),
            self.plant(record(9, capability_id={secret("in an id"): 1}), "no capability"),
            self.plant(record(10, status=secret("status")), "odd status"),
            self.plant(record(11), "odd summary", summary=secret("summary")),
            self.plant(record(12, token_id=[secret("token list")], handle_id={}), "odd ids"),
        ]

    def bad_lines(self) -> str:
        """Lines that cannot be read, the last one cut off."""
        secret = self.canaries.plant
        return (
            f"{secret('no JSON')}\n"
            f'{{"seq": 99, "trace": {{"args": "{secret("broken JSON")}"\n'
            f'"{secret("a text")}"\n'
            f'["{secret("a list")}"]\n'
            f'{{"seq": "{secret("seq")}", "trace": "{secret("trace")}"}}\n'
            f'{{"{secret("another object")}": "{secret("its value")}"}}\n'
            f'{{"seq": 100, "prev_hash": "{secret("cut off")}'
        )

    def places_in(self, *texts: bytes) -> list[str]:
        """The places whose secret is in any of these."""
        everything = b"\n".join(texts)
        return [
            place
            for place, unique in self.canaries.planted.items()
            if unique.encode() in everything
        ]


@pytest.fixture(params=("word", "bearer"))
def planted(request: pytest.FixtureRequest) -> Planted:
    return Planted(request.param)


def everything_left(directory: Path, *, but: frozenset[str]) -> list[bytes]:
    """The bytes, and the names, of all files."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name not in but]
    return [path.read_bytes() for path in files] + [str(path).encode() for path in files]


def test_none_is_received_or_written_anywhere(
    shell: Shell, receiver: Receiver, planted: Planted
) -> None:
    audit = Jsonl(shell.directory / "audit.jsonl").add(*planted.records())
    audit.add_text(planted.bad_lines())
    assert planted.places_in(audit.path.read_bytes()) == [*planted.canaries.planted]
    said = []
    for more in (
        (),
        ("--json",),
        ("--checkpoint", "kept.json"),
        ("--output", "spans.jsonl"),
        ("--dry-run", "--failed"),
        ("--verify-chain",),
    ):
        done = shell.export("audit.jsonl", *more, WEAVER_KERNEL_SECRET=KEY)
        assert done.returncode == (4 if "--verify-chain" in more else 1)
        said += [done.stdout.encode(), done.stderr.encode()]
    left = everything_left(shell.directory, but=frozenset({"audit.jsonl"}))
    assert len(receiver.spans()) == 3 * 8
    assert planted.places_in(receiver.raw_bytes(), *said, *left) == []


def test_none_is_in_the_checkpoint_of_an_export_that_was_broken_off(
    tmp_path: Path, planted: Planted
) -> None:
    audit = Jsonl(tmp_path / "audit.jsonl").add(*planted.records())
    audit.add_text(planted.bad_lines())
    shell = Shell(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    done = shell.export("audit.jsonl", "--patience", "0")
    assert done.returncode == 3
    assert len(shell.checkpoints()) == 1
    left = everything_left(tmp_path, but=frozenset({"audit.jsonl"}))
    assert planted.places_in(done.stdout.encode(), done.stderr.encode(), *left) == []


def test_none_is_told_of_an_envelope_or_of_bare_records(
    shell: Shell, receiver: Receiver, planted: Planted
) -> None:
    secret = planted.canaries.plant
    envelope = {
        "schema": "weaver_kernel.action_trace_export",
        "version": "1",
        secret("key of the envelope"): secret("field of the envelope"),
        "traces": [*planted.records(), secret("text for a record"), None],
    }
    (shell.directory / "audit.json").write_text(json.dumps(envelope))
    bare = "".join(f"{json.dumps(each)}\n" for each in planted.records()) + planted.bad_lines()
    (shell.directory / "bare.jsonl").write_text(bare)
    of_envelope = shell.export("audit.json")
    of_bare = shell.export("bare.jsonl")
    of_stream = shell.export("-", stdin=bare.encode())
    said = [
        text.encode()
        for done in (of_envelope, of_bare, of_stream)
        for text in (done.stdout, done.stderr)
    ]
    assert len(receiver.spans()) == 3 * 8
    assert planted.places_in(receiver.raw_bytes(), *said) == []


def test_credentials_of_the_receiver_are_told_nowhere(shell: Shell, receiver: Receiver) -> None:
    Jsonl(shell.directory / "audit.jsonl").add(record(0))
    canaries = Canaries()
    address = receiver.endpoint.removeprefix("http://")
    user, header = canaries.plant("user"), canaries.plant("header")
    for more in ((), ("--json",), ("--checkpoint", "kept.json")):
        done = shell.export(
            "audit.jsonl",
            *more,
            "--patience",
            "0",  # gRPC knows no credentials in addresses
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{user}:{user}@{address}",
            OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer {header}",
        )
        assert done.returncode == 3
        left = b"".join(everything_left(shell.directory, but=frozenset()))
        for secret in (user, header):
            assert secret not in done.stdout + done.stderr
            assert secret.encode() not in left


def test_the_key_of_the_chain_is_told_nowhere(shell: Shell, receiver: Receiver) -> None:
    Jsonl(shell.directory / "audit.jsonl").add(record(0))
    key = Canaries().plant("key")
    for _ in range(2):
        done = shell.export(
            "audit.jsonl", "--verify-chain", "--checkpoint", "kept.json", WEAVER_KERNEL_SECRET=key
        )
        assert done.returncode == 4
        assert key not in done.stdout + done.stderr


def test_the_fields_that_leave_are_all_that_are_read(shell: Shell, receiver: Receiver) -> None:
    """A record with a secret in every field, ids too, shows which of them leave."""
    canaries = Canaries()
    as_they_are = {"event_type", "invoked_at", "status", "error"}
    trace = {
        name: value if name in as_they_are else canaries.plant(name)
        for name, value in record(0).items()
    }
    Jsonl(shell.directory / "audit.jsonl").add(trace, failure(1, error=canaries.plant("error")))
    Jsonl(shell.directory / "more.jsonl").add(failure(2, reason_code=canaries.plant("reason_code")))
    shell.export("audit.jsonl", "more.jsonl")
    sent = receiver.raw_bytes()
    left = {place for place, unique in canaries.planted.items() if unique.encode() in sent}
    assert left == IDS
