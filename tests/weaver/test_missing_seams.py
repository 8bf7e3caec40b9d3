# SPDX-License-Identifier: Apache-2.0
"""What a release of the kernel lacks or redefines: fewer spans, one warning, and no exception."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import pytest
from weaver_kernel import Kernel

from agent_kernel_otel import (
    KernelInstrumentor,
    instrument_kernel,
    semconv,
    uninstrument_kernel,
)
from agent_kernel_otel.weaver.patching import KernelPatches, OperationWrapper
from agent_kernel_otel.weaver.targets import OPERATIONS, SEAMS
from tests.support.capture import Capture
from tests.support.instrumented import drain, instrumented, open_stream
from tests.support.kernels import ALICE, StreamingDriver, grant, make_kernel, token_of


@pytest.mark.parametrize("target", OPERATIONS, ids=lambda target: target.method)
def test_without_one_operation_the_others_are_traced(
    target: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(Kernel, target.method)
    patches = KernelPatches(Kernel)
    patches.install()
    patches.install()
    warnings = [record for record in caplog.records if target.method in record.getMessage()]
    assert len(warnings) == (1 if target.in_all_releases else 0)
    wrapped = [name for name, value in vars(Kernel).items() if isinstance(value, OperationWrapper)]
    assert len(wrapped) == len(OPERATIONS)  # the constructor is one, and one is gone
    patches.remove()


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.attribute)
async def test_an_attribute_that_the_class_defines_itself_is_left_alone(
    seam: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = seam.attribute

    def get(kernel: Any) -> Any:
        return kernel.__dict__[name]

    def put(kernel: Any, value: Any) -> None:
        kernel.__dict__[name] = value

    redefined = property(get, put)
    monkeypatch.setattr(Kernel, name, redefined, raising=False)
    monkeypatch.setattr("agent_kernel_otel.weaver.switching.switch._patches", {})
    with instrumented(span_level="debug") as captured:
        assert vars(Kernel)[name] is redefined
        kernel = make_kernel()
        await kernel.invoke(grant(kernel).token, principal=ALICE, args={})
        assert {node.name for node in captured.roots()} == {semconv.GRANT, semconv.INVOKE}
    warnings = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert len(warnings) == 1
    assert vars(Kernel)[name] is redefined


@pytest.mark.parametrize("attribute", ["_registry", "_kernel_id", "_stats"])
async def test_another_private_attribute_that_is_missing_is_not_ours_to_need(
    attribute: str,
) -> None:
    kernel = make_kernel()
    token = token_of(kernel)
    del vars(kernel)[attribute]
    with instrumented() as captured:
        failure = pytest.raises(AttributeError, match=attribute)
        with nullcontext() if attribute == "_kernel_id" else failure:
            await kernel.invoke(token, principal=ALICE, args={})
        assert captured.root().name == semconv.INVOKE


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.attribute)
async def test_a_collaborator_that_is_missing_raises_what_it_raised(seam: Any) -> None:
    async def error_of(kernel: Any) -> str:
        token = token_of(kernel)
        del vars(kernel)[seam.attribute]
        try:
            kernel.grant_capability  # noqa: B018 - present in any case
            grant(kernel)
            await kernel.invoke(token, principal=ALICE, args={})
        except AttributeError as error:
            return f"{error} {error.name}"
        return "none"

    without = await error_of(make_kernel())
    with instrumented():
        assert await error_of(make_kernel()) == without


@pytest.mark.parametrize("module", ["drivers.base", "firewall.redaction", "otel"])
async def test_a_module_that_moved_costs_no_behaviour(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"weaver_kernel.{module}")
    kernel = make_kernel(StreamingDriver())
    expected = len(await drain(open_stream(kernel)))
    with instrumented(capture_exception_text=True) as captured:
        assert len(await drain(open_stream(kernel))) == expected == 4
        assert captured.root()[semconv.STREAM_END] == "exhausted"


def test_a_missing_seam_is_warned_of_once_over_many_instrumentations(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(Kernel, "expand")
    monkeypatch.setattr("agent_kernel_otel.weaver.switching.switch._patches", {})
    for _ in range(3):
        KernelInstrumentor().instrument()
        KernelInstrumentor().uninstrument()
    assert len([record for record in caplog.records if "expand" in record.getMessage()]) == 1


@pytest.mark.parametrize("by", ["all kernels", "one kernel"])
def test_an_attribute_that_a_kernel_lacks_is_warned_of_once(
    by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agent_kernel_otel.weaver.switching._warned_of", set())
    captured = Capture()
    kernels = [make_kernel() for _ in range(3)]
    if by == "all kernels":
        KernelInstrumentor().instrument(**captured.providers)
    for kernel in kernels:
        del vars(kernel)["_firewall"]
        if by == "one kernel":
            instrument_kernel(kernel, **captured.providers)
        grant(kernel)
        uninstrument_kernel(kernel)
    KernelInstrumentor().uninstrument()
    warnings = [
        record.getMessage() for record in caplog.records if "_firewall" in record.getMessage()
    ]
    assert warnings == ["this release of the kernel has no _firewall; some spans will be missing"]
    assert len(captured.roots()) == 3
