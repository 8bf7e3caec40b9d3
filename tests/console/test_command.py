# SPDX-License-Identifier: Apache-2.0
"""The console as people and scripts use it: a process of its own, sent to by real exporters."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent_kernel_otel import semconv
from agent_kernel_otel.cli import main
from agent_kernel_otel.console.child import environment_for
from tests.console.conftest import Receiving
from tests.console.harness import (
    SAMPLE_AGENT,
    TIMEOUT_SECONDS,
    Console,
    console_command,
    console_environment,
    send_grpc,
    span,
    traces_request,
)

if TYPE_CHECKING:
    from typing_extensions import Self

AGENT = ("--", sys.executable, SAMPLE_AGENT)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        console_command(*arguments),
        env=console_environment(**environment),
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


# Running a command ----------------------------------------------------------------------------


def test_what_a_command_sends_is_drawn_and_its_exit_code_is_ours() -> None:
    done = run("--grpc-port", "0", "--http-port", "0", *AGENT, "7")
    assert done.returncode == 7, done.stderr
    text = done.stdout
    for told in (
        "stdout of the sample agent",
        "✓ agent_kernel.invoke  billing.list_invoices",
        "↻ fallback  ▒ 2 redactions  downgraded table→summary (budget)",
        "├─ ✗ driver.execute  billing_primary",
        "⊘ agent_kernel.grant  billing.delete",
        "denied: role_missing (identity)  rule writers-only",
        "   └─ ≡ WARN",
        "├─ ✗ execute_tool crm.lookup",
        "◌ agent_kernel.invoke  crm.export",
        "log records without a span",
        "agent.started",
        "agent_kernel.invocations",
        "  n=3 p50~",
        "4 traces, 12 spans, 3 log records, 4 metric points, 2 redactions, 1 fallback",
        "1 denied (role_missing billing.delete x1), 1 cancelled, 2 failed spans",
        "; the command exited with 7",
    ):
        assert told in text
    assert re.search(r"granted in trace [0-9a-f]{8}\n", text)
    assert "\x1b" not in text
    assert "stderr of the sample agent" in done.stderr


def test_json_on_stdout_is_one_object_a_line_with_hexadecimal_ids() -> None:
    done = run("--json", "--grpc-port", "0", "--http-port", "0", *AGENT)
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [next(iter(message)) for message in messages]
    assert set(kinds) == {"resourceSpans", "resourceLogs", "resourceMetrics"}
    traces = [_spans(message) for message in messages if "resourceSpans" in message]
    assert [len({item["traceId"] for item in spans}) for spans in traces] == [1, 1, 1, 1]
    every = [item for spans in traces for item in spans]
    assert len(every) == 12
    for item in every:
        assert re.fullmatch(r"[0-9a-f]{32}", item["traceId"])
        assert re.fullmatch(r"[0-9a-f]{16}", item["spanId"])
    by_id = {item["spanId"]: item for item in every}
    (link,) = next(item["links"] for item in every if item.get("links"))
    assert by_id[link["spanId"]]["name"] == semconv.GRANT
    children = [item for item in every if item["name"] == semconv.DRIVER]
    assert [by_id[item["parentSpanId"]]["name"] for item in children] == [semconv.INVOKE] * 2
    assert children[0]["status"]["code"] == 2
    records = [
        record
        for message in messages
        for of_resource in message.get("resourceLogs", ())
        for of_scope in of_resource["scopeLogs"]
        for record in of_scope["logRecords"]
    ]
    assert {by_id[record["spanId"]]["name"] for record in records if "spanId" in record} == {
        semconv.POLICY,
        "execute_tool crm.lookup",
    }
    assert "stdout of the sample agent" in done.stderr
    assert "4 traces, 12 spans" in done.stderr


def _spans(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        item
        for of_resource in message["resourceSpans"]
        for of_scope in of_resource["scopeSpans"]
        for item in of_scope["spans"]
    ]


def test_an_uninstrumented_command_gets_a_hint() -> None:
    done = run("--grpc-port", "0", "--http-port", "0", "--", sys.executable, "-c", "")
    assert done.returncode == 0
    assert "nothing was received: is it instrumented" in done.stdout


def test_a_command_that_dies_of_a_signal_gives_the_exit_code_of_a_shell() -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = run("--grpc-port", "0", "--http-port", "0", "--", sys.executable, "-c", program)
    assert done.returncode == 137


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), (SAMPLE_AGENT, 126)])
def test_a_command_that_cannot_be_run_is_named(program: str, code: int) -> None:
    done = run("--grpc-port", "0", "--http-port", "0", "--", program)
    assert done.returncode == code
    assert f"cannot run {program}" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_is_passed_on_and_what_the_command_says_then_is_drawn() -> None:
    program = (
        "import signal, sys\n"
        f"sys.argv[1:] = []; sys.path.insert(0, {str(Path(SAMPLE_AGENT).parent)!r})\n"
        "import sample_agent\n"
        "def stop(*_):\n    sample_agent.main(); sys.exit(9)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    with Console("--", sys.executable, "-c", program) as console:
        console.wait_for("stdout", "ready")
        assert console.stop(signal.SIGTERM) == 9
        assert "✓ agent_kernel.invoke  billing.list_invoices" in console.stdout


def test_a_command_that_ignores_ctrl_c_is_ended_by_the_second_one() -> None:
    program = (
        "import signal\n"
        "signal.signal(signal.SIGINT, lambda *_: print('interrupted', flush=True))\n"
        "import os; print('ready', os.getpid(), flush=True)\n"
        "while True: signal.pause()\n"
    )
    with Console("--", sys.executable, "-c", program) as console:
        console.wait_for("stdout", "\n")
        child = int(console.stdout.split()[1])
        # As a terminal does: to the command as well.
        console.process.send_signal(signal.SIGINT)
        os.kill(child, signal.SIGINT)
        console.wait_for("stdout", "interrupted")
        console.wait_for("stderr", "Ctrl-C again to end it")
        assert console.process.poll() is None
        assert console.stop() == 143


def test_the_command_sends_here_whatever_the_environment_said(receiving: Receiving) -> None:
    receiver = receiving.receiver
    grpc_url, http_url = receiver.url(receiver.grpc_port), receiver.url(receiver.http_port)
    plain = environment_for(receiver, {})
    assert plain == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": grpc_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    over_http = environment_for(receiver, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert over_http["OTEL_EXPORTER_OTLP_ENDPOINT"] == http_url
    assert over_http["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    mixed = environment_for(
        receiver,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere:4317",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://elsewhere:4317",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
            "OTEL_EXPORTER_OTLP_INSECURE": "false",
            "OTEL_EXPORTER_OTLP_METRICS_INSECURE": "false",
            "HTTP_PROXY": "http://proxy",
            "no_proxy": "intranet",
        },
    )
    assert mixed["OTEL_EXPORTER_OTLP_ENDPOINT"] == grpc_url
    assert mixed["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == f"{http_url}/v1/traces"
    assert "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" not in mixed
    assert not [name for name in mixed if name.endswith("_INSECURE")]
    assert mixed["no_proxy"] == "intranet,127.0.0.1,localhost,::1"


# Running until stopped ------------------------------------------------------------------------


def test_a_finished_trace_is_drawn_while_the_console_runs_and_late_spans_after_it() -> None:
    with Console() as console:
        root = traces_request(span("root")).SerializeToString()
        send_grpc(console.grpc_port, root)
        console.wait_for("stdout", "• root")
        late = traces_request(span("late", span_id="02" * 8, parent_id="01" * 8))
        send_grpc(console.grpc_port, late.SerializeToString())
        console.wait_for("stdout", "└─ • late")
        assert "updated: 1 late span" in console.stdout
        assert console.stop() == 0
        assert console.stdout.endswith("1 trace, 2 spans\n")
        assert "\x1b" not in console.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_unfinished_trace_is_drawn_when_the_console_is_stopped(number: int) -> None:
    with Console() as console:
        request = traces_request(span("child", parent_id="99" * 8))
        send_grpc(console.grpc_port, request.SerializeToString())
        assert console.stop(number) == 0
        assert "• child  1.00 ms  (parent 9999999999999999 not received)" in console.stdout


def test_every_span_is_in_json_exactly_once_also_a_late_one() -> None:
    with Console("--json") as console:
        send_grpc(console.grpc_port, traces_request(span("root")).SerializeToString())
        console.wait_for("stdout", "\n")
        late = traces_request(span("\x1b[2J\u202e", span_id="02" * 8, parent_id="01" * 8))
        send_grpc(console.grpc_port, late.SerializeToString())
        console.wait_for("stdout", "\n", 2)
        assert console.stop() == 0
        names = [[item["name"] for item in _spans(line)] for line in console.json_lines]
        assert names == [["root"], ["\x1b[2J\u202e"]]
        assert all(character.isprintable() or character == "\n" for character in console.stdout)


def test_refusals_are_told_on_stderr_without_control_codes() -> None:
    with Console() as console:
        with socket.create_connection(("127.0.0.1", console.http_port)) as connection:
            connection.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: \xc2\x9b31mevil\r\n\r\n")
            assert connection.recv(12) in (b"HTTP/1.1 400",)
        console.wait_for("stderr", "refused over HTTP")
        assert console.stop() == 0
        assert all(character.isprintable() or character == "\n" for character in console.stderr)


def test_bytes_that_are_no_http_do_not_disturb() -> None:
    with Console() as console:
        for port in (console.http_port, console.grpc_port):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"\x00\xff\x1b]0;owned\x07\r\n\r\n" * 100)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
        send_grpc(console.grpc_port, traces_request(span("after")).SerializeToString())
        console.wait_for("stdout", "• after")
        assert console.stop() == 0
        assert "Traceback" not in console.stderr


def test_listening_for_other_machines_comes_with_a_warning() -> None:
    with Console("--host", "0.0.0.0") as console:
        assert "warning: 0.0.0.0 can be reached from other machines" in console.stderr
        send_grpc(console.grpc_port, traces_request(span("root")).SerializeToString())
        console.wait_for("stdout", "• root")
        assert console.stop() == 0


def test_old_spans_give_way_and_the_summary_says_so() -> None:
    with Console("--max-spans", "2") as console:
        for number in range(1, 6):
            request = traces_request(span(f"work {number}", trace_id=f"{number:032x}"))
            send_grpc(console.grpc_port, request.SerializeToString())
            console.wait_for("stdout", f"• work {number}")
        assert console.stop() == 0
        assert "the oldest 3 spans were evicted" in console.stdout


def test_a_database_outlives_the_console_and_can_be_shown_again(tmp_path: Path) -> None:
    file = str(tmp_path / "telemetry.db")
    with Console("--db", file) as console:
        send_grpc(console.grpc_port, traces_request(span("first")).SerializeToString())
        assert console.stop() == 0
    with Console("--db", file) as console:
        late = traces_request(span("second", span_id="02" * 8, parent_id="01" * 8))
        send_grpc(console.grpc_port, late.SerializeToString())
        assert console.stop() == 0
        assert "updated: 1 late span" in console.stdout
        assert "• first  1.00 ms  (shown before)" in console.stdout
    with Console("--db", file, "--history", "--json") as console:
        assert console.stop() == 0
        names = [[item["name"] for item in _spans(line)] for line in console.json_lines]
        assert names == [["first", "second"]]


def test_the_summary_counts_what_is_shown_history_or_not(tmp_path: Path) -> None:
    file = str(tmp_path / "telemetry.db")
    ports = ("--grpc-port", "0", "--http-port", "0", "--db", file)
    once = "4 traces, 12 spans, 3 log records, 4 metric points, 2 redactions, 1 fallback, "
    denied = "1 denied (role_missing billing.delete x1), 1 cancelled, 2 failed spans"
    assert once + denied in run(*ports, *AGENT).stdout
    assert once + denied in run(*ports, *AGENT).stdout
    twice = run(*ports, "--history", "--", sys.executable, "-c", "").stdout
    assert (
        "8 traces, 24 spans, 6 log records, 8 metric points, 4 redactions, 2 fallbacks, "
        "2 denied (role_missing billing.delete x2), 2 cancelled, 4 failed spans"
    ) in twice


def test_a_reader_that_goes_away_ends_the_console_quietly() -> None:
    with Console() as console:
        assert console.process.stdout
        reader = console.process.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_RDONLY), reader)
        # The reading thread still waits on the pipe until something arrives.
        send_grpc(console.grpc_port, traces_request(span("one")).SerializeToString())
        deadline = time.monotonic() + TIMEOUT_SECONDS
        number = 1
        while console.process.poll() is None and time.monotonic() < deadline:
            number += 1
            request = traces_request(span("more", trace_id=f"{number:032x}"))
            try:
                send_grpc(console.grpc_port, request.SerializeToString())
            except Exception:
                break
        assert console.wait() == 141
        assert "Traceback" not in console.stderr
        assert "Broken" not in console.stderr


# What cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--grpc-port", "--http-port"])
def test_a_port_in_use_is_one_clear_line_and_exit_code_2(option: str) -> None:
    other = "--http-port" if option == "--grpc-port" else "--grpc-port"
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = run(option, port, other, "0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"port {port} on 127.0.0.1 is in use" in line
    assert option in line


@pytest.mark.parametrize("port", ["0", "4999"])
def test_an_address_of_another_machine_is_called_that_and_no_port_in_use(port: str) -> None:
    done = run("--host", "192.0.2.1", "--grpc-port", port, "--http-port", "0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == "agent-kernel-otel: --host 192.0.2.1 is no address of this machine"


def test_one_port_for_both_protocols_is_not_blamed_on_another_program() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = str(holder.getsockname()[1])
    done = run("--grpc-port", port, "--http-port", port)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"--grpc-port and --http-port are both {port}" in line


def test_a_second_console_on_the_same_ports_is_told_so() -> None:
    with Console() as console:
        done = run("--grpc-port", str(console.grpc_port), "--http-port", "0")
        assert done.returncode == 2
        assert f"port {console.grpc_port} on 127.0.0.1 is in use" in done.stderr
        assert console.stop() == 0


def test_a_foreign_file_as_database_is_one_clear_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("something of mine\n" * 100)
    done = run("--db", str(file))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "notes.txt" in line


@pytest.mark.parametrize("package", ["rich", "starlette", "uvicorn", "anyio"])
def test_a_missing_package_is_one_clear_line_and_exit_code_2(package: str, tmp_path: Path) -> None:
    # A package that is not there, as the import system reports it.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    environment = console_environment()
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    done = subprocess.run(
        console_command(), env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    # None of those that only they need: a reader does not find them in the extra.
    assert line == (
        "agent-kernel-otel: the console needs rich, starlette and uvicorn, and not all is here: "
        "pip install 'agent-kernel-otel[console]'"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--grpc-port", "70000"], "70000"),
        (["--max-spans", "0"], "is no whole number of at least 1"),
        (["--grpc-port", "x"], "'x' is no port (0 to 65535)"),
        (["python", "app.py"], "after --"),
        (["--history"], "--db"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["console", *arguments])
    assert raised.value.code == 2
    assert told in capsys.readouterr().err


def test_help_names_the_commands_and_what_json_writes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "console" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["console", "--help"])
    assert "resourceLogs" in capsys.readouterr().out.encode("ascii").decode()


def test_the_command_line_imports_nothing_heavy() -> None:
    program = (
        "import sys; from agent_kernel_otel.cli import main\n"
        "try: main(['console', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'google.protobuf', 'rich', 'starlette', 'uvicorn', 'sqlite3'}\n"
        "print('heavy:', sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=console_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


# On a terminal --------------------------------------------------------------------------------

pty = pytest.importorskip("pty") if sys.platform != "win32" else None


_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, sys.argv[1:])
"""


class OnTerminal:
    """The console on a pseudo-terminal of 100 columns."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        assert pty
        self.text = ""
        self._parent, child = pty.openpty()
        self.process = subprocess.Popen(
            # In a shell's place: makes the terminal the session's own, then becomes the console.
            [
                sys.executable,
                "-c",
                _TAKE_TERMINAL,
                *console_command("--grpc-port", "0", "--http-port", "0", *arguments),
            ],
            env=console_environment(TERM="xterm-256color", COLUMNS="100", **environment),
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} in {self.text!r}"
            self._read(0.2)

    def press(self, key: str) -> None:
        os.write(self._parent, key.encode())

    def end(self) -> int:
        while self._read(TIMEOUT_SECONDS):
            pass
        return self.process.wait(TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._parent)

    def _read(self, timeout: float) -> bool:
        if not select.select([self._parent], [], [], timeout)[0]:
            return False
        try:
            chunk = os.read(self._parent, 65_536)
        except OSError:
            return False
        self.text += chunk.decode()
        return bool(chunk)


def test_on_a_terminal_traces_have_colour_and_a_footer_and_metrics_come_by_key() -> None:
    with OnTerminal() as console:
        console.wait_for("m metrics, Ctrl-C stop")
        console.press("m")
        console.wait_for("no metrics have arrived yet")
        port = re.search(r"gRPC http://127.0.0.1:(\d+)", console.text)
        assert port
        environment = console_environment(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port[1]}")
        agent = [sys.executable, SAMPLE_AGENT]
        subprocess.run(agent, env=environment, timeout=60, check=True, capture_output=True)
        console.wait_for("agent.started")
        assert "\x1b[1;33m⊘ agent_kernel.grant" in console.text
        console.wait_for("4 traces, 12 spans")
        before = console.text
        console.press("m")
        console.wait_for("n=3 p50~")
        assert "n=3 p50~" not in before
        console.press("\x03")
        assert console.end() == 0
        assert console.text.count("\x1b[?25l") == console.text.count("\x1b[?25h") == 1


@pytest.mark.parametrize(
    ("arguments", "environment"), [(("--no-color",), {}), ((), {"NO_COLOR": "1"})]
)
def test_no_color_on_a_terminal_leaves_symbols_and_words(
    arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    with OnTerminal(*arguments, *AGENT, **environment) as console:
        assert console.end() == 0
        assert "⊘ agent_kernel.grant" in re.sub(r"\x1b\[[012]m", "", console.text)
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]", console.text)


def test_long_lines_on_a_terminal_are_wrapped_along_the_guides() -> None:
    with OnTerminal(*AGENT) as console:
        assert console.end() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", console.text).splitlines()
    assert any(
        "downgraded table→summary (budget)" in line and line.startswith("│  ") for line in lines
    )
    tree = [line for line in lines if line[:1] in tuple("├│└✓✗⊘◌•")]
    assert len(tree) > 10
    # What belongs together is not torn apart.
    assert not [line for line in lines if line.strip("│ ").startswith(("µs", "ms", "table"))]
    assert max(len(line) for line in tree) <= 100


def test_colour_can_be_forced_on_a_pipe_but_never_cursor_codes() -> None:
    with Console(FORCE_COLOR="1") as console:
        send_grpc(console.grpc_port, traces_request(span("root")).SerializeToString())
        console.wait_for("stdout", "root")
        assert console.stop() == 0
        assert "\x1b[" in console.stdout
        assert not re.sub(r"\x1b\[[0-9;]*m", "", console.stdout).count("\x1b")


def test_an_ascii_stream_gets_ascii() -> None:
    done = run(
        "--grpc-port", "0", "--http-port", "0", *AGENT, PYTHONIOENCODING="ascii"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "! agent_kernel.grant  billing.delete" in done.stdout
    assert "|- x driver.execute  billing_primary" in done.stdout
    assert done.stdout.isascii()
