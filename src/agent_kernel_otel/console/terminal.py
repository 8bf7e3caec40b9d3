# SPDX-License-Identifier: Apache-2.0
"""Output for people: traces, logs and metrics on a terminal, or as plain lines on a pipe."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from agent_kernel_otel.console.drawing import draw_logs, draw_trace
from agent_kernel_otel.console.glyphs import GLUE, glyphs_for
from agent_kernel_otel.console.metrics import draw_metrics
from agent_kernel_otel.console.records import view_log
from agent_kernel_otel.console.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent_kernel_otel.console.drawing import Line
    from agent_kernel_otel.console.records import ReceivedLog, Trace
    from agent_kernel_otel.console.store import Store

_NARROWEST: Final = 20
_PIPE_WIDTH: Final = 10_000
_LINE_LENGTH: Final = 1_000


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        # rich would end the process here; what to do about it is not the drawing's business.
        raise BrokenPipeError


class Terminal:
    """Draws on a stream.

    On a terminal, lines are wrapped along the tree's guides and a footer can be kept below them.
    Elsewhere every entry is one line, without cursor codes, and without colour unless the
    environment forces it.

    Args:
        stream: Where the drawing goes.
        color: False for none; None to decide by the stream and by ``NO_COLOR``.
        attributes: Whether to show every attribute of every span.
    """

    def __init__(
        self, stream: TextIO, *, color: bool | None = None, attributes: bool = False
    ) -> None:
        # Foreign text may hold characters that the stream cannot encode: better shown as codes
        # than not at all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self.is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._stream = stream
        self._glyphs = glyphs_for(stream.encoding)
        self._attributes = attributes
        self._console = _Console(
            file=stream,
            no_color=True if color is False else None,
            markup=False,
            emoji=False,
            highlight=False,
            width=None if self.is_terminal else _PIPE_WIDTH,
        )
        self._live: Live | None = None
        self._footer_text: Callable[[], str] = str
        self._footer_shown = ""
        self._lock = threading.RLock()

    def requests(self, store: Store, after: int, until: int) -> None:
        """Does nothing: traces are drawn once they are finished."""

    def trace(self, trace: Trace, after: int) -> None:
        """Draws a trace, or what of it came in requests later than ``after``."""
        tree = build_tree(trace, after)
        self._print(draw_trace(tree, self._glyphs, attributes=self._attributes))

    def logs(self, logs: list[ReceivedLog]) -> None:
        """Draws log records that name no trace."""
        self._print(draw_logs([view_log(log) for log in logs], self._glyphs))

    def metrics(self, store: Store) -> bool:
        """Draws the latest value of every metric series, if there is one.

        Returns:
            Whether there was one.
        """
        every = store.metric_series()
        if not every:
            return False
        self._print(draw_metrics(every, self._glyphs))
        return True

    def line(self, text: str) -> None:
        """Writes one line of ours."""
        with self._lock:
            self._console.print(Text(self._glyphs.clean(text, _LINE_LENGTH)), soft_wrap=True)
            self._stream.flush()

    def notice(self, text: str) -> None:
        """Writes one line to stderr without damaging the footer."""
        with self._lock:
            if self._live is not None and sys.stderr.isatty():
                self._console.print(Text(self._glyphs.clean(text, _LINE_LENGTH), "yellow"))
                return
        write_notice(text)

    @contextlib.contextmanager
    def footer(self, text: Callable[[], str]) -> Iterator[None]:
        """Keeps a line below the drawing, on a terminal; elsewhere it does nothing.

        Args:
            text: Gives the line as it should be now; see :meth:`refresh_footer`.
        """
        if not self.is_terminal:
            yield
            return
        self._footer_text = text
        with Live(
            console=self._console,
            get_renderable=lambda: Text(
                self._footer_shown, "reverse", no_wrap=True, overflow="ellipsis"
            ),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as live:
            self._live = live
            try:
                self.refresh_footer()
                yield
            finally:
                self._live = None

    def refresh_footer(self) -> None:
        """Rewrites the footer, if it has changed."""
        if self._live is None:
            return
        text = self._footer_text()
        if text != self._footer_shown:
            self._footer_shown = text
            self._live.refresh()

    def _print(self, lines: Iterable[Line]) -> None:
        with self._lock:
            for guide, rail, text in lines:
                parts = [text]
                if self.is_terminal:
                    widest = max(Text(guide).cell_len, Text(rail).cell_len)
                    width = max(self._console.width - widest, _NARROWEST)
                    parts = list(text.wrap(self._console, width))
                for position, part in enumerate(parts):
                    part.plain = part.plain.replace(GLUE, " ")
                    guides = guide if position == 0 else rail
                    self._console.print(Text().append(guides, "dim") + part, soft_wrap=True)
            self._console.print()
            self._stream.flush()


def write_notice(text: str) -> None:
    """Writes one line to stderr, safe for a terminal whatever its encoding."""
    encoding = sys.stderr.encoding or "ascii"
    safe = glyphs_for(encoding).clean(text, _LINE_LENGTH)
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(
            f"agent-kernel-otel: {safe.encode(encoding, 'backslashreplace').decode(encoding)}\n"
        )
        sys.stderr.flush()
