# SPDX-License-Identifier: Apache-2.0
"""What can be set, by keyword and by environment, and what is said of a value that cannot be."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from agent_kernel_otel import ConfigurationError, InstrumentationConfig
from agent_kernel_otel.config import variable_of
from agent_kernel_otel.config_file import PLACE, Block
from tests.distro.zero_code import environment

CHOICES = {
    "span_level": ("off", "info", "debug"),
    "metrics_level": ("off", "info", "debug"),
    "span_naming": ("agent_kernel", "gen_ai"),
    "principal_id": ("raw", "hash", "off"),
}
DEFAULTS: dict[str, Any] = {
    "span_level": "info",
    "metrics_level": "info",
    "span_naming": "agent_kernel",
    "principal_id": "raw",
    "principal_hash_key": None,
    "capture_exception_text": False,
    "capture_content": frozenset(),
    "capability_id_limit": 100,
    "gen_ai_metrics": False,
    "propagate_context": frozenset(),
    "exit_timeout": 1.2,
    "links_file": "agent-kernel-links.jsonl",
    "session": None,
}


def named(kernel: object) -> str:
    return "named"


def resolved(**settings: Any) -> InstrumentationConfig:
    return InstrumentationConfig.resolve(settings, {})


BY_KEYWORD: list[tuple[str, Any, Any]] = [
    *((name, value, value) for name, values in CHOICES.items() for value in values),
    ("span_level", " DEBUG ", "debug"),
    ("principal_hash_key", "pepper", "pepper"),
    ("capture_exception_text", True, True),
    ("capture_exception_text", False, False),
    ("capture_exception_text", "yes", True),
    ("capture_content", {"goals"}, frozenset({"goals"})),
    ("capture_content", ["Goals", "results"], frozenset({"goals", "results"})),
    ("capture_content", "arguments, justifications", frozenset({"arguments", "justifications"})),
    ("capture_content", "none", frozenset()),
    ("capability_id_limit", 1, 1),
    ("capability_id_limit", "250", 250),
    ("gen_ai_metrics", True, True),
    ("propagate_context", {"http"}, frozenset({"http"})),
    ("propagate_context", "http, MCP, federation", frozenset({"http", "mcp", "federation"})),
    ("exit_timeout", 0, 0.0),
    ("exit_timeout", 2.5, 2.5),
    ("links_file", "links of today.jsonl", "links of today.jsonl"),
    ("session", "nightly", "nightly"),
    ("session", named, named),
]
BY_ENVIRONMENT: list[tuple[str, str, Any]] = [
    *((name, value, value) for name, values in CHOICES.items() for value in values),
    *((name, f" {value.upper()} ", value) for name, values in CHOICES.items() for value in values),
    *(("capture_exception_text", text, True) for text in ("true", "1", "yes", "on", "TRUE")),
    *(("gen_ai_metrics", text, False) for text in ("false", "0", "no", "off", "False")),
    ("gen_ai_metrics", "true", True),
    ("principal_hash_key", "pepper", "pepper"),
    ("capture_content", "goals", frozenset({"goals"})),
    ("capture_content", "arguments,results", frozenset({"arguments", "results"})),
    ("capture_content", "none", frozenset()),
    ("capability_id_limit", "7", 7),
    ("links_file", "/var/log/links.jsonl", "/var/log/links.jsonl"),
    ("propagate_context", "mcp", frozenset({"mcp"})),
    ("propagate_context", "none", frozenset()),
    ("exit_timeout", "5", 5.0),
    ("session", "nightly", "nightly"),
]
BAD: list[tuple[str, Any, str]] = [
    *((name, "loud", f"expected one of {', '.join(values)}") for name, values in CHOICES.items()),
    ("span_level", 3, "expected one of off, info, debug"),
    ("capture_exception_text", "maybe", "expected true or false"),
    ("capture_exception_text", 2, "expected true or false"),
    ("gen_ai_metrics", "2", "expected true or false"),
    ("capture_content", "everything", "arguments, goals, justifications, results"),
    ("capture_content", "goals,", "arguments, goals, justifications, results"),
    ("capture_content", 5, "arguments, goals, justifications, results"),
    ("capture_content", {"goals": False}, "arguments, goals, justifications, results"),
    ("capability_id_limit", "0", "expected a whole number of at least 1"),
    ("capability_id_limit", "-1", "expected a whole number of at least 1"),
    ("capability_id_limit", "many", "expected a whole number of at least 1"),
    ("capability_id_limit", "1.5", "expected a whole number of at least 1"),
    ("capability_id_limit", "²", "expected a whole number of at least 1"),
    ("capability_id_limit", True, "expected a whole number of at least 1"),
    ("propagate_context", "grpc", "federation, http, mcp"),
    ("exit_timeout", "-1", "expected seconds, from 0 to 60"),
    ("exit_timeout", "61", "expected seconds, from 0 to 60"),
    ("exit_timeout", "soon", "expected seconds, from 0 to 60"),
    ("exit_timeout", "nan", "expected seconds, from 0 to 60"),
    ("exit_timeout", True, "expected seconds, from 0 to 60"),
    ("links_file", 5, "expected the path of a file"),
    ("links_file", " ", "expected the path of a file"),
    ("principal_hash_key", 5, "expected a text that is not empty"),
    ("principal_hash_key", " ", "expected a text that is not empty"),
    ("session", 5, "expected a text that is not empty"),
    ("session", "", "expected a text that is not empty"),
]
BAD_IN_ENVIRONMENT = [
    case
    for case in BAD
    if isinstance(case[1], str) and case[1].strip() and case[0] not in {"principal_hash_key"}
]


def test_every_field_has_the_documented_default() -> None:
    config = InstrumentationConfig()
    assert {field.name: getattr(config, field.name) for field in fields(config)} == DEFAULTS
    assert InstrumentationConfig.resolve(environ={}) == config


def test_every_field_is_tested_here() -> None:
    names = {field.name for field in fields(InstrumentationConfig)}
    assert {name for name, *_ in BY_KEYWORD} == {name for name, *_ in BY_ENVIRONMENT} == names
    assert {name for name, *_ in BAD} == names


@pytest.mark.parametrize(("name", "value", "meaning"), BY_KEYWORD)
def test_each_field_is_read_from_a_keyword(name: str, value: Any, meaning: Any) -> None:
    assert getattr(InstrumentationConfig(**{name: value}), name) == meaning
    assert getattr(InstrumentationConfig.resolve({name: value}, {}), name) == meaning


@pytest.mark.parametrize(("name", "text", "meaning"), BY_ENVIRONMENT)
def test_each_field_is_read_from_its_variable(name: str, text: str, meaning: Any) -> None:
    config = InstrumentationConfig.resolve(environ={f"OTEL_AGENT_KERNEL_{name.upper()}": text})
    assert getattr(config, name) == meaning


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_variable_counts_as_not_set(name: str, caplog: pytest.LogCaptureFixture) -> None:
    config = InstrumentationConfig.resolve(environ={variable_of(name): " "})
    assert getattr(config, name) == DEFAULTS[name]
    assert caplog.messages == []


def test_a_keyword_wins_over_the_environment() -> None:
    environ = {"OTEL_AGENT_KERNEL_SPAN_LEVEL": "off", "OTEL_AGENT_KERNEL_PRINCIPAL_ID": "off"}
    config = InstrumentationConfig.resolve({"span_level": "debug"}, environ)
    assert (config.span_level, config.principal_id) == ("debug", "off")


def in_file(**options: Any) -> Block:
    return Block("otel.yaml", options)


@pytest.mark.parametrize(("name", "value", "meaning"), BY_KEYWORD)
def test_each_field_is_read_from_a_file(name: str, value: Any, meaning: Any) -> None:
    config = InstrumentationConfig.resolve(environ={}, block=in_file(**{name: value}))
    assert getattr(config, name) == meaning


def test_a_keyword_wins_over_a_file_and_a_file_over_the_environment() -> None:
    environ = {
        "OTEL_AGENT_KERNEL_SPAN_LEVEL": "off",
        "OTEL_AGENT_KERNEL_PRINCIPAL_ID": "off",
        "OTEL_AGENT_KERNEL_SESSION": "nightly",
    }
    block = in_file(span_level="info", principal_id="hash", session=None)
    config = InstrumentationConfig.resolve({"span_level": "debug"}, environ, block)
    assert (config.span_level, config.principal_id, config.session) == ("debug", "hash", "nightly")


def test_a_bare_off_in_a_file_which_yaml_takes_for_false_is_read_as_the_word() -> None:
    block = in_file(span_level=False, metrics_level=False, principal_id=False)
    config = InstrumentationConfig.resolve(environ={}, block=block)
    assert (config.span_level, config.metrics_level, config.principal_id) == ("off",) * 3


@pytest.mark.parametrize(("name", "value", "accepted"), BAD)
def test_a_bad_value_in_a_file_is_logged_and_the_environments_is_used(
    name: str, value: Any, accepted: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, meaning = next((text, meaning) for one, text, meaning in BY_ENVIRONMENT if one == name)
    config = InstrumentationConfig.resolve(
        environ={variable_of(name): text}, block=in_file(**{name: value})
    )
    assert getattr(config, name) == meaning
    (message,) = caplog.messages
    shown, used = ("***",) * 2 if name == "principal_hash_key" else (repr(value), repr(text))
    assert message.startswith(f"otel.yaml: {PLACE}.{name}={shown} cannot be read: ")
    assert accepted in message
    assert message.endswith(f"; {variable_of(name)}={used} is used")


def test_bad_values_in_a_file_and_in_the_environment_are_both_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = InstrumentationConfig.resolve(
        environ={"OTEL_AGENT_KERNEL_SPAN_LEVEL": "quiet"}, block=in_file(span_level="loud")
    )
    assert config.span_level == "info"
    assert ["'loud'" in caplog.messages[0], "'quiet'" in caplog.messages[1]] == [True, True]
    assert all(message.endswith("the default 'info' is used") for message in caplog.messages)


def test_an_unknown_setting_in_a_file_is_warned_of_and_its_value_is_not_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    block = in_file(principal_hashkey="pepper-17", enabled=True)
    assert InstrumentationConfig.resolve(environ={}, block=block) == InstrumentationConfig()
    (message,) = caplog.messages
    assert message == (
        f"otel.yaml: {PLACE}.principal_hashkey is unknown and ignored; "
        "did you mean 'principal_hash_key'?"
    )


def test_a_file_that_cannot_be_read_gives_no_settings_and_raises_nothing() -> None:
    environ = {"OTEL_CONFIG_FILE": "/no/such/otel.yaml"}
    assert InstrumentationConfig.resolve(environ=environ) == InstrumentationConfig()


@pytest.mark.parametrize(
    "code",
    [
        "from agent_kernel_otel import OTelTraceExporter; OTelTraceExporter()",
        "from agent_kernel_otel import OTelTraceStore; OTelTraceStore([])",
        "from agent_kernel_otel import KernelInstrumentor; KernelInstrumentor().instrument()",
    ],
)
def test_an_app_is_told_once_of_a_file_that_cannot_be_used_and_goes_on(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{code}\nprint('goes on')"],
        env=environment(OTEL_CONFIG_FILE="/no/such/otel.yaml", PYTHONPATH="src"),
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line for line in done.stderr.splitlines() if "already instrumented" not in line]
    assert "\n".join(said) == (
        "OTEL_CONFIG_FILE=/no/such/otel.yaml cannot be used: there is no such file; the settings "
        "in it are not used"
    )
    assert done.stdout == "goes on\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_CONFIG_FILE": "/no/such/otel.yaml"},
        {"OTEL_AGENT_KERNEL_PRINCIPAL_ID": "of"},
        {"OTEL_AGENT_KERNEL_SPAN_LEVEL": "loud"},
    ],
)
def test_whoever_must_not_go_on_with_a_default_is_told_by_an_error(
    variables: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be (used|read)"):
        InstrumentationConfig.resolve(environ=variables, strict=True)
    assert caplog.messages == []


def test_a_bad_variable_that_a_keyword_overrides_is_not_complained_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ = {"OTEL_AGENT_KERNEL_SPAN_LEVEL": "loud"}
    assert InstrumentationConfig.resolve({"span_level": "debug"}, environ).span_level == "debug"
    assert caplog.messages == []


def test_a_keyword_of_none_counts_as_not_given() -> None:
    environ = {"OTEL_AGENT_KERNEL_SPAN_LEVEL": "off"}
    assert InstrumentationConfig.resolve({"span_level": None}, environ).span_level == "off"


@pytest.mark.parametrize(("name", "value", "accepted"), BAD)
def test_a_bad_keyword_raises_one_error_that_names_it_and_what_would_do(
    name: str, value: Any, accepted: str
) -> None:
    for make in (InstrumentationConfig, resolved):
        with pytest.raises(ConfigurationError) as raised:
            make(**{name: value})
        message = str(raised.value)
        shown = "***" if name == "principal_hash_key" else repr(value)
        assert message.startswith(f"{name}={shown} cannot be read: ")
        assert accepted in message
        assert raised.value.__cause__ is None


@pytest.mark.parametrize(("name", "text", "accepted"), BAD_IN_ENVIRONMENT)
def test_a_bad_variable_logs_one_error_that_names_it_and_its_default_is_used(
    name: str, text: str, accepted: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = InstrumentationConfig.resolve(environ={variable_of(name): text})
    assert getattr(config, name) == DEFAULTS[name]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    message = record.getMessage()
    assert message.startswith(f"{variable_of(name)}={text!r} cannot be read: ")
    assert accepted in message
    written = {"None": "none", "frozenset()": "none", "False": "false"}
    default = repr(DEFAULTS[name])
    assert message.endswith(f"the default {written.get(default, default)} is used")


def test_one_bad_variable_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    config = InstrumentationConfig.resolve(
        environ={
            "OTEL_AGENT_KERNEL_SPAN_LEVEL": "loud",
            "OTEL_AGENT_KERNEL_CAPABILITY_ID_LIMIT": "none",
            "OTEL_AGENT_KERNEL_PRINCIPAL_ID": "off",
        }
    )
    assert config.principal_id == "off"
    assert len(caplog.messages) == 2


def test_an_unknown_keyword_raises_and_hints_at_the_known_one() -> None:
    with pytest.raises(
        ConfigurationError, match="unknown setting 'span_levle'; did you mean 'span_level'"
    ):
        InstrumentationConfig.resolve({"span_levle": "debug"}, {})
    with pytest.raises(ConfigurationError, match=r"^unknown setting 'colour'$"):
        InstrumentationConfig.resolve({"colour": "red"}, {})


def test_an_unknown_variable_is_warned_of_with_a_hint_and_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ = {"OTEL_AGENT_KERNEL_SPAN_LEVLE": "debug", "OTEL_AGENT_KERNELS": "x"}
    assert InstrumentationConfig.resolve(environ=environ) == InstrumentationConfig()
    (message,) = caplog.messages
    assert message.startswith("variable OTEL_AGENT_KERNEL_SPAN_LEVLE is unknown and ignored; ")
    assert message.endswith("did you mean 'OTEL_AGENT_KERNEL_SPAN_LEVEL'?")


def test_the_value_of_an_unknown_variable_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    InstrumentationConfig.resolve(environ={"OTEL_AGENT_KERNEL_PRINCIPAL_HASHKEY": "pepper-17"})
    assert "OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY" in caplog.text
    assert "pepper-17" not in caplog.text


def test_the_hash_key_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    key = "pepper-17"
    caplog.set_level(logging.DEBUG)
    config = InstrumentationConfig.resolve(
        {"principal_id": "hash"}, {"OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY": key}
    )
    assert config.principal_hash_key == key
    assert key not in repr(config)
    assert key not in str(config)
    with pytest.raises(ConfigurationError) as raised:
        InstrumentationConfig(principal_hash_key=[key])  # type: ignore[arg-type]
    assert key not in str(raised.value)
    assert key not in caplog.text


def test_a_configuration_cannot_be_changed() -> None:
    config = InstrumentationConfig()
    with pytest.raises(FrozenInstanceError):
        config.span_level = "off"  # type: ignore[misc]


def test_the_processs_environment_is_reported_on_once_however_often_it_is_read() -> None:
    code = (
        "from agent_kernel_otel import InstrumentationConfig\n"
        "for _ in range(3):\n"
        "    assert InstrumentationConfig.resolve().span_level == 'info'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(
            OTEL_AGENT_KERNEL_SPAN_LEVEL="loud", OTEL_AGENT_KERNEL_COLOUR="red", PYTHONPATH="src"
        ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("OTEL_AGENT_KERNEL_SPAN_LEVEL='loud'") == 1
    assert done.stderr.count("OTEL_AGENT_KERNEL_COLOUR") == 1
    assert len(done.stderr.splitlines()) == 2
