# SPDX-License-Identifier: Apache-2.0
"""Every name this package emits: spans, attributes, log events, and what each one means.

The constants are what the code uses; the registries :data:`SPANS`, :data:`ATTRIBUTES`,
:data:`EVENTS` and :data:`METRICS` are what the reference page (``docs/tracing.md``) and the conformance test read.
A name that is not here is never emitted.

``gen_ai.*``, ``error.type``, ``exception.*`` and ``security_rule.name`` follow the OpenTelemetry
semantic conventions (GenAI ones as of November 2026, status Development); all others are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["info", "debug"]
ValueType = Literal["string", "boolean", "int", "double"]
Sensitivity = Literal["none", "id", "identity", "content"]


@dataclass(frozen=True)
class SpanDefinition:
    """One kind of span.

    Attributes:
        name: The span's name.
        level: Lowest ``span_level`` that creates it.
        opened_by: The kernel operation or collaborator call that it covers.
        parent: Name of the span it is a child of, or "the caller's span".
    """

    name: str
    level: Level
    opened_by: str
    parent: str


@dataclass(frozen=True)
class AttributeDefinition:
    """One span or event attribute.

    Attributes:
        name: The attribute key.
        type: Type of its values.
        description: What a value means, with its unit where it has one.
        on: Names of the spans and events that may carry it.
        sensitivity: ``none``; ``id`` for generated ids; ``identity`` for who acts (see the
            ``principal_id`` setting); ``content`` for user data, which is opt-in.
        values: The closed set of values, empty where it is open.
        at_start: Whether it is known when the span starts, so that samplers see it.
    """

    name: str
    type: ValueType
    description: str
    on: tuple[str, ...]
    sensitivity: Sensitivity
    values: tuple[str, ...]
    at_start: bool


@dataclass(frozen=True)
class EventDefinition:
    """One log event.

    Attributes:
        name: The event's name (the log record's ``event_name``).
        severity: Its severity text.
        description: When it is emitted.
    """

    name: str
    severity: str
    description: str


@dataclass(frozen=True)
class MetricDefinition:
    """One metric.

    Attributes:
        name: The instrument's name.
        instrument: Kind of instrument.
        unit: Its unit (UCUM).
        description: What it counts or measures.
        attributes: Keys of its attributes.
    """

    name: str
    instrument: str
    unit: str
    description: str
    attributes: tuple[str, ...]


SPANS: Final[dict[str, SpanDefinition]] = {}
ATTRIBUTES: Final[dict[str, AttributeDefinition]] = {}
EVENTS: Final[dict[str, EventDefinition]] = {}
METRICS: Final[dict[str, MetricDefinition]] = {}


def _span(name: str, opened_by: str, parent: str, level: Level = "info") -> str:
    SPANS[name] = SpanDefinition(name, level, opened_by, parent)
    return name


def _attribute(
    name: str,
    description: str,
    on: tuple[str, ...],
    *,
    type: ValueType = "string",  # noqa: A002 - the convention registry's own word
    sensitivity: Sensitivity = "none",
    values: tuple[str, ...] = (),
    at_start: bool = False,
) -> str:
    ATTRIBUTES[name] = AttributeDefinition(
        name, type, description, on, sensitivity, values, at_start
    )
    return name


def _event(name: str, severity: str, description: str) -> str:
    EVENTS[name] = EventDefinition(name, severity, description)
    return name


SCOPE_WEAVER: Final = "agent_kernel_otel.weaver"
"""Instrumentation scope of everything that the Weaver kernel's adapter emits."""
SYSTEM_WEAVER: Final = "weaver_kernel"
"""Value of :data:`SYSTEM` for the Weaver kernel, under both of its import names."""

# Spans ---------------------------------------------------------------------------------------

_CALLER = "the caller's span"

GRANT: Final = _span("agent_kernel.grant", "`Kernel.grant_capability` and `get_token`", _CALLER)
INVOKE: Final = _span(
    "agent_kernel.invoke", "`Kernel.invoke`; `Kernel.invoke_stream` (one span per stream)", _CALLER
)
EXPAND: Final = _span("agent_kernel.expand", "`Kernel.expand`", _CALLER)
DISCOVER: Final = _span("agent_kernel.federation.discover", "`Kernel.discover_peers`", _CALLER)
IMPORT: Final = _span("agent_kernel.federation.import", "`Kernel.import_remote`", _CALLER)
POLICY: Final = _span(
    "agent_kernel.policy.evaluate",
    "in a grant `PolicyEngine.evaluate`; in an invoke `TokenProvider.verify`, which enforces "
    "the signed decision",
    "grant or invoke",
)
DRIVER: Final = _span(
    "agent_kernel.driver.execute", "each attempt of a driver, so a fallback shows two", "invoke"
)
FIREWALL: Final = _span(
    "agent_kernel.firewall.apply",
    "`Firewall.transform`; for a stream one span for all of `apply_stream`",
    "invoke",
)
ROUTE: Final = _span("agent_kernel.route", "`Router.route`", "invoke", "debug")
BUDGET: Final = _span("agent_kernel.budget.allocate", "`BudgetManager.allocate`", "invoke", "debug")
HANDLE: Final = _span("agent_kernel.handle.store", "`HandleStore.store`", "invoke", "debug")
AUDIT: Final = _span(
    "agent_kernel.audit.record", "`TraceStore.record`", "grant, invoke or expand", "debug"
)

# Log events ----------------------------------------------------------------------------------

POLICY_DECISION: Final = _event(
    "agent_kernel.policy.decision",
    "WARN for a denial, DEBUG for an allow",
    "Each denial, at grant, enforcement or handle expansion, and each decision that an engine "
    "returned as not allowed without raising; allows only at span level `debug`.",
)
_EXCEPTION = "The operation raised to its caller, and it was neither a denial nor a cancellation."
GRANT_EXCEPTION: Final = _event("agent_kernel.grant.exception", "WARN", _EXCEPTION)
INVOKE_EXCEPTION: Final = _event("agent_kernel.invoke.exception", "WARN", _EXCEPTION)
EXPAND_EXCEPTION: Final = _event("agent_kernel.expand.exception", "WARN", _EXCEPTION)
DISCOVER_EXCEPTION: Final = _event("agent_kernel.federation.discover.exception", "WARN", _EXCEPTION)
IMPORT_EXCEPTION: Final = _event("agent_kernel.federation.import.exception", "WARN", _EXCEPTION)

EXCEPTION_EVENTS: Final = {
    GRANT: GRANT_EXCEPTION,
    INVOKE: INVOKE_EXCEPTION,
    EXPAND: EXPAND_EXCEPTION,
    DISCOVER: DISCOVER_EXCEPTION,
    IMPORT: IMPORT_EXCEPTION,
}
"""Which event reports the exception of which operation span."""

# Attributes ----------------------------------------------------------------------------------

_OPERATIONS = (GRANT, INVOKE, EXPAND)
_ALL_OPERATIONS = (*_OPERATIONS, DISCOVER, IMPORT)
_EVERYWHERE = (*SPANS, *EVENTS)
_EXCEPTIONS = tuple(EXCEPTION_EVENTS.values())
_STATUSES = ("success", "error", "denied", "cancelled")

SYSTEM: Final = _attribute(
    "agent_kernel.system",
    "Which kernel this is.",
    _EVERYWHERE,
    values=(SYSTEM_WEAVER,),
    at_start=True,
)
STATUS: Final = _attribute(
    "agent_kernel.status",
    "How the operation or the driver attempt ended. A denial is the kernel doing its work, "
    "not an error.",
    (*_ALL_OPERATIONS, DRIVER, *_EXCEPTIONS),
    values=_STATUSES,
)
PRINCIPAL_ID: Final = _attribute(
    "agent_kernel.principal_id",
    "Who called; raw, a keyed hash or absent, by the `principal_id` setting.",
    (*_OPERATIONS, POLICY_DECISION),
    sensitivity="identity",
    at_start=True,
)
CAPABILITY_ID: Final = _attribute(
    "agent_kernel.capability_id",
    "The capability asked for.",
    (*_OPERATIONS, POLICY_DECISION, GRANT_EXCEPTION, INVOKE_EXCEPTION, EXPAND_EXCEPTION),
    at_start=True,
)
SAFETY_CLASS: Final = _attribute(
    "agent_kernel.safety_class",
    "The capability's safety class; absent where the kernel does not know the capability.",
    _OPERATIONS,
    at_start=True,
)
SENSITIVITY: Final = _attribute(
    "agent_kernel.sensitivity", "The capability's sensitivity tag.", _OPERATIONS, at_start=True
)
KERNEL_ID: Final = _attribute(
    "agent_kernel.kernel_id",
    "The kernel's own id, where it has one (weaver-kernel 0.9 on).",
    _ALL_OPERATIONS,
    at_start=True,
)
SESSION: Final = _attribute(
    "agent_kernel.session",
    "The budget session of a kernel that has a budget manager; named by the `session` setting, "
    "else generated.",
    (INVOKE,),
    at_start=True,
)
ACTION_ID: Final = _attribute(
    "agent_kernel.action_id",
    "The kernel's audit id of this action; finds its `ActionTrace`.",
    _OPERATIONS,
    sensitivity="id",
)
TOKEN_ID: Final = _attribute(
    "agent_kernel.token_id",
    "The capability token; the same on a grant and on the invocations that use it.",
    (GRANT, INVOKE),
    sensitivity="id",
)
TOKEN_TTL: Final = _attribute(
    "agent_kernel.token.ttl",
    "How long the granted token is valid, in seconds.",
    (GRANT,),
    type="double",
)
GRANT_AGE: Final = _attribute(
    "agent_kernel.grant.age",
    "Seconds since this process granted the token, where it did.",
    (INVOKE,),
    type="double",
    at_start=True,
)
GRANT_RULE: Final = _attribute(
    "agent_kernel.grant.rule",
    "Name of the policy rule that allowed the grant, where this process granted it and the "
    "engine names its rule.",
    (INVOKE,),
    at_start=True,
)
REQUESTED_RESPONSE_MODE: Final = _attribute(
    "agent_kernel.requested_response_mode",
    "The response mode that the caller asked for.",
    (INVOKE,),
    at_start=True,
)
RESPONSE_MODE: Final = _attribute(
    "agent_kernel.response_mode",
    "The response mode that the caller got; absent on failure.",
    (INVOKE, EXPAND, FIREWALL),
)
DOWNGRADED: Final = _attribute(
    "agent_kernel.downgraded",
    "Whether the response mode became stricter than asked.",
    (INVOKE,),
    type="boolean",
)
DOWNGRADE_REASON: Final = _attribute(
    "agent_kernel.downgrade_reason",
    "What made the response mode stricter; the last cause where there are several.",
    (INVOKE,),
    values=("admin_gate", "budget", "firewall"),
)
DRY_RUN: Final = _attribute(
    "agent_kernel.dry_run",
    "Whether this was a dry run, which executes no driver.",
    (INVOKE,),
    type="boolean",
    at_start=True,
)
STREAM: Final = _attribute(
    "agent_kernel.stream",
    "Whether this was a streamed invocation.",
    (INVOKE,),
    type="boolean",
    at_start=True,
)
STREAM_END: Final = _attribute(
    "agent_kernel.stream_end",
    "How the stream ended; closed and abandoned ones are successes.",
    (INVOKE,),
    values=("exhausted", "closed", "abandoned", "cancelled", "failed"),
)
TIME_TO_FIRST_CHUNK: Final = _attribute(
    "agent_kernel.time_to_first_chunk",
    "Milliseconds from the stream's first step to its first frame.",
    (INVOKE,),
    type="double",
)
DRIVER_ID: Final = _attribute(
    "agent_kernel.driver_id",
    "The driver: on an attempt the one tried, on an invocation the one that served, else the "
    "last one tried.",
    (INVOKE, DRIVER),
)
FALLBACK: Final = _attribute(
    "agent_kernel.fallback",
    "Whether more than one driver was tried.",
    (INVOKE,),
    type="boolean",
)
HANDLE_ID: Final = _attribute(
    "agent_kernel.handle_id",
    "The handle under which the full result is kept, or that was expanded.",
    (INVOKE, EXPAND),
    sensitivity="id",
)
RESULT_FACTS: Final = _attribute(
    "agent_kernel.result.facts",
    "Facts in the frame; over a stream their sum.",
    (INVOKE,),
    type="int",
)
RESULT_ROWS: Final = _attribute(
    "agent_kernel.result.rows",
    "Rows in the frame; over a stream their sum.",
    (INVOKE, EXPAND),
    type="int",
)
REDACTIONS: Final = _attribute(
    "agent_kernel.redactions",
    "The firewall's warnings about redacted, omitted or elided data; over a stream their sum. "
    "Notices about raw mode do not count.",
    (INVOKE, FIREWALL),
    type="int",
)
POLICY_ENGINE: Final = _attribute(
    "agent_kernel.policy.engine",
    "Class name of who decided: the policy engine; the token provider; the handle store, for an "
    "expansion; the kernel, where it refused by itself.",
    (POLICY, POLICY_DECISION),
    at_start=True,
)
POLICY_PHASE: Final = _attribute(
    "agent_kernel.policy.phase",
    "Where the decision was made: at the grant, at the enforcement of a token, at the expansion "
    "of a handle (event only).",
    (POLICY, POLICY_DECISION),
    values=("grant", "enforce", "expand"),
    at_start=True,
)
POLICY_OUTCOME: Final = _attribute(
    "agent_kernel.policy.outcome",
    "What was decided; `error` where the engine failed to decide.",
    (POLICY, POLICY_DECISION),
    values=("allowed", "denied", "error"),
)
POLICY_ENFORCED: Final = _attribute(
    "agent_kernel.policy.enforced",
    "Set to false where an engine returned `allowed=False` without raising: the kernel issues "
    "the token all the same.",
    (POLICY, POLICY_DECISION),
    type="boolean",
)
REASON_CODE: Final = _attribute(
    "agent_kernel.reason_code",
    "The stable code of the decision: the kernel's own where it gives one; for tokens "
    "`token_expired`, `token_revoked`, `token_invalid`, `token_principal_mismatch`, "
    "`token_capability_mismatch`.",
    (POLICY, POLICY_DECISION, *_OPERATIONS),
)
REASON_CATEGORY: Final = _attribute(
    "agent_kernel.reason_category",
    "The family of a denial's reason code.",
    (POLICY, POLICY_DECISION),
    values=(
        "identity", "justification", "constraint", "rate_limit", "rule", "scope", "handle",
        "memory", "token", "other",
    ),
)  # fmt: skip
FEDERATION_PEERS: Final = _attribute(
    "agent_kernel.federation.peers", "Manifests that discovery returned.", (DISCOVER,), type="int"
)
FEDERATION_CAPABILITIES: Final = _attribute(
    "agent_kernel.federation.capabilities",
    "Capabilities in the manifests found, or imported.",
    (DISCOVER, IMPORT),
    type="int",
)
FEDERATION_TRUST_POLICY: Final = _attribute(
    "agent_kernel.federation.trust_policy",
    "How the imported capabilities' safety classes were taken over.",
    (IMPORT,),
    at_start=True,
)
BUDGET_GRANTED: Final = _attribute(
    "agent_kernel.budget.granted", "Tokens that the budget reserved.", (BUDGET,), type="int"
)
ROUTE_DRIVERS: Final = _attribute(
    "agent_kernel.route.drivers", "Drivers in the route plan.", (ROUTE,), type="int"
)
GOAL: Final = _attribute(
    "agent_kernel.goal", "The request's goal, scrubbed; opt-in.", (GRANT,), sensitivity="content"
)
JUSTIFICATION: Final = _attribute(
    "agent_kernel.justification",
    "The grant's justification, scrubbed; opt-in.",
    (GRANT,),
    sensitivity="content",
)
EVENT_TYPE: Final = _attribute(
    "agent_kernel.event_type", "Kind of the audit record.", (AUDIT,),
    values=("invoke", "expand", "deny"),
)  # fmt: skip

SECURITY_RULE_NAME: Final = _attribute(
    "security_rule.name",
    "The policy rule that decided, where the engine names it.",
    (POLICY, POLICY_DECISION),
)
ERROR_TYPE: Final = _attribute(
    "error.type",
    "Qualified class name of the exception; `TimeoutError` for an attempt past its deadline.",
    (*SPANS, *_EXCEPTIONS),
)
EXCEPTION_TYPE: Final = _attribute(
    "exception.type", "Class of the exception, with its module.", _EXCEPTIONS
)
EXCEPTION_MESSAGE: Final = _attribute(
    "exception.message",
    "Text of the exception, cut and scrubbed; opt-in.",
    _EXCEPTIONS,
    sensitivity="content",
)
GEN_AI_OPERATION_NAME: Final = _attribute(
    "gen_ai.operation.name", "Always `execute_tool`; not on dry runs.", (INVOKE,),
    values=("execute_tool",), at_start=True,
)  # fmt: skip
GEN_AI_TOOL_NAME: Final = _attribute(
    "gen_ai.tool.name", "The capability id; not on dry runs.", (INVOKE,), at_start=True
)
GEN_AI_TOOL_TYPE: Final = _attribute(
    "gen_ai.tool.type", "Always `function`; not on dry runs.", (INVOKE,),
    values=("function",), at_start=True,
)  # fmt: skip
GEN_AI_TOOL_DESCRIPTION: Final = _attribute(
    "gen_ai.tool.description",
    "The capability's registered description; not on dry runs.",
    (INVOKE,),
    at_start=True,
)
GEN_AI_TOOL_CALL_ID: Final = _attribute(
    "gen_ai.tool.call.id", "The action id; not on dry runs.", (INVOKE,), sensitivity="id"
)
GEN_AI_TOOL_CALL_ARGUMENTS: Final = _attribute(
    "gen_ai.tool.call.arguments",
    "The arguments as JSON, scrubbed; opt-in.",
    (INVOKE,),
    sensitivity="content",
)
GEN_AI_TOOL_CALL_RESULT: Final = _attribute(
    "gen_ai.tool.call.result",
    "The frame's facts or rows as JSON, scrubbed; opt-in.",
    (INVOKE,),
    sensitivity="content",
)

EXECUTE_TOOL: Final = "execute_tool"
"""Value of :data:`GEN_AI_OPERATION_NAME`, and first word of the invoke span's name where
``span_naming`` is ``gen_ai``."""

SIGNAL: Final = "agent_kernel.signal"
DROP_REASON: Final = "agent_kernel.drop_reason"

TELEMETRY_SENT: Final = MetricDefinition(
    "agent_kernel.telemetry_sent",
    "observable counter",
    "{item}",
    "Spans, log records and metric batches that the receiver has acknowledged.",
    (SIGNAL,),
)
TELEMETRY_DROPPED: Final = MetricDefinition(
    "agent_kernel.telemetry_dropped",
    "observable counter",
    "{item}",
    "Spans, log records and metric batches that were lost, by reason.",
    (SIGNAL, DROP_REASON),
)
METRICS.update({metric.name: metric for metric in (TELEMETRY_SENT, TELEMETRY_DROPPED)})
