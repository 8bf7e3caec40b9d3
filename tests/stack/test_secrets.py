# SPDX-License-Identifier: Apache-2.0
"""No secret of the demo is in anything that a backend answers, or has on its disk."""

from __future__ import annotations

from pathlib import Path

from tests.stack.asking import get
from tests.stack.conftest import AUDITED_SERVICE, SERVICE, Worked

PLANTED = {
    *("goal", "constraint", "justification", "argument", "password", "result", "address", "error"),
}
"""The places; see ``demo.py``."""


def _answers(worked: Worked) -> dict[str, str]:
    stack = worked.stack
    prometheus, alertmanager = (
        stack.address("prometheus", 9090),
        stack.address("alertmanager", 9093),
    )
    others = worked.others.address
    everything = "match[]=%7B__name__%3D~%22.%2B%22%7D"
    answers = {
        f"Jaeger, {service}, raw {raw}": worked.jaeger.text(
            "/api/traces", service=service, start=0, limit=5000, raw=raw
        )
        for service in worked.jaeger.services()
        for raw in ("true", "false")
    }
    for address in (prometheus, others):
        for path in (
            f"series?{everything}",
            "labels",
            "metadata",
            "alerts",
            "rules",
            "query_exemplars?query=%7B__name__%3D~%22.%2B%22%7D&start=0&end=9000000000",
        ):
            answers[f"{address}, {path}"] = get(f"{address}/api/v1/{path}")
    answers["Alertmanager"] = get(f"{alertmanager}/api/v2/alerts")
    for page in ((8889, "/metrics"), (8888, "/metrics")):
        answers[f"Collector, {page}"] = get(stack.address("collector", page[0]) + page[1])
    return answers


def test_no_answer_has_a_secret_in_it(worked: Worked) -> None:
    answers = _answers(worked)
    assert worked.jaeger.services() == {SERVICE, AUDITED_SERVICE}
    assert all(record.action_id in "".join(answers.values()) for record in worked.records)
    assert [name for name, text in answers.items() if worked.secret in text] == []


def test_no_file_of_a_backend_has_a_secret_in_it(worked: Worked) -> None:
    files = {path: path.read_bytes() for folder in worked.folders for path in _files(folder)}
    (decisions,) = (data for path, data in files.items() if path.name == "decisions.jsonl")
    assert b"agent_kernel.policy.decision" in decisions
    known = worked.records[0].action_id.encode()
    assert any(known in data for data in files.values())  # what is looked for here can be found
    secret = worked.secret.encode()
    assert [path for path, data in files.items() if secret in data] == []


def test_no_log_of_a_program_has_a_secret_in_it(worked: Worked) -> None:
    for name, program in worked.stack.programs.items():
        assert worked.secret not in program.log(), name


def test_the_app_itself_had_them(worked: Worked) -> None:
    # Its audit file is its own, and holds what the kernel writes down.
    assert any(f"argument-{worked.secret}" in str(record) for record in worked.records)
    source = (Path(__file__).parent / "demo.py").read_text()
    assert {
        place for place in PLANTED if f'secret("{place}")' in source.replace("'", '"')
    } == PLANTED


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
