# SPDX-License-Identifier: Apache-2.0
"""What is refused, by which reason and rule, and what was let through that can do harm."""

from __future__ import annotations

from typing import Final

from agent_kernel_otel.dashboards.model import Dashboard, Row
from agent_kernel_otel.dashboards.panels import (
    DEBUG,
    FIRST_COUNTS,
    above,
    lines,
    number,
    red_above,
    table,
)
from agent_kernel_otel.dashboards.promql import (
    STEP,
    increase,
    quantile,
    rate,
    share,
    total,
)
from agent_kernel_otel.dashboards.weaver.choices import CAPABILITY, PROCESSES, TAGS
from agent_kernel_otel.semconv import (
    CAPABILITY_ID,
    GRANTS,
    HANDLES_EXPANDED,
    INVOCATIONS,
    OTHER,
    POLICY_DENIALS,
    POLICY_DURATION,
    POLICY_ENGINE,
    POLICY_OUTCOME,
    POLICY_PHASE,
    REASON_CATEGORY,
    REASON_CODE,
    SAFETY_CLASS,
    SECURITY_RULE_NAME,
    STATUS,
)

_DENIED: Final = {STATUS: "denied"}
_DESTRUCTIVE: Final = {SAFETY_CLASS: "DESTRUCTIVE"}
_UNKNOWN: Final = {SAFETY_CLASS: OTHER, STATUS: "error"}
"""Past the limit of metrics a capability has its safety class still."""

_NOW: Final = Row(
    "At a glance",
    (
        number(
            "Refused at the grant",
            increase(GRANTS, where=_DENIED),
            shows="Requests for a token that the policy refused, over all that is shown.",
            advice="*Reasons* says why. A denial is the policy at work: compare with last week.",
        ),
        number(
            "Refused tokens",
            increase(INVOCATIONS, where=_DENIED),
            shows="Invocations whose token was refused: expired, revoked, forged or another's.",
            advice="`token_expired` and `token_revoked` come of agents that keep tokens too long; "
            "a mismatch is an agent that uses what is not its own: find out which.",
            steps=above(1, 100),
        ),
        number(
            "Refused expansions",
            increase(HANDLES_EXPANDED, where=_DENIED),
            shows="Handles that somebody asked to expand, and may not.",
            advice="a handle came into the hands of another principal, or is asked for fields "
            "that its constraints exclude: the traces name the principal.",
            steps=red_above(1),
        ),
        number(
            "Destructive grants",
            increase(GRANTS, where={**_DESTRUCTIVE, STATUS: "success"}),
            shows="Tokens granted for capabilities that destroy.",
            advice="each should have been meant: the grant's span has the principal and the "
            "rule that allowed it.",
            steps=above(1, 100),
        ),
        number(
            "Destructive invocations",
            increase(INVOCATIONS, where={**_DESTRUCTIVE, STATUS: "success"}),
            shows="Successful invocations of capabilities that destroy.",
            advice="compare with what was meant; the audit trail has each by its action id.",
            steps=above(1, 100),
        ),
        number(
            "Unknown capabilities",
            increase(GRANTS, where=_UNKNOWN),
            shows="Requests for capabilities that the kernel does not know.",
            advice="an agent asks for what does not exist, as models that invent tools do, or its "
            "list of tools is older than the kernel: the traces have the name that it asked for.",
            steps=above(1, 100),
            empty="none",
        ),
    ),
)

_REFUSALS: Final = Row(
    "Refusals",
    (
        table(
            "Reasons",
            total(
                POLICY_DENIALS, (CAPABILITY_ID, POLICY_PHASE, REASON_CODE, SECURITY_RULE_NAME)
            ).named("Refusals"),
            shows=f"What was refused, why and by whom, over all that is shown. {FIRST_COUNTS} `grant` is the "
            "policy, `enforce` a token, `expand` a handle. The rule is there where the engine names it.",
            advice="A reason that was never there before is worth a look at its traces, which name the "
            "principal.",
        ),
        lines(
            "Refusals by capability",
            rate(GRANTS, (CAPABILITY_ID,), _DENIED),
            shows="Requests for a token that were refused; a first one is seen, too.",
            advice="One capability alone, and steeply: an agent that tries again and again. Its traces "
            "name the principal.",
        ),
        lines(
            "Refusals by family",
            rate(POLICY_DENIALS, (REASON_CATEGORY,)),
            shows="Refusals by the family of their reason, all phases. The first of a kind makes no rate.",
            advice="`rate_limit`: an agent in a loop. `justification`: prompts changed. `identity` and "
            "`scope`: roles changed, or somebody tries. `token`: tokens kept too long, or stolen.",
        ),
        lines(
            "Refusals by reason",
            rate(POLICY_DENIALS, (POLICY_PHASE, REASON_CODE)),
            shows="Refusals by reason and phase. `unknown` is an engine that gives no code.",
            advice="Compare with the last release of the policy: a rule that refuses too much begins "
            "with its roll-out.",
        ),
        lines(
            "Refusals by rule",
            rate(POLICY_DENIALS, (SECURITY_RULE_NAME,), {SECURITY_RULE_NAME: "!"}),
            shows="Refusals by the rule that decided, where the engine names it.",
            advice="A rule that never refuses may be shadowed by another; one that refuses everything "
            "may match too much.",
        ),
    ),
)

_CLASSES: Final = Row(
    "Grants and safety classes",
    (
        lines(
            "Grants by status",
            rate(GRANTS, (STATUS,)),
            shows="Requests for a token, by how they ended.",
            advice="`error` is a policy engine or a token provider that fails: nothing is granted then.",
        ),
        lines(
            "Grants refused by capability",
            share(
                increase(GRANTS, (CAPABILITY_ID,), _DENIED, over=STEP),
                increase(GRANTS, (CAPABILITY_ID,), over=STEP),
            ),
            shows="Share of each capability's requests that were refused; without those of which there "
            "were fewer than ten.",
            advice="agents ask for what they never get: take it out of their tools, or grant it.",
            steps=above(0.1, 0.5),
        ),
        lines(
            "Invocations by safety class",
            rate(INVOCATIONS, (SAFETY_CLASS,)),
            shows="What was done, by how much harm it can do.",
            advice="`DESTRUCTIVE` where there was none is worth a look at its traces at once.",
        ),
        lines(
            "Destructive requests",
            rate(GRANTS, (CAPABILITY_ID, STATUS), _DESTRUCTIVE),
            shows="Requests for capabilities that destroy, by how they ended.",
            advice="Who asked, and by which rule it was granted, is on the grant's span.",
        ),
    ),
)

_DECISIONS: Final = Row(
    "Decisions",
    (
        lines(
            "Decision time",
            quantile(0.95, POLICY_DURATION, (POLICY_ENGINE, POLICY_PHASE)),
            shows="95 % of decisions were faster: of the engine in a grant, of the verification of a token "
            f"in an invocation. {DEBUG}",
            advice="every action waits for it: a policy engine that asks over the network needs a "
            "cache.",
            steps=above(25, 100),
        ),
        lines(
            "Decisions by outcome",
            rate(POLICY_DURATION, (POLICY_OUTCOME,), part="count"),
            shows=f"Decisions by outcome. {DEBUG}",
            advice="`error` is an engine that crashed: the span of the decision has the exception's type.",
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    "weaver-policy",
    "Weaver kernel: policy and security",
    "What is refused and why, and what is granted that can do harm.",
    TAGS,
    (*PROCESSES, CAPABILITY),
    (_NOW, _REFUSALS, _CLASSES, _DECISIONS),
)
