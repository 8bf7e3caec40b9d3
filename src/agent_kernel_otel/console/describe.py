# SPDX-License-Identifier: Apache-2.0
"""What the console says of a span or a log record, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from agent_kernel_otel import semconv
from agent_kernel_otel.console.glyphs import GLUE, clock_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent_kernel_otel.console.glyphs import Glyphs
    from agent_kernel_otel.console.records import AttributeValue, LogView, SpanView

Phrase = tuple[str, str]
"""A text and its rich style. The text is clean; it is never parsed as markup."""

_PREFIX: Final = "agent_kernel."
_STYLES: Final = {
    "success": "green",
    "allowed": "green",
    "error": "bold red",
    "denied": "bold yellow",
    "cancelled": "magenta",
}
_SEVERITY_STYLES: Final = {"WARN": "yellow", "ERROR": "red", "FATAL": "bold red"}
_INLINE_ATTRIBUTES: Final = 4
_INLINE_LENGTH: Final = 60
_ID_LENGTH: Final = 8
_GLUED_LENGTH: Final = 40


def describe_span(span: SpanView, glyphs: Glyphs, *, note: str = "", service: str = "") -> Text:
    """Describes a span: name, subject, duration, outcome and what is worth knowing of it.

    Args:
        span: The span.
        glyphs: The symbols to use.
        note: What is odd about its place in the trace.
        service: Its service, where that is not clear from the context.
    """
    kind = _kind(span)
    subject, details = _DESCRIPTIONS.get(kind, _describe_other)(span, glyphs)
    name = span.name
    if kind in semconv.SPANS and kind not in semconv.EXCEPTION_EVENTS:
        name = name.removeprefix(_PREFIX)
    style = _STYLES.get(span.outcome, "")
    phrases: list[Phrase] = [
        (f"{_symbol(span.outcome, kind, glyphs)} {glyphs.clean(name)}", f"bold {style}".strip())
    ]
    if subject and subject not in phrases[0][0].split():
        phrases.append((subject, "bold"))
    # A record tells when it was written, and not how long its action took.
    replayed = bool(span.attributes.get(semconv.REPLAYED))
    phrases.append(("replayed", "magenta") if replayed else (_duration(span, glyphs), "cyan"))
    if span.outcome:
        phrases.append((_outcome_words(span, glyphs), style))
    phrases += details
    phrases += [(link, "dim") for link in _links(span, kind)]
    if service:
        phrases.append((f"[{glyphs.clean(service, _INLINE_LENGTH)}]", "blue"))
    if note:
        phrases.append((f"({note})", "yellow"))
    return _join(phrases)


def describe_log(log: LogView, glyphs: Glyphs, *, service: str = "") -> Text:
    """Describes a log record: severity, time, name, message.

    Args:
        log: The record.
        glyphs: The symbols to use.
        service: Its service, where that is not clear from the context.
    """
    severity = glyphs.clean(log.severity, 10) or "LOG"
    style = _SEVERITY_STYLES.get(log.severity.upper(), "")
    phrases: list[Phrase] = [(f"{glyphs.log} {severity} {clock_time(log.time_ns)}", style or "dim")]
    if log.event_name:
        phrases.append((glyphs.clean(log.event_name.removeprefix(_PREFIX)), style))
    outcome = str(log.attributes.get(semconv.POLICY_OUTCOME, ""))
    if log.event_name == semconv.POLICY_DECISION and outcome:
        phrases.append((_with_reason(outcome, log.attributes, glyphs), style))
        phrases += _rule(log.attributes, glyphs)
    body = glyphs.value(log.body)
    if body and body != log.event_name:
        phrases.append((body, ""))
    exception = log.attributes.get(semconv.EXCEPTION_TYPE)
    if exception:
        message = log.attributes.get(semconv.EXCEPTION_MESSAGE, "")
        phrases.append((_exception(exception, message, glyphs), style))
    if service:
        phrases.append((f"[{glyphs.clean(service, _INLINE_LENGTH)}]", "blue"))
    return _join(phrases)


def describe_event(
    time_ns: int, name: str, attributes: dict[str, AttributeValue], glyphs: Glyphs
) -> Text:
    """Describes a span event."""
    phrases: list[Phrase] = [
        (f"{glyphs.log} event {clock_time(time_ns)}", "dim"),
        (glyphs.clean(name), ""),
    ]
    exception = attributes.get(semconv.EXCEPTION_TYPE)
    if exception:
        message = attributes.get(semconv.EXCEPTION_MESSAGE, "")
        phrases.append((_exception(exception, message, glyphs), "red"))
    else:
        phrases += _inline(attributes, glyphs)
    return _join(phrases)


def describe_attribute(key: str, value: AttributeValue, glyphs: Glyphs) -> Text:
    """Describes one attribute."""
    return Text(f"{glyphs.clean(key)}={glyphs.value(value)}", "dim")


def _kind(span: SpanView) -> str:
    # The invoke span may carry the GenAI convention's name instead of ours.
    if (
        span.attributes.get(semconv.GEN_AI_OPERATION_NAME) == semconv.EXECUTE_TOOL
        and semconv.CAPABILITY_ID in span.attributes
    ):
        return semconv.INVOKE
    return span.name


def _describe_operation(span: SpanView, glyphs: Glyphs) -> tuple[str, list[Phrase]]:
    attributes = span.attributes
    details: list[Phrase] = []
    principal = attributes.get(semconv.PRINCIPAL_ID)
    if principal:
        details.append((f"by {glyphs.value(principal, _INLINE_LENGTH)}", ""))
    if attributes.get(semconv.DRY_RUN):
        details.append(("dry run", "magenta"))
    if attributes.get(semconv.STREAM):
        end = glyphs.value(attributes.get(semconv.STREAM_END, "open"))
        details.append((f"stream {end}", ""))
    if attributes.get(semconv.FALLBACK):
        details.append((f"{glyphs.fallback} fallback", "yellow"))
    details += _redactions(attributes, glyphs)
    details += _response_mode(attributes, glyphs)
    for key, word in ((semconv.RESULT_FACTS, "fact"), (semconv.RESULT_ROWS, "row")):
        if attributes.get(key):
            details.append((_count(attributes[key], word, glyphs), "dim"))
    return glyphs.value(attributes.get(semconv.CAPABILITY_ID)), details


def _describe_policy(span: SpanView, glyphs: Glyphs) -> tuple[str, list[Phrase]]:
    details = _rule(span.attributes, glyphs)
    if span.attributes.get(semconv.POLICY_ENFORCED) is False:
        details.append(("not enforced", "yellow"))
    return glyphs.value(span.attributes.get(semconv.POLICY_PHASE)), details


def _describe_driver(span: SpanView, glyphs: Glyphs) -> tuple[str, list[Phrase]]:
    return glyphs.value(span.attributes.get(semconv.DRIVER_ID)), []


def _describe_firewall(span: SpanView, glyphs: Glyphs) -> tuple[str, list[Phrase]]:
    mode = glyphs.value(span.attributes.get(semconv.RESPONSE_MODE))
    return mode, _redactions(span.attributes, glyphs)


def _describe_other(span: SpanView, glyphs: Glyphs) -> tuple[str, list[Phrase]]:
    shown = {
        key: value
        for key, value in span.attributes.items()
        if key not in (semconv.STATUS, semconv.ERROR_TYPE, semconv.SYSTEM)
    }
    return "", _inline(shown, glyphs)


_DESCRIPTIONS: Final[dict[str, Callable[[SpanView, Glyphs], tuple[str, list[Phrase]]]]] = {
    semconv.GRANT: _describe_operation,
    semconv.INVOKE: _describe_operation,
    semconv.EXPAND: _describe_operation,
    semconv.POLICY: _describe_policy,
    semconv.DRIVER: _describe_driver,
    semconv.FIREWALL: _describe_firewall,
}


def _outcome_words(span: SpanView, glyphs: Glyphs) -> str:
    words = _with_reason(span.outcome, span.attributes, glyphs)
    if span.outcome in ("success", "allowed"):
        return words
    error_type = span.attributes.get(semconv.ERROR_TYPE)
    if error_type and span.outcome == "error":
        words += f" {glyphs.value(error_type)}"
    if span.status_message:
        words += f": {glyphs.clean(span.status_message)}"
    return words


def _with_reason(outcome: str, attributes: dict[str, AttributeValue], glyphs: Glyphs) -> str:
    words = glyphs.clean(outcome)
    if attributes.get(semconv.REASON_CODE) and outcome != "allowed":
        words += f": {glyphs.value(attributes[semconv.REASON_CODE])}"
        if attributes.get(semconv.REASON_CATEGORY):
            words += f" ({glyphs.value(attributes[semconv.REASON_CATEGORY])})"
    return words


def _rule(attributes: dict[str, AttributeValue], glyphs: Glyphs) -> list[Phrase]:
    rule = attributes.get(semconv.SECURITY_RULE_NAME)
    return [(f"rule {glyphs.value(rule, _INLINE_LENGTH)}", "")] if rule else []


def _redactions(attributes: dict[str, AttributeValue], glyphs: Glyphs) -> list[Phrase]:
    redactions = attributes.get(semconv.REDACTIONS)
    if not redactions:
        return []
    return [(f"{glyphs.redaction} {_count(redactions, 'redaction', glyphs)}", "yellow")]


def _response_mode(attributes: dict[str, AttributeValue], glyphs: Glyphs) -> list[Phrase]:
    if not attributes.get(semconv.DOWNGRADED):
        return []
    asked, got, reason = (
        glyphs.value(attributes.get(key), _INLINE_LENGTH)
        for key in (
            semconv.REQUESTED_RESPONSE_MODE,
            semconv.RESPONSE_MODE,
            semconv.DOWNGRADE_REASON,
        )
    )
    change = f"downgraded {asked}{glyphs.arrow}{got}" if asked and got else "downgraded"
    return [(f"{change} ({reason})" if reason else change, "yellow")]


def _links(span: SpanView, kind: str) -> list[str]:
    what = "granted" if kind == semconv.INVOKE else "linked to"
    if span.attributes.get(semconv.REPLAYED):
        what = "live"
    return [f"{what} in trace {trace_id[:_ID_LENGTH]}" for trace_id, _ in span.links[:3]]


def _inline(attributes: dict[str, AttributeValue], glyphs: Glyphs) -> list[Phrase]:
    phrases: list[Phrase] = [
        (f"{glyphs.clean(key, _INLINE_LENGTH)}={glyphs.value(value, _INLINE_LENGTH)}", "dim")
        for key, value in list(attributes.items())[:_INLINE_ATTRIBUTES]
    ]
    left_out = len(attributes) - _INLINE_ATTRIBUTES
    if left_out > 0:
        phrases.append((f"{glyphs.ellipsis}{_count(left_out, 'more attribute', glyphs)}", "dim"))
    return phrases


def _exception(kind: AttributeValue, message: AttributeValue, glyphs: Glyphs) -> str:
    text = glyphs.value(message)
    return glyphs.value(kind) + (f": {text}" if text else "")


def _duration(span: SpanView, glyphs: Glyphs) -> str:
    if not span.end_ns:
        return "no end"
    text = glyphs.duration(span.end_ns - span.start_ns)
    return f"{text} (ends before it starts)" if span.end_ns < span.start_ns else text


def _symbol(outcome: str, kind: str, glyphs: Glyphs) -> str:
    # A kernel's span that says nothing went well: it says so when it does not.
    if outcome == "allowed" or (not outcome and kind in semconv.SPANS):
        return glyphs.success
    return str(getattr(glyphs, outcome or "plain"))


def _count(number: AttributeValue, word: str, glyphs: Glyphs) -> str:
    # What should be a number is whatever was sent.
    return f"{glyphs.value(number, _INLINE_LENGTH)} {word}{'' if number == 1 else 's'}"


def _join(phrases: Iterable[Phrase]) -> Text:
    return Text("  ").join(
        Text(text.replace(" ", GLUE) if len(text) <= _GLUED_LENGTH else text, style)
        for text, style in phrases
    )
