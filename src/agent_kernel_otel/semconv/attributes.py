# SPDX-License-Identifier: Apache-2.0
"""The attributes of spans, log events and metrics."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.semconv.definitions import AttributeDefinition, Sensitivity, ValueType
from agent_kernel_otel.semconv.events import (
    EVENTS,
    EXCEPTION_EVENTS,
    EXPAND_EXCEPTION,
    GRANT_EXCEPTION,
    INVOKE_EXCEPTION,
    POLICY_DECISION,
)
from agent_kernel_otel.semconv.spans import (
    AUDIT,
    BUDGET,
    DISCOVER,
    DRIVER,
    EXPAND,
    FIREWALL,
    GRANT,
    IMPORT,
    INVOKE,
    POLICY,
    ROUTE,
    SPANS,
)
from agent_kernel_otel.semconv.values import (
    CAPABILITY_ID_LIMIT,
    DRIVER_ID_LIMIT,
    ERROR_TYPE_LIMIT,
    KNOWN_REASON_CODES,
    POLICY_ENGINE_LIMIT,
    REASON_CODE_LIMIT,
    RULE_NAME_LIMIT,
    SESSION_LIMIT,
    SYSTEM_WEAVER,
)

ATTRIBUTES: Final[dict[str, AttributeDefinition]] = {}


def _attribute(
    name: str,
    description: str,
    on: tuple[str, ...],
    *,
    type: ValueType = "string",  # noqa: A002 - the convention registry's own word
    sensitivity: Sensitivity = "none",
    values: tuple[str, ...] = (),
    at_start: bool = False,
    known: tuple[str, ...] = (),
    limit: int = 0,
    follows: str | None = None,
) -> str:
    ATTRIBUTES[name] = AttributeDefinition(
        name, type, description, on, sensitivity, values, at_start, known, limit, follows
    )
    return name


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
    "The capability asked for; on metrics `_OTHER` where the kernel does not know it.",
    (*_OPERATIONS, POLICY_DECISION, GRANT_EXCEPTION, INVOKE_EXCEPTION, EXPAND_EXCEPTION),
    at_start=True,
    limit=CAPABILITY_ID_LIMIT,
)
SAFETY_CLASS: Final = _attribute(
    "agent_kernel.safety_class",
    "The capability's safety class; where the kernel does not know the capability absent, on "
    "metrics `_OTHER`.",
    _OPERATIONS,
    at_start=True,
    known=("READ", "WRITE", "DESTRUCTIVE"),
    follows=CAPABILITY_ID,
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
    limit=SESSION_LIMIT,
)
ACTION_ID: Final = _attribute(
    "agent_kernel.action_id",
    "The kernel's audit id of this action; finds its `ActionTrace`.",
    _OPERATIONS,
    sensitivity="id",
)
REPLAYED: Final = _attribute(
    "agent_kernel.replayed",
    "Set to true on a span that was made of an audit record; live spans do not have it.",
    _OPERATIONS,
    type="boolean",
    at_start=True,
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
    known=("summary", "table", "handle_only", "raw"),
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
    limit=DRIVER_ID_LIMIT,
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
RESULT_WARNINGS: Final = _attribute(
    "agent_kernel.result.warnings",
    "Warnings in the frame, as an audit record counts them: those of `agent_kernel.redactions` and "
    "the notices about raw mode, which a record does not tell apart. On replayed spans only.",
    (INVOKE, EXPAND),
    type="int",
)
POLICY_ENGINE: Final = _attribute(
    "agent_kernel.policy.engine",
    "Class name of who decided: the policy engine; the token provider; the handle store, for an "
    "expansion; the kernel, where it refused by itself.",
    (POLICY, POLICY_DECISION),
    at_start=True,
    limit=POLICY_ENGINE_LIMIT,
)
POLICY_PHASE: Final = _attribute(
    "agent_kernel.policy.phase",
    "Where the decision was made: at the grant, at the enforcement of a token, at the expansion "
    "of a handle (no span).",
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
    known=KNOWN_REASON_CODES,
    limit=REASON_CODE_LIMIT,
)
REASON_CATEGORY: Final = _attribute(
    "agent_kernel.reason_category",
    "The family of a denial's reason code.",
    (POLICY, POLICY_DECISION),
    values=(
        "identity", "justification", "constraint", "rate_limit", "rule", "scope", "handle",
        "memory", "token", "other",
    ),
    follows=REASON_CODE,
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

EVICTION_REASON: Final = _attribute(
    "agent_kernel.eviction_reason",
    "Why a handle store let a result go: its time was over, or it was the oldest of too many, or "
    "of more bytes than the store may hold.",
    (),
    values=("expired", "capacity", "bytes"),
)
TIER: Final = _attribute(
    "agent_kernel.tier", "Which of the kernel's stores holds the memory.", (),
    values=("handle_store",),
)  # fmt: skip
VERSION: Final = _attribute(
    "agent_kernel.version", "Version of the kernel's distribution; a process has one.", ()
)
SIGNAL: Final = _attribute(
    "agent_kernel.signal",
    "The kind of telemetry. Of `metrics`, one collection is one item.",
    (),
    values=("traces", "metrics", "logs"),
)
DROP_REASON: Final = _attribute(
    "agent_kernel.drop_reason",
    "Why an item was lost: the receiver answered with an error; more were waiting than the queue "
    "holds; no answer in time; the exporter could not send it; the time at the process's end was "
    "over.",
    (),
    values=("refused", "queue_full", "unanswered", "failed", "exit"),
)

SECURITY_RULE_NAME: Final = _attribute(
    "security_rule.name",
    "The policy rule that decided, where the engine names it.",
    (POLICY, POLICY_DECISION),
    limit=RULE_NAME_LIMIT,
)
ERROR_TYPE: Final = _attribute(
    "error.type",
    "Qualified class name of the exception; `TimeoutError` for an attempt past its deadline.",
    (*SPANS, *_EXCEPTIONS),
    limit=ERROR_TYPE_LIMIT,
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
    "gen_ai.tool.name", "The capability id; not on dry runs.", (INVOKE,),
    at_start=True, limit=CAPABILITY_ID_LIMIT,
)  # fmt: skip
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
