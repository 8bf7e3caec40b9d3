# SPDX-License-Identifier: Apache-2.0
"""The console as a program: receiver, store, feed and output put together, signals, the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from agent_kernel_otel.console import child as child_process
from agent_kernel_otel.console.child import CommandFailed
from agent_kernel_otel.console.feed import Feed, Output
from agent_kernel_otel.console.intake import Intake
from agent_kernel_otel.console.json_output import JsonOutput
from agent_kernel_otel.console.keys import pressed_keys
from agent_kernel_otel.console.notices import Notices
from agent_kernel_otel.console.receiver import PortUnavailable, Receiver, is_loopback
from agent_kernel_otel.console.schema import StoreError
from agent_kernel_otel.console.store import Store
from agent_kernel_otel.console.terminal import Terminal, write_notice

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from types import FrameType

    from agent_kernel_otel.console.options import ConsoleOptions

_STEP_SECONDS: Final = 0.1
_DRAIN_QUIET_SECONDS: Final = 0.25
_DRAIN_SECONDS: Final = 2.0
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141
_DENIALS_NAMED: Final = 3
_METRICS_KEY: Final = "m"


def run_console(options: ConsoleOptions) -> int:
    """Runs the console until its command has ended, or until it is told to stop.

    Args:
        options: What to do.

    Returns:
        The exit code.
    """
    try:
        store = Store(options.database, max_spans=options.max_spans)
    except StoreError as error:
        write_notice(str(error))
        return _USAGE_ERROR
    try:
        run = _ConsoleRun(options, store)
        with _signals_call(run.on_signal):
            return run.run()
    except PortUnavailable as error:
        write_notice(str(error))
        return _USAGE_ERROR
    except CommandFailed as error:
        write_notice(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        store.close()


class _ConsoleRun:
    def __init__(self, options: ConsoleOptions, store: Store) -> None:
        self._options = options
        self._store = store
        self._terminal: Terminal | None = None
        output: Output
        if options.json:
            output = JsonOutput(sys.stdout)
            self._notices = Notices(write_notice)
        else:
            output = self._terminal = Terminal(
                sys.stdout, color=options.color, attributes=options.attributes
            )
            self._notices = Notices(self._terminal.notice)
        if options.history:
            store.count_history()
        self._feed = Feed(store, output, self._notices, history=options.history)
        self._child: subprocess.Popen[bytes] | None = None
        self._stop_requests = 0
        self._metrics_wanted = False

    def on_signal(self, number: int) -> None:
        """Takes note of SIGINT or SIGTERM; called between any two instructions of :meth:`run`."""
        self._stop_requests += 1
        child = self._child
        if child is not None and child.returncode is None:
            # A terminal sends its Ctrl-C to the command as well; only the impatient ask again.
            if number != signal.SIGINT or self._stop_requests > 1:
                child.terminate()
        elif self._stop_requests > 1:
            raise KeyboardInterrupt

    def run(self) -> int:
        options = self._options
        intake = Intake(self._store, self._notices)
        receiver = Receiver(intake, options.host, options.grpc_port, options.http_port)
        exit_code = 0
        with contextlib.ExitStack() as stack:
            stack.callback(receiver.stop)
            self._announce(receiver)
            try:
                if options.command and not self._stop_requests:
                    self._child = self._start_child(receiver)
                    self._follow_child(self._child)
                else:
                    self._follow_until_stopped()
                stack.close()
                self._feed.finish()
                self._conclude()
            except BrokenPipeError:
                # Whoever read our output has gone; the command is still to end in its own way.
                _discard_stdout()
                exit_code = _BROKEN_PIPE
            return child_process.exit_code_of(self._child) if self._child else exit_code

    def _announce(self, receiver: Receiver) -> None:
        if not is_loopback(self._options.host):
            self._notices.say(
                f"warning: {self._options.host} can be reached from other machines, and whoever "
                "reaches it can send"
            )
        self._notices.say(
            f"listening: gRPC {receiver.url(receiver.grpc_port)}, "
            f"HTTP {receiver.url(receiver.http_port)}"
        )

    def _start_child(self, receiver: Receiver) -> subprocess.Popen[bytes]:
        for name in child_process.redirected_endpoints(os.environ):
            self._notices.say(f"{name} is replaced for the command: it sends here")
        return child_process.start(
            self._options.command,
            child_process.environment_for(receiver, os.environ),
            stdout_to_stderr=self._options.json,
        )

    def _follow_child(self, child: subprocess.Popen[bytes]) -> None:
        told = False
        while child.poll() is None:
            self._feed.step(_STEP_SECONDS)
            if self._stop_requests and not told:
                told = True
                self._notices.say("waiting for the command to end; Ctrl-C again to end it")
        ended = time.monotonic()
        while True:
            since_end = time.monotonic() - ended
            quiet = min(since_end, self._feed.quiet_for())
            if quiet >= _DRAIN_QUIET_SECONDS or since_end >= _DRAIN_SECONDS:
                return
            self._feed.step(_DRAIN_QUIET_SECONDS - quiet)

    def _follow_until_stopped(self) -> None:
        with contextlib.ExitStack() as screen:
            if self._terminal is not None and self._terminal.is_terminal:
                can_press = screen.enter_context(pressed_keys(self._on_key))
                screen.enter_context(self._terminal.footer(lambda: self._footer(can_press)))
            while not self._stop_requests:
                self._feed.step(_STEP_SECONDS)
                if self._terminal is None:
                    continue
                self._terminal.refresh_footer()
                if self._metrics_wanted:
                    self._metrics_wanted = False
                    if not self._terminal.metrics(self._store):
                        self._terminal.line("no metrics have arrived yet")

    def _on_key(self, key: str) -> None:
        self._metrics_wanted |= key == _METRICS_KEY

    def _footer(self, can_press: bool) -> str:
        keys = f"{_METRICS_KEY} metrics, Ctrl-C stop" if can_press else "Ctrl-C stop"
        waiting = self._feed.waiting
        unfinished = f", {waiting:,} unfinished" if waiting else ""
        return f" {keys} | {self._totals()}{unfinished} "

    def _conclude(self) -> None:
        if self._terminal is not None:
            self._terminal.metrics(self._store)
        summary = self._summary()
        if self._child is not None:
            summary += f"; the command exited with {child_process.exit_code_of(self._child)}"
        if self._terminal is not None:
            self._terminal.line(summary)
        else:
            self._notices.say(summary)
        self._notices.flush()

    def _summary(self) -> str:
        counters = self._store.counters
        if not (counters.spans or counters.logs or counters.points or self._feed.shown):
            hint = ""
            if self._options.command:
                hint = ": is it instrumented, for example run under opentelemetry-instrument?"
            return f"nothing was received{hint}"
        summary = self._totals(self._named_denials())
        for count, what in (
            (counters.evicted_spans, "spans"),
            (counters.evicted_logs, "log records"),
            (counters.evicted_series, "metric series"),
        ):
            if count:
                summary += f"; the oldest {count:,} {what} were evicted"
        if counters.rejected:
            summary += f"; {counters.rejected:,} spans with invalid ids were refused"
        return summary

    def _named_denials(self) -> str:
        denials = self._store.denials(self._feed.opened_at)
        named = [
            f"{reason or 'no reason'} {capability}".rstrip() + f" x{count}"
            for reason, capability, count in denials[:_DENIALS_NAMED]
        ]
        more = len(denials) - len(named)
        return ", ".join([*named, f"{more} other kinds"] if more > 0 else named)

    def _totals(self, denials: str = "") -> str:
        counters = self._store.counters
        parts = [_count(self._feed.shown, "trace"), _count(counters.spans, "span")]
        parts += [
            _count(number, word)
            for number, word in (
                (counters.logs, "log record"),
                (counters.points, "metric point"),
                (counters.redactions, "redaction"),
                (counters.fallbacks, "fallback"),
            )
            if number
        ]
        if counters.denied:
            parts.append(f"{counters.denied:,} denied" + (f" ({denials})" if denials else ""))
        if counters.cancelled:
            parts.append(f"{counters.cancelled:,} cancelled")
        if counters.errors:
            parts.append(_count(counters.errors, "failed span"))
        return ", ".join(parts)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


@contextlib.contextmanager
def _signals_call(handler: Callable[[int], None]) -> Iterator[None]:
    def handle(number: int, _: FrameType | None) -> None:
        handler(number)

    before: dict[Any, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _discard_stdout() -> None:
    # The interpreter flushes stdout at exit, and would complain.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
