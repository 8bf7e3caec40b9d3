# SPDX-License-Identifier: Apache-2.0
"""How fast audit files are exported, and with how much memory.

    python benchmarks/audit_export.py                  # 200,000 records, JSONL and SQLite
    python benchmarks/audit_export.py --records 1000000
    python benchmarks/audit_export.py --links          # and which live span each action had

The command runs as a user types it, in a process of its own, and sends by gRPC to a receiver in
another one that only counts. The same records go, in the same run, through ``OTelTraceExporter``
and the SDK's OTLP exporter, so that the ratio holds on any machine. Seconds are those of the whole
process, its imports included; the peak of the memory is ``ru_maxrss``, imports included too.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

_FIRST = datetime(2026, 1, 1, tzinfo=timezone.utc)
_IN_HAND = 100_000
_SDK = """
import json, sys
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from agent_kernel_otel import OTelTraceExporter
exporter = OTLPSpanExporter()
traces = (json.loads(line)["trace"] for line in open(sys.argv[1]))
result = OTelTraceExporter(span_exporter=exporter).export(traces)
assert result.failed == 0, result
exporter.shutdown()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--format", choices=("jsonl", "sqlite"), action="append")
    parser.add_argument("--links", action="store_true", help="link each to a live span")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, _receiver() as receiver:
        folder = Path(name)
        for format_ in arguments.format or ("jsonl", "sqlite"):
            path = _WRITERS[format_](folder / f"audit.{format_}", arguments.records)
            command = [sys.executable, "-m", "agent_kernel_otel.cli", "export", str(path)]
            if arguments.links:
                links = _write_links(folder / "links.jsonl", arguments.records)
                command += ["--links", str(links)]
            _report(
                format_, arguments.records, receiver.measure(command, folder, arguments.records)
            )
            path.unlink()
        few = min(_IN_HAND, arguments.records)
        path = _write_jsonl(folder / "few.jsonl", few)
        by_sdk = receiver.measure([sys.executable, "-c", _SDK, str(path)], folder, few)
        _report("OTelTraceExporter and the SDK's exporter", few, by_sdk)
        command = [sys.executable, "-m", "agent_kernel_otel.cli", "export", str(path)]
        ours = receiver.measure(command, folder, few)
        _report("the command, of the same", few, ours)
        ratio = ours.processor_seconds / by_sdk.processor_seconds
        print(f"ratio {ratio:.2f} of the processor time, imports included")


class _Measured(NamedTuple):
    seconds: float
    processor_seconds: float
    megabytes: float


def _report(what: str, records: int, measured: _Measured) -> None:
    print(
        f"{what}: {records:,} records in {measured.seconds:.1f} s, "
        f"{records / measured.seconds:,.0f} records/s, "
        f"{measured.processor_seconds / records * 1e6:.0f} us of processor time each, "
        f"peak {measured.megabytes:.0f} MB",
        flush=True,
    )


class _Receiver:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._ask, self._answers = process.stdin, process.stdout
        self._port = json.loads(self._answers.readline())["receiver"]

    def received(self) -> int:
        self._ask.write("\n")
        self._ask.flush()
        return int(json.loads(self._answers.readline())["receiver"])

    def measure(self, command: list[str], folder: Path, records: int) -> _Measured:
        """Run a command that sends so many records, all of which have to come."""
        before = self.received()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._port}",
            "XDG_STATE_HOME": str(folder / "state"),
        }
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(errors)
        received = self.received() - before
        if received != records:
            raise SystemExit(f"{received:,} spans were received of {records:,} records")
        unit = 1 if sys.platform == "darwin" else 1024
        processor_seconds = usage.ru_utime + usage.ru_stime
        return _Measured(seconds, processor_seconds, usage.ru_maxrss * unit / 1_000_000)


@contextmanager
def _receiver() -> Iterator[_Receiver]:
    program = str(Path(__file__).with_name("counting_receiver.py"))
    process = subprocess.Popen(
        [sys.executable, program, json.dumps({"receiver": "grpc"})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Receiver(process)
    finally:
        process.kill()
        process.communicate()


def _records(number: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """What a busy kernel writes: 40 capabilities, 500 principals, 1 in 20 failed, 1 in 50 denied."""
    for n in range(number):
        is_denied, is_failed = n % 50 == 0, n % 20 == 0
        yield (
            n,
            {
                "action_id": f"{n:08x}-8c1d-4f0a-9d4e-2b7f3c5a6e10",
                "capability_id": f"billing.capability_{n % 40}",
                "principal_id": f"user-{n % 500}",
                "token_id": "" if is_denied else f"{n:08x}-5b2e-4c3d-8a1f-0e9d8c7b6a50",
                "invoked_at": (_FIRST + timedelta(microseconds=n * 1_003)).isoformat(),
                "response_mode": "summary",
                "driver_id": "memory",
                "handle_id": None if is_failed else f"{n:08x}-1d2c-4b3a-9f8e-7d6c5b4a3f20",
                "sensitivity": "NONE",
                "status": "failed" if is_failed else "succeeded",
                "event_type": "deny" if is_denied else "invoke",
                "reason_code": "missing_role" if is_denied else None,
                "error": "the service is down" if is_failed else None,
                "args": {"customer": f"customer {n}", "limit": 50},
                "result_summary": None
                if is_failed
                else {"fact_count": 3, "row_count": n % 50, "warning_count": 0, "has_handle": True},
                "correction": None,
            },
        )


def _write_jsonl(path: Path, number: int) -> Path:
    with path.open("w") as file:
        for seq, trace in _records(number):
            link = {"seq": seq, "prev_hash": "0" * 64, "record_hash": f"{seq:064x}"}
            file.write(json.dumps({**link, "trace": trace}) + "\n")
    return path


def _write_sqlite(path: Path, number: int) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE traces (seq INTEGER PRIMARY KEY, action_id TEXT UNIQUE NOT NULL, "
            "prev_hash TEXT NOT NULL, record_hash TEXT NOT NULL, invoked_at TEXT NOT NULL, "
            "payload TEXT NOT NULL)"
        )
        connection.executemany(
            "INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?)",
            (
                (n, t["action_id"], "0" * 64, f"{n:064x}", t["invoked_at"], json.dumps(t))
                for n, t in _records(number)
            ),
        )
    return path


def _write_links(path: Path, number: int) -> Path:
    with path.open("w") as file:
        for _, trace in _records(number):
            ids = sha256(trace["action_id"].encode()).hexdigest()
            traceparent = f"00-{ids[:32]}-{ids[32:48]}-01"
            line = {"action_id": trace["action_id"], "traceparent": traceparent}
            file.write(json.dumps(line) + "\n")
    return path


_WRITERS = {"jsonl": _write_jsonl, "sqlite": _write_sqlite}


if __name__ == "__main__":
    main()
