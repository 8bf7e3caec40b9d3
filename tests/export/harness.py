# SPDX-License-Identifier: Apache-2.0
"""Audit files as kernels write them, the command as a user types it, and a receiver to break."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from weaver_kernel.stores import audit_chain

from tests.support.otlp_records import Received

ROOT = Path(__file__).parents[2]
KEY = "the key of the chain"
FIRST = datetime(2026, 1, 1, tzinfo=timezone.utc)
TIMEOUT = 60.0


def record(number: int, **changes: Any) -> dict[str, Any]:
    """A record as the kernel's stores write it; one is written each second."""
    return {
        "action_id": f"action-{number}",
        "capability_id": "tasks.list",
        "principal_id": "alice",
        "token_id": f"token-{number}",
        "invoked_at": (FIRST + timedelta(seconds=number)).isoformat(),
        "response_mode": "summary",
        "driver_id": "memory",
        "handle_id": None,
        "sensitivity": "NONE",
        "status": "succeeded",
        "event_type": "invoke",
        "reason_code": None,
        "error": None,
        "args": {},
        "result_summary": {
            "fact_count": 1,
            "row_count": 2,
            "warning_count": 0,
            "has_handle": False,
        },
        "correction": None,
        **changes,
    }


def failure(number: int, **changes: Any) -> dict[str, Any]:
    return record(
        number, **{"status": "failed", "error": "it broke", "result_summary": None, **changes}
    )


def denial(number: int, **changes: Any) -> dict[str, Any]:
    return failure(
        number, **{"event_type": "deny", "token_id": "", "reason_code": "missing_role", **changes}
    )


class Jsonl:
    """A JSONL trace store, chained as the kernel's own."""

    def __init__(self, path: Path, *, after: Jsonl | None = None) -> None:
        self.path = path
        self.seq: int = after.seq if after else 0
        self.hash: str = after.hash if after else audit_chain.GENESIS_HASH

    def add(self, *records: dict[str, Any]) -> Jsonl:
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{self.line(each)}\n" for each in records)
        return self

    def add_text(self, text: str) -> Jsonl:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
        return self

    def line(self, trace: dict[str, Any]) -> str:
        built = audit_chain.build_record(self.seq, self.hash, trace, secret=KEY)
        self.seq, self.hash = built.seq + 1, built.record_hash
        return json.dumps(
            {
                "seq": built.seq,
                "prev_hash": built.prev_hash,
                "record_hash": built.record_hash,
                "trace": built.trace,
            }
        )


def trail(path: Path, number: int) -> Jsonl:
    """A JSONL file of so many records."""
    return Jsonl(path).add(*map(record, range(number)))


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "agent_kernel_otel.cli", "export", *map(str, arguments)]


class Shell:
    """Where the command is typed: a home, a directory, and the variables of a receiver."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.directory = directory
        self.state = directory / "state"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OTEL_") and name not in {"COLUMNS", "WEAVER_KERNEL_SECRET"}
        }
        self.environment = {
            **inherited,
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONIOENCODING": "utf-8",
            "XDG_STATE_HOME": str(self.state),
            **variables,
        }

    def checkpoints(self) -> list[Path]:
        """The ones that exports have left behind which nobody named one for."""
        return [path for path in self.state.rglob("*.json") if path.is_file()]

    def export(
        self, *arguments: str | Path, stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments),
            input=stdin,
            env={**self.environment, **variables},
            cwd=self.directory,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def summary(self, *arguments: str | Path, **more: Any) -> dict[str, Any]:
        """What ``--json`` writes."""
        done = self.export(*arguments, "--json", **more)
        assert done.stdout.count("\n") == 1, done.stdout + done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        assert summary["exit_code"] == done.returncode
        assert (
            summary["read"]
            == summary["failed"]
            + summary["skipped"]
            + summary["to_export" if summary["dry_run"] else "exported"]
        )
        return summary

    @contextmanager
    def exporting(
        self, *arguments: str | Path, **options: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The command while it runs."""
        # What this process ignores the command would too, as a job in the background.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            command(*arguments),
            env=self.environment,
            cwd=self.directory,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )
        signal.signal(signal.SIGINT, before)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def action_ids(spans: Iterable[Any]) -> list[str]:
    """The actions that spans are of, in order."""
    return [span.attributes["agent_kernel.action_id"] for span in spans]


def actions(numbers: Iterable[int]) -> list[str]:
    """The actions of records, as :func:`action_ids` has them."""
    return [f"action-{number}" for number in numbers]


class Receiver(Received):
    """A gRPC receiver in a process of its own, always at the same port, that can die.

    Args:
        directory: Where it writes what it receives.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "received.jsonl")
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Begin anew, for the next test."""
        self._all().clear()

    def start(self, *, takes: int = -1, then: str = "hold") -> None:
        """Have it listen.

        Args:
            takes: How many requests it takes; all of them, if negative.
            then: ``hold`` the next one without an answer, or ``die`` of it.
        """
        wanted = {"port": self.port, "output": str(self.written), "takes": takes, "then": then}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.export.receiving", json.dumps(wanted)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def wait_for_end(self) -> None:
        """Wait until it has died."""
        assert self._process is not None
        self._process.wait(TIMEOUT)
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
