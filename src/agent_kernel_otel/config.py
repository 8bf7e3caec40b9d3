# SPDX-License-Identifier: Apache-2.0
"""What a user can set, from where, and how a value that cannot be read is refused."""

from __future__ import annotations

import difflib
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Any

from agent_kernel_otel.config_file import PLACE, Block, config_file, tell_of_problem

_logger = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "OTEL_AGENT_KERNEL_"

_LONGEST_EXIT = 60
_ENABLED = "enabled"

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
CONTENT_KINDS = frozenset({"arguments", "results", "goals", "justifications"})
PROPAGATION_PATHS = frozenset({"http", "mcp", "federation"})

_NONE: frozenset[str] = frozenset()

SessionNamer = Callable[[Any], str]


class ConfigurationError(ValueError):
    """A setting has a value that cannot be read; the message names both and says what would do."""


def _choice(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value is False:
            value = "off"  # which is what YAML makes of the bare word
        if isinstance(value, str) and value.strip().lower() in allowed:
            return value.strip().lower()
        raise ValueError(f"expected one of {', '.join(allowed)}")

    return read


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError("expected true or false")


def _positive(value: Any) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError("expected a whole number of at least 1")


def _seconds(value: Any) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if 0 <= seconds <= _LONGEST_EXIT:
        return seconds
    raise ValueError(f"expected seconds, from 0 to {_LONGEST_EXIT}")


def _any_of(allowed: frozenset[str]) -> Callable[[Any], frozenset[str]]:
    def read(value: Any) -> frozenset[str]:
        if isinstance(value, str):
            value = [] if value.strip().lower() in {"", "none"} else value.split(",")
        # Of a mapping the keys alone would count, those that it says false of too.
        listed = isinstance(value, Iterable) and not isinstance(value, Mapping)
        named = [str(name).strip().lower() for name in value] if listed else ["?"]
        if allowed.issuperset(named):
            return frozenset(named)
        raise ValueError(f"expected none, or a list of {', '.join(sorted(allowed))}")

    return read


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise ValueError("expected a text that is not empty")


def _file(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError("expected the path of a file")


def _session(value: Any) -> str | SessionNamer | None:
    return value if callable(value) else _text(value)


def _setting(read: Callable[[Any], Any], default: Any, **options: Any) -> Any:
    """A dataclass field that knows how to read its own values."""
    return field(default=default, metadata={"read": read}, **options)


@dataclass(frozen=True)
class InstrumentationConfig:
    """The settings of the instrumentation; the same ones by keyword, file and environment.

    Each field can be given by keyword; in the file that ``OTEL_CONFIG_FILE`` names, under
    ``instrumentation/development.python.weaver_kernel``; or by the environment variable
    ``OTEL_AGENT_KERNEL_`` plus its upper-case name. A keyword wins over the file, and the file
    over the environment.

    Attributes:
        span_level: ``info`` for the operations and their policy, driver and firewall spans;
            ``debug`` adds the inner steps; ``off`` creates no span.
        metrics_level: ``info``; ``debug`` adds how long decisions, drivers and the firewall took;
            ``off`` exports none, and counting goes on.
        span_naming: ``agent_kernel``, or ``gen_ai`` to name the invoke span
            ``execute_tool {capability_id}``.
        principal_id: ``raw``; ``hash`` for 16 hexadecimal digits of HMAC-SHA256; ``off``.
        principal_hash_key: Key of that hash. By default random per process, so that hashes
            from two processes cannot be compared.
        capture_exception_text: Whether exception events carry the exception's text, cut to 512
            characters and scrubbed.
        capture_content: Which kinds of content spans carry, scrubbed: any of ``arguments``,
            ``results``, ``goals``, ``justifications``.
        capability_id_limit: How many capability ids of the process metrics tell apart; the others
            are ``_OTHER``.
        gen_ai_metrics: Whether ``gen_ai.execute_tool.duration``, the GenAI convention's histogram,
            is emitted too.
        propagate_context: Into which requests of the kernel's own drivers the trace context is
            written: any of ``http`` (headers), ``mcp`` (``_meta``), ``federation`` (headers).
        exit_timeout: Seconds that the end of the process, or SIGTERM, may be held up to send what
            is left; from 0 to 60. Read by the distro, from the environment or the file.
        links_file: Where the exporter ``agent_kernel_links`` writes which span each action had.
            Read by that exporter, from the environment or the file.
        session: Name of the budget session, or a callable that is given the kernel and returns
            it (by keyword only). Called once per kernel that has a budget.

    Raises:
        ConfigurationError: A value cannot be read.
    """

    span_level: str = _setting(_choice("off", "info", "debug"), "info")
    metrics_level: str = _setting(_choice("off", "info", "debug"), "info")
    span_naming: str = _setting(_choice("agent_kernel", "gen_ai"), "agent_kernel")
    principal_id: str = _setting(_choice("raw", "hash", "off"), "raw")
    principal_hash_key: str | None = _setting(_text, None, repr=False)
    capture_exception_text: bool = _setting(_boolean, default=False)
    capture_content: frozenset[str] = _setting(_any_of(CONTENT_KINDS), _NONE)
    capability_id_limit: int = _setting(_positive, 100)
    gen_ai_metrics: bool = _setting(_boolean, default=False)
    propagate_context: frozenset[str] = _setting(_any_of(PROPAGATION_PATHS), _NONE)
    exit_timeout: float = _setting(_seconds, 1.2)
    links_file: str = _setting(_file, "agent-kernel-links.jsonl")
    session: str | SessionNamer | None = _setting(_session, None)  # noqa: RUF009 - a field, not a shared value

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = _read(setting, getattr(self, setting.name), setting.name)
            object.__setattr__(self, setting.name, value)

    @classmethod
    def resolve(
        cls,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        block: Block | None = None,
        *,
        strict: bool = False,
    ) -> InstrumentationConfig:
        """The configuration that keywords, file and environment give together.

        A keyword wins over the file, and the file over the environment. A bad value in the file
        or in the environment, and a file that cannot be used, is reported once in the log and the
        next source or the default is used, because an app must not fail over it; a bad keyword is
        the caller's mistake and raises.

        Args:
            settings: Settings by keyword; those that are ``None`` count as not given.
            environ: Where to look up ``OTEL_AGENT_KERNEL_*`` and ``OTEL_CONFIG_FILE``; the
                process's by default.
            block: The settings of a file; by default those of the file that the environment
                names.
            strict: Whether to raise over what is only reported otherwise.

        Raises:
            ConfigurationError: A keyword is unknown or its value cannot be read.
        """
        # The instrumentation and the distro both read the process's: it is reported on once.
        is_process = environ is None
        report = _report_once if is_process else _report
        environ = os.environ if environ is None else environ
        if block is None and (file := config_file(environ)) is not None:
            block = file.block
            if file.problem is not None and strict:
                raise ConfigurationError(file.problem)
            if file.problem is not None and is_process:
                tell_of_problem(file, "the settings in it are not used")
        given = {name: value for name, value in (settings or {}).items() if value is not None}
        known = {setting.name: setting for setting in fields(cls)}
        for name in given.keys() - known.keys():
            raise ConfigurationError(f"unknown setting {name!r}{_did_you_mean(name, known)}")
        for name, setting in known.items():
            if name in given:
                continue
            problems = []
            used = f"the default {_as_written(setting.default)}"
            for source, value in _sources(name, environ, block):
                problem = _problem(setting, value, source)
                if problem is None:
                    given[name] = value
                    used = f"{source}={_shown(setting, value)}"
                    break
                problems.append(problem)
            for problem in problems:
                if strict:
                    raise ConfigurationError(problem)
                report(logging.ERROR, f"{problem}; {used} is used")
        for unknown, hint in (*_unknown_options(block, known), *_unknown_variables(environ, known)):
            if strict:
                raise ConfigurationError(f"{unknown}{hint}")
            report(logging.WARNING, f"{unknown} and ignored{hint}")
        return cls(**given)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def is_enabled(block: Block) -> bool:
    """Whether the settings of a file leave the instrumentation on."""
    value = block.options.get(_ENABLED, True)
    try:
        return _boolean(value)
    except ValueError as error:
        _report_once(
            logging.ERROR,
            f"{_option(block, _ENABLED)}={value!r} cannot be read: {error}; the default true is used",
        )
        return True


def _sources(
    name: str, environ: Mapping[str, str], block: Block | None
) -> Iterator[tuple[str, Any]]:
    """What a setting is given, and where, besides by keyword; what wins comes first."""
    if block is not None and block.options.get(name) is not None:
        yield _option(block, name), block.options[name]
    variable = variable_of(name)
    text = environ.get(variable, "").strip()
    if text:
        yield variable, text


def _option(block: Block, name: str) -> str:
    return f"{block.source}: {PLACE}.{name}"


def _read(setting: Field[Any], value: Any, source: str) -> Any:
    try:
        return setting.metadata["read"](value)
    except ValueError as error:
        raise ConfigurationError(
            f"{source}={_shown(setting, value)} cannot be read: {error}"
        ) from None


def _problem(setting: Field[Any], value: Any, source: str) -> str | None:
    try:
        _read(setting, value, source)
    except ConfigurationError as error:
        return str(error)
    return None


def _as_written(default: Any) -> str:
    """A default as one writes it in a file or a variable."""
    if default in {None, _NONE}:
        return "none"
    return repr(default).lower() if isinstance(default, bool) else repr(default)


def _shown(setting: Field[Any], value: Any) -> str:
    # A key is a secret: its value must not be repeated in a message.
    return "***" if setting.name == "principal_hash_key" else repr(value)


def _unknown_options(block: Block | None, known: Iterable[str]) -> Iterator[tuple[str, str]]:
    if block is None:
        return
    options = [_ENABLED, *known]
    for name in block.options:
        if name not in options:
            hint = _did_you_mean(str(name), options) or f"; expected any of {', '.join(options)}"
            yield f"{_option(block, name)} is unknown", hint


def _unknown_variables(
    environ: Mapping[str, str], known: Iterable[str]
) -> Iterator[tuple[str, str]]:
    variables = {variable_of(name) for name in known}
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in variables:
            hint = _did_you_mean(variable, variables)
            yield f"variable {variable} is unknown", hint


def _report(level: int, message: str) -> None:
    _logger.log(level, "%s", message)


_report_once = cache(_report)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
