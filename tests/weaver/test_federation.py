# SPDX-License-Identifier: Apache-2.0
"""Discovery and import of remote capabilities: counts, and nothing that says where or whose."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from weaver_kernel import DiscoveryError, FederationError, ManifestError, TrustPolicyError
from weaver_kernel.models import CapabilityManifest

from agent_kernel_otel import semconv
from tests.support.capture import Capture
from tests.support.instrumented import instrumented
from tests.support.kernels import ALICE, READ, grant, make_kernel, memory_driver
from tests.support.refusals import check_failed

HOST = "peer-a.invalid"
PEERS = [f"https://user:hunter2@{HOST}/{n}" for n in range(2)]


def manifest() -> CapabilityManifest:
    return make_kernel(kernel_id="remote-kernel").advertise(endpoint=f"https://{HOST}/kernel")


def remote_manifest(prefix: str = "remote.") -> CapabilityManifest:
    remote = manifest()
    for descriptor in remote.capabilities:
        descriptor.capability_id = prefix + descriptor.capability_id
    return remote


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[httpx.Request], Any]], None]:
    """Lets a test answer every request that the kernel makes."""
    real = httpx.AsyncClient

    def answer(handler: Callable[[httpx.Request], Any]) -> None:
        transport = httpx.MockTransport(handler)
        monkeypatch.setattr(
            httpx, "AsyncClient", lambda **options: real(**{**options, "transport": transport})
        )

    return answer


def nothing_remote_in(capture: Capture) -> None:
    text = capture.exported_text()
    for secret in (HOST, "hunter2", "remote-kernel", "https://"):
        assert secret not in text


async def test_a_discovery_tells_how_much_it_found_and_not_where(
    capture: Capture, network: Any
) -> None:
    network(lambda _: httpx.Response(200, text=json.dumps(manifest().to_dict())))
    found = await make_kernel().discover_peers(peer_urls=PEERS)
    assert len(found) == 2
    root = capture.root()
    assert root.outline() == semconv.DISCOVER
    assert root[semconv.STATUS] == "success"
    assert root[semconv.FEDERATION_PEERS] == 2
    assert root[semconv.FEDERATION_CAPABILITIES] == 6
    assert root[semconv.KERNEL_ID] == "agent-kernel"
    assert not capture.events()
    nothing_remote_in(capture)


async def test_a_discovery_that_fails_tells_only_its_class(capture: Capture, network: Any) -> None:
    network(lambda _: httpx.Response(503))
    with pytest.raises(DiscoveryError, match=HOST) as raised:
        await make_kernel().discover_peers(peer_urls=PEERS)
    check_failed(capture, semconv.DISCOVER, raised.value)
    nothing_remote_in(capture)


async def test_spans_of_the_http_client_are_under_the_discovery(
    capture: Capture, network: Any
) -> None:
    tracer = capture.tracer_provider.get_tracer("http")

    def handler(_: httpx.Request) -> httpx.Response:
        with tracer.start_as_current_span("GET"):
            return httpx.Response(200, text=json.dumps(manifest().to_dict()))

    network(handler)
    await make_kernel().discover_peers(peer_urls=PEERS)
    assert len(capture.root(semconv.DISCOVER).named("GET")) == 2


@pytest.mark.parametrize("options", [{}, {"trust_policy": "local_only"}])
def test_an_import_tells_how_much_and_under_which_trust(
    capture: Capture, options: dict[str, Any]
) -> None:
    make_kernel().import_remote(remote_manifest(), driver=memory_driver("remote"), **options)
    root = capture.root()
    assert root.outline() == semconv.IMPORT
    assert root[semconv.STATUS] == "success"
    assert root[semconv.FEDERATION_CAPABILITIES] == 3
    policy = options.get("trust_policy", "most_restrictive")
    assert root[semconv.FEDERATION_TRUST_POLICY] == policy
    nothing_remote_in(capture)
    assert "remote." not in capture.exported_text()


def test_an_import_that_fails_tells_only_its_class(capture: Capture) -> None:
    with pytest.raises(ManifestError) as raised:
        make_kernel().import_remote(manifest(), driver=memory_driver("remote"))
    check_failed(capture, semconv.IMPORT, raised.value)
    nothing_remote_in(capture)


def test_an_unknown_trust_policy_fails_in_the_kernel(capture: Capture) -> None:
    kernel: Any = make_kernel()
    with pytest.raises(TrustPolicyError) as raised:
        kernel.import_remote(remote_manifest(), driver=memory_driver("r"), trust_policy="any")
    root = check_failed(capture, semconv.IMPORT, raised.value)
    assert root[semconv.FEDERATION_TRUST_POLICY] == "any"


def test_the_kernels_error_names_the_apps_own_router(capture: Capture) -> None:
    class Fixed:
        def route(self, capability_id: str) -> Any:
            raise AssertionError

    with pytest.raises(FederationError, match="configured Fixed does not"):
        make_kernel(router=Fixed()).import_remote(remote_manifest(), driver=memory_driver("r"))


async def test_an_imported_capability_is_invoked_like_any_other(capture: Capture) -> None:
    kernel = make_kernel()
    driver = memory_driver("remote")
    driver.register_handler(f"remote.{READ}", lambda _: [1])
    kernel.import_remote(remote_manifest(), driver=driver)
    token = grant(kernel, f"remote.{READ}").token
    capture.clear()
    await kernel.invoke(token, principal=ALICE, args={})
    root = capture.root()
    assert root[semconv.CAPABILITY_ID] == f"remote.{READ}"
    assert root[semconv.SAFETY_CLASS] == "READ"
    assert root.only(semconv.DRIVER)[semconv.DRIVER_ID] == "remote"


def test_advertising_is_no_operation(capture: Capture) -> None:
    manifest()
    assert not capture.spans()


async def test_failures_are_told_where_spans_are_switched_off(network: Any) -> None:
    network(lambda _: httpx.Response(503))
    with instrumented(span_level="off") as capture:
        with pytest.raises(DiscoveryError):
            await make_kernel().discover_peers(peer_urls=PEERS)
        assert [event.name for event in capture.events()] == [semconv.DISCOVER_EXCEPTION]
        nothing_remote_in(capture)
