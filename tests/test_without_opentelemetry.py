# SPDX-License-Identifier: Apache-2.0
"""Where OpenTelemetry, or a part of it, is not installed: nothing is traced, and nothing breaks."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

BLOCK = """
import logging, sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in ABSENT):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
"""

KERNEL = """
import asyncio
from weaver_kernel import (
    Capability, CapabilityRegistry, CapabilityRequest, HMACTokenProvider, InMemoryDriver, Kernel,
    Principal, SafetyClass,
)
registry = CapabilityRegistry()
registry.register(Capability("a.b", "n", "d", SafetyClass.READ))
kernel = Kernel(registry, token_provider=HMACTokenProvider(secret="s"))
driver = InMemoryDriver("memory")
driver.register_handler("a.b", lambda ctx: [1])
kernel.register_driver(driver)
logging.disable(logging.NOTSET)
logging.getLogger("weaver_kernel").setLevel(logging.ERROR)

def call():
    who = Principal("alice", roles=["reader"])
    token = kernel.grant_capability(CapabilityRequest("a.b", "g"), who, justification="j").token
    return asyncio.run(kernel.invoke(token, principal=who, args={})).response_mode
"""


def run(absent: list[str], script: str) -> str:
    """What a process prints in which these modules cannot be imported."""
    source = f"ABSENT = {absent!r}\n" + BLOCK + KERNEL + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


NEEDED = {
    "opentelemetry": "opentelemetry-api",
    "opentelemetry.instrumentation": "opentelemetry-instrumentation",
}


@pytest.mark.parametrize("absent", NEEDED)
def test_kernels_behave_and_one_line_says_what_to_install(absent: str) -> None:
    said = run([absent], """
        import agent_kernel_otel
        before = dict(vars(Kernel))
        for _ in range(3):
            agent_kernel_otel.instrument_kernel(kernel)
            print(call())
            agent_kernel_otel.uninstrument_kernel(kernel)
        assert dict(vars(Kernel)) == before
    """).splitlines()  # fmt: skip
    (line,) = [line for line in said if line != "summary"]
    assert said.count("summary") == 3
    assert "nothing is traced" in line
    assert f"pip install {NEEDED[absent]}" in line


@pytest.mark.parametrize("absent", NEEDED)
def test_the_instrumentor_raises_one_error_that_names_the_missing_package(absent: str) -> None:
    assert run([absent], f"""
        import agent_kernel_otel
        try:
            agent_kernel_otel.KernelInstrumentor
        except ImportError as error:
            assert type(error) is ImportError, type(error)
            assert error.__cause__ is None and error.__suppress_context__
            print({NEEDED[absent]!r} in str(error), "KernelInstrumentor" in str(error))
        try:
            from agent_kernel_otel import KernelInstrumentor
        except ImportError as error:
            print({NEEDED[absent]!r} in str(error))
    """).splitlines() == ["True True", "True"]  # fmt: skip


def test_without_the_sdk_alone_kernels_are_instrumented_for_nobody() -> None:
    assert run(["opentelemetry.sdk"], """
        from agent_kernel_otel import KernelInstrumentor, instrument_kernel
        KernelInstrumentor().instrument(skip_dep_check=True)
        print(call())
        instrument_kernel(kernel, span_level="debug")
        print(call())
        KernelInstrumentor().uninstrument()
        print(call())
    """).splitlines() == ["summary"] * 3  # fmt: skip


def test_another_missing_module_is_not_taken_for_opentelemetry() -> None:
    assert run(["wrapt"], """
        import agent_kernel_otel
        try:
            agent_kernel_otel.instrument_kernel(kernel)
        except ModuleNotFoundError as error:
            print(error.name)
    """) == "wrapt"  # fmt: skip


def test_configuration_needs_no_opentelemetry() -> None:
    assert run(["opentelemetry"], """
        from agent_kernel_otel import ConfigurationError, InstrumentationConfig
        print(InstrumentationConfig().span_level)
        try:
            InstrumentationConfig(span_level="loud")
        except ConfigurationError as error:
            print("loud" in str(error))
    """).splitlines() == ["info", "True"]  # fmt: skip


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import agent_kernel_otel

    with pytest.raises(AttributeError, match="nothing_like_it"):
        agent_kernel_otel.nothing_like_it  # noqa: B018


@pytest.mark.parametrize("absent", NEEDED)
def test_there_is_nothing_to_flush_and_a_level_can_be_set(absent: str) -> None:
    script = """
    from agent_kernel_otel import flush, set_span_level
    print(flush(), set_span_level("off"), set_span_level(None))
    """
    assert run([absent], script).endswith("True None off")
