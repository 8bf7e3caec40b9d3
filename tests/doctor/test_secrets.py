# SPDX-License-Identifier: Apache-2.0
"""No secret is shown, as text, as JSON, or in what a library or a receiver says of a failure."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping

import grpc  # type: ignore[import-untyped]
import pytest

from agent_kernel_otel.doctor.json_output import json_of
from agent_kernel_otel.doctor.rendering import text_of
from tests.doctor.harness import diagnosis
from tests.doctor.receivers import grpc_receiver, http_receiver

HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


@pytest.fixture
def secret() -> str:
    return f"canary{secrets.token_hex(8)}"


def shown(variables: Mapping[str, str], capture: pytest.CaptureFixture[str]) -> str:
    """Everything that the doctor writes, in both forms, and that libraries write meanwhile."""
    found = diagnosis(variables, ask=True)
    assert found.problems
    written = capture.readouterr()
    assert "Traceback" not in written.err
    return text_of(found) + json.dumps(json_of(found)) + written.out + written.err


PLACES: list[dict[str, str]] = [
    {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20{}"},
    {"OTEL_EXPORTER_OTLP_HEADERS": "{}"},
    {"OTEL_EXPORTER_OTLP_HEADERS": "{}=="},
    {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-key: {}"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:{}@127.0.0.1:1"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://{}@127.0.0.1:1", **HTTP},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1/{}", **HTTP},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces?key={}", **HTTP},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "user:{}@127.0.0.1:1", **HTTP},
    {"OTEL_EXPORTER_OTLP_CLIENT_KEY": "-----BEGIN PRIVATE KEY-----\n{}"},
    {"OTEL_EXPORTER_OTLP_CLIENT_KEY": "{}"},
    {"OTEL_AGENT_KERNEL_PRINCIPAL_HASH_KEY": "{}"},
    {"OTEL_EXPORTER_OTLP_PROTOCOL": "token={}"},
    {"OTEL_TRACES_SAMPLER": "{}"},
    {"OTEL_EXPORTER_OTLP_TIMEOUT": "{}"},
    {"OTEL_PYTHON_DISTRO": "{}"},
    {"OTEL_TRACES_EXPORTER": "{}"},
    {"OTEL_SDK_DISABLED": "{}", "OTEL_TRACES_SAMPLER": "always_off"},
    {"OTEL_AGENT_KERNEL_SPAN_LEVEL": "{}"},
    {"OTEL_BSP_SCHEDULE_DELAY": "{}"},
    {"OTEL_VENDOR_API_TOKEN": "{}"},
    {"OTEL_RESOURCE_ATTRIBUTES": "api_key={}"},
    {"http_proxy": "http://user:{}@127.0.0.1:1", **HTTP},
]


@pytest.mark.parametrize("place", PLACES, ids=",".join)
def test_a_secret_in_a_variable_is_not_shown(
    place: dict[str, str], secret: str, capfd: pytest.CaptureFixture[str]
) -> None:
    variables = {name: value.replace("{}", secret) for name, value in place.items()}
    variables.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert secret not in shown(variables, capfd)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_what_a_receiver_over_http_repeats_is_masked(
    status: int, secret: str, capfd: pytest.CaptureFixture[str]
) -> None:
    basic = base64.b64encode(f"tenant:{secret}".encode()).decode()
    said = f"bad credentials {secret}, sent as Basic {basic}".encode()
    with http_receiver({"*": (status, {}, said)}) as endpoint:
        text = shown(
            {
                **HTTP,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Basic%20{basic}",
            },
            capfd,
        )
    assert str(status) in text
    assert secret not in text
    assert basic not in text


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INTERNAL], ids=str
)
def test_what_a_receiver_over_grpc_repeats_is_masked(
    status: grpc.StatusCode, secret: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with grpc_receiver({"*": (status, f"no tenant for key {secret}")}) as endpoint:
        text = shown(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={secret}",
            },
            capfd,
        )
    assert status.name in text
    assert secret not in text
