# SPDX-License-Identifier: Apache-2.0
"""What of the kernel's log records leaves the process, at each of the places that see to it."""

from __future__ import annotations

import ast
import hmac
import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from agent_kernel_otel import InstrumentationConfig, KernelLogFilter
from agent_kernel_otel.weaver.logs import (
    EXPORTED,
    WITHHELD,
    KernelLogProcessor,
    scrub_exports_of,
)

SECRET = "Bearer sk-" + "live-1234567890"
MCP = "mcp_unannotated_safety_fallback driver_id=%s safety_class=%s tools=%r"
MCP_VALUES = ("mcp", "READ", [SECRET])

NEVER_EXPORTED = {
    "endpoint",
    "error",
    "expires_at",
    "goal",
    "max_rows",
    "registry_url",
    "remote_kernel_id",
}
"""Extras of the kernel that were looked at and must not leave."""


class Pipeline:
    """A logger provider, a handler into it, and a logger of each kind; as an app has them."""

    def __init__(self, place: str, **settings: Any) -> None:
        config = InstrumentationConfig(**settings)
        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        provider = LoggerProvider(shutdown_on_exit=False)
        if place in {"processor", "everywhere"}:
            provider.add_log_record_processor(KernelLogProcessor(config))
        provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))
        self.handler = LoggingHandler(logger_provider=provider)
        if place in {"filter", "everywhere"}:
            self.handler.addFilter(KernelLogFilter(config))
        if place in {"handler", "everywhere"}:
            scrub_exports_of(self.handler, config)

    def log(
        self, message: object, *values: object, name: str = "weaver_kernel.kernel", **options: Any
    ) -> ReadableLogRecord:
        """Log one record, and return it as exported."""
        logger = logging.getLogger(name)
        logger.addHandler(self.handler)
        try:
            logger.warning(message, *values, **options)
        finally:
            logger.removeHandler(self.handler)
        exported: list[ReadableLogRecord] = list(self._exporter.get_finished_logs())
        self._exporter.clear()
        assert len(exported) == 1
        assert encode_logs(exported).SerializeToString()
        return exported[0]

    def extras(self, message: str = "invoke_failure", /, **extras: object) -> dict[str, Any]:
        """The attributes as exported of a record with these extras."""
        return dict(self.log(message, extra=extras).log_record.attributes or {})


@pytest.fixture(params=["processor", "filter", "handler", "everywhere"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the rule is applied."""
    return str(request.param)


def test_without_the_scrubber_the_secrets_would_leave() -> None:
    record = Pipeline("nowhere").log("invoke_failure", extra={"error": SECRET}).log_record
    assert (record.attributes or {})["error"] == SECRET


def test_ids_enums_counts_and_the_error_type_leave(place: str) -> None:
    extras = {
        "action_id": "a-1",
        "capability_id": "tasks.list",
        "driver_ids": ["one", "two"],
        "effective_mode": "summary",
        "error_type": "ValueError",
        "facts_count": 3,
        "needs_redaction": False,
        "reason_code": "missing_role",
        "timeout_s": 2.5,
        "principal_id": "alice",
    }
    exported = Pipeline(place).extras(**extras)
    assert {**exported, "driver_ids": list(exported["driver_ids"])} == extras


@pytest.mark.parametrize("extra", [*sorted(NEVER_EXPORTED), "an_extra_of_the_next_release"])
def test_other_extras_do_not_leave(place: str, extra: str) -> None:
    assert Pipeline(place).extras(**{extra: SECRET, "action_id": "a"}) == {"action_id": "a"}


def test_roles_and_nested_data_do_not_leave(place: str) -> None:
    exported = Pipeline(place).extras(roles=["admin"], tenant={"id": "acme"}, constraints={1: 2})
    assert exported == {}


@pytest.mark.parametrize("fault", ["revoked", "expired", "invalid_signature"])
def test_a_reason_leaves_where_it_is_one_of_the_token_faults(place: str, fault: str) -> None:
    assert Pipeline(place).extras("token_verify_failed", reason=fault) == {"reason": fault}


def test_a_reason_in_words_does_not_leave(place: str) -> None:
    assert Pipeline(place).extras("policy_denied", reason=f"no role for {SECRET}") == {}


def test_of_an_exception_only_the_class_leaves(place: str) -> None:
    pipeline = Pipeline(place)
    try:
        raise ValueError(SECRET)
    except ValueError:
        exported = pipeline.log("deny_trace_record_failed", exc_info=True, stack_info=True)
    assert dict(exported.log_record.attributes or {}) == {"exception.type": "ValueError"}
    assert SECRET not in exported.to_json()
    assert "Traceback" not in exported.to_json()


def test_the_name_of_an_event_leaves_as_it_is(place: str) -> None:
    assert Pipeline(place).log("otel.skip").log_record.body == "otel.skip"


def test_a_formatted_message_leaves_as_its_template(place: str) -> None:
    exported = Pipeline(place).log(MCP, *MCP_VALUES)
    assert exported.log_record.body == MCP
    assert SECRET not in exported.to_json()


@pytest.mark.parametrize("variable", ["AGENT_KERNEL_SECRET", "WEAVER_KERNEL_SECRET"])
def test_the_sentence_about_the_missing_secret_leaves(place: str, variable: str) -> None:
    sentence = (
        f"{variable} is not set. Using a random development secret — "
        f"tokens will not survive restarts. Set {variable} in production."
    )
    assert Pipeline(place).log(sentence).log_record.body == sentence


def test_a_message_with_values_written_into_it_is_withheld(place: str) -> None:
    assert Pipeline(place).log(f"calling with {SECRET}").log_record.body == WITHHELD


def test_a_message_that_is_no_text_is_withheld(place: str) -> None:
    assert Pipeline(place).log(ValueError(SECRET)).log_record.body == WITHHELD


@pytest.mark.parametrize("where", ["filter", "handler", "everywhere"])
def test_where_the_template_is_seen_an_unknown_one_leaves_without_its_values(where: str) -> None:
    exported = Pipeline(where).log("a sentence of the next release about %s", SECRET)
    assert exported.log_record.body == "a sentence of the next release about %s"
    assert SECRET not in exported.to_json()


def test_where_it_is_not_seen_an_unknown_one_is_withheld() -> None:
    exported = Pipeline("processor").log("a sentence of the next release about %s", SECRET)
    assert exported.log_record.body == WITHHELD


@pytest.mark.parametrize(
    ("extra", "value", "exported"),
    [
        ("action_id", "x" * 1000, {"action_id": "x" * 256}),
        ("action_id", {"secret": SECRET}, {}),
        ("action_id", None, {}),
        ("action_id", "lone \ud800 surrogate", {"action_id": "lone ? surrogate"}),
        ("facts_count", SECRET, {}),
        ("facts_count", 2**64, {}),
        ("facts_count", [SECRET], {}),
        ("facts_count", float("inf"), {"facts_count": float("inf")}),
        ("driver_ids", SECRET, {}),
        ("driver_ids", ["x" * 1000, None], {"driver_ids": ["x" * 256]}),
        ("principal_id", "x" * 1000, {"principal_id": "x" * 256}),
    ],
)
def test_values_of_a_wrong_type_or_size_do_no_harm(
    place: str, extra: str, value: object, exported: dict[str, Any]
) -> None:
    found = Pipeline(place).extras(**{extra: value})
    # What is no text leaves as the name of its type at most.
    for name, shown in found.items():
        assert SECRET not in str(shown)
        found[name] = list(shown) if isinstance(shown, tuple) else shown
    if isinstance(value, dict):
        assert set(found.values()) <= {"dict", "mappingproxy"}
    else:
        assert found == exported


def test_principal_ids_are_hashed_once_as_configured(place: str) -> None:
    exported = Pipeline(place, principal_id="hash", principal_hash_key="k").extras(
        principal_id="alice"
    )
    assert exported == {"principal_id": hmac.new(b"k", b"alice", "sha256").hexdigest()[:16]}


def test_principal_ids_are_left_out_as_configured(place: str) -> None:
    exported = Pipeline(place, principal_id="off").extras(principal_id="alice", action_id="a")
    assert exported == {"action_id": "a"}


@pytest.mark.parametrize("name", ["weaver_kernel", "agent_kernel.policy", "weaver_kernel.x.y"])
def test_every_logger_of_the_kernel_is_meant(place: str, name: str) -> None:
    exported = Pipeline(place).log("event", name=name, extra={"goal": SECRET})
    assert SECRET not in exported.to_json()


@pytest.mark.parametrize("name", ["shop", "agent_kernel_otel.distro", "weaver_kernels", "root"])
def test_records_of_all_other_loggers_pass_untouched(place: str, name: str) -> None:
    exported = Pipeline(place).log("sold %s", "apples", name=name, extra={"goal": "profit"})
    assert exported.log_record.body == "sold apples"
    assert dict(exported.log_record.attributes or {}) == {"goal": "profit"}


class _Seen(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = str(record.__dict__.get("error"))
        self.texts.append(f"{record.getMessage()} {error} {record.exc_info is not None}")


def _seen_by_an_app_handler(pipeline: Pipeline) -> list[str]:
    seen = _Seen()
    logger = logging.getLogger("weaver_kernel.kernel")
    logger.addHandler(pipeline.handler)
    logger.addHandler(seen)  # after the exporting one: it would see what that one changed
    try:
        logger.warning(MCP, *MCP_VALUES, extra={"error": SECRET}, exc_info=ValueError(SECRET))
    finally:
        logger.removeHandler(seen)
        logger.removeHandler(pipeline.handler)
    return seen.texts


@pytest.mark.parametrize("where", ["processor", "handler"])
def test_the_apps_own_handlers_see_the_record_as_it_was(where: str) -> None:
    assert _seen_by_an_app_handler(Pipeline(where)) == [f"{MCP % MCP_VALUES} {SECRET} True"]


def test_the_filter_changes_what_later_handlers_see_only_before_python_3_12() -> None:
    (seen,) = _seen_by_an_app_handler(Pipeline("filter"))
    if sys.version_info >= (3, 12):
        assert seen == f"{MCP % MCP_VALUES} {SECRET} True"
    else:
        assert seen == f"{MCP} None False"


def test_what_a_formatter_left_on_the_record_does_not_leave(place: str) -> None:
    pipeline = Pipeline(place)
    printed = logging.StreamHandler(_Nowhere())
    printed.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("weaver_kernel.kernel")
    logger.addHandler(printed)
    try:
        exported = pipeline.log(MCP, *MCP_VALUES, exc_info=ValueError(SECRET))
    finally:
        logger.removeHandler(printed)
    assert SECRET not in exported.to_json()


class _Nowhere:
    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...


def test_a_field_that_the_apps_record_factory_adds_does_not_leave() -> None:
    # In a process of its own: the factory must be there before the package is imported.
    code = (
        "import json, logging\n"
        "class Record(logging.LogRecord):\n"
        "    def __init__(self, *args, **kwargs):\n"
        "        super().__init__(*args, **kwargs)\n"
        "        self.customer = 'acme'\n"
        "logging.setLogRecordFactory(Record)\n"
        "from agent_kernel_otel import InstrumentationConfig\n"
        "from agent_kernel_otel.weaver.logs import Scrubber\n"
        "record = logging.getLogger('weaver_kernel').makeRecord(\n"
        "    'weaver_kernel', 20, 'f', 1, 'event', (), None)\n"
        "assert record.customer == 'acme'\n"
        "Scrubber(InstrumentationConfig()).scrub(record)\n"
        "print(json.dumps('customer' in vars(record)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False


def test_the_processor_leaves_to_those_that_export_whether_records_are_wanted() -> None:
    assert KernelLogProcessor(InstrumentationConfig()).enabled(severity_number=None) is False


def test_every_extra_and_message_of_the_installed_kernel_has_been_decided_on() -> None:
    spec = find_spec("weaver_kernel")
    assert spec is not None
    assert spec.origin is not None
    extras, messages = set[str](), set[str]()
    for source in Path(spec.origin).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(source.read_text())):
            if isinstance(call, ast.Call) and _is_logging(call):
                messages |= {
                    str(part.value) for part in call.args[:1] if isinstance(part, ast.Constant)
                }
                extras |= _extras_of(call)
    assert {"error", "goal", "action_id"} <= extras
    assert extras - set(EXPORTED) - NEVER_EXPORTED == {"principal_id"}
    pipeline = Pipeline("processor")
    assert "invoke_start" in messages
    for message in messages:
        assert pipeline.log(message).log_record.body == message


def _is_logging(call: ast.Call) -> bool:
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "logger"
    )


def _extras_of(call: ast.Call) -> set[str]:
    return {
        str(key.value)
        for keyword in call.keywords
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict)
        for key in keyword.value.keys
        if isinstance(key, ast.Constant)
    }
