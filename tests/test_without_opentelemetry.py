# SPDX-License-Identifier: Apache-2.0
"""Where OpenTelemetry, or a part of it, is not installed: kernels are counted, nothing breaks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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

COUNTED = """
from agent_kernel_otel import instrument_kernel, kernel_stats, stats, uninstrument_kernel
from weaver_kernel import PolicyDenied, TokenScopeError

EVERY_DENIAL = ("agent_kernel.policy_denials", "agent_kernel.policy.phase")

def ask(capability, roles):
    request = CapabilityRequest(capability, "g")
    return kernel.grant_capability(request, Principal("alice", roles=roles), justification="j").token

def use(who="alice", **options):
    token = ask("a.b", ["reader"])
    principal = Principal(who, roles=["reader"])
    return asyncio.run(kernel.invoke(token, principal=principal, args={}, **options))

def show(name, seen):
    print(name, seen.grants, seen.denials, seen.invocations, seen.invocation_failures,
          seen.invocations_denied, seen.dry_runs, seen.handle_stores, seen.expansions,
          seen.driver_attempts, seen.audit_records, seen.invocations_active,
          dict(seen.denials_by_reason), dict(seen.by(*EVERY_DENIAL)))

registry.register(Capability("a.w", "n", "d", SafetyClass.WRITE))
before = dict(vars(Kernel))
use()
instrument_kernel(kernel)
instrument_kernel(kernel)
frame = use()
use(dry_run=True)
kernel.expand(frame.handle, query={}, principal=Principal("alice", roles=["reader"]))
for refused in (lambda: ask("a.w", ["reader"]), lambda: use("bob")):
    try:
        refused()
    except (PolicyDenied, TokenScopeError):
        pass
del driver._handlers["a.b"]
try:
    use()
except Exception as error:
    print(type(error).__name__)
show("kernel", kernel_stats(kernel).snapshot())
show("process", stats.snapshot())
kernel_stats(kernel).reset()
show("reset", kernel_stats(kernel).snapshot())
uninstrument_kernel(kernel)
assert dict(vars(Kernel)) == before
"""
"""Does a bit of everything, and prints what was counted of it."""

SEEN = [
    "DriverError",
    "kernel 4 1 3 1 1 1 1 1 2 4 0 {'missing_role': 1} {'grant': 1, 'enforce': 1}",
    "process 4 1 3 1 1 1 1 1 2 4 0 {'missing_role': 1} {'grant': 1, 'enforce': 1}",
    "reset 0 0 0 0 0 0 0 0 0 0 0 {} {'grant': 0, 'enforce': 0}",
]
"""What that is."""


def test_kernels_are_counted_exactly_and_one_line_says_that_nothing_is_exported() -> None:
    line, *seen = run(["opentelemetry"], COUNTED).splitlines()
    assert seen == SEEN
    assert line == (
        "agent_kernel_otel: kernels are counted and nothing is exported: "
        "opentelemetry is not installed; run: pip install opentelemetry-api"
    )


@pytest.mark.parametrize("absent", ["opentelemetry.instrumentation", "opentelemetry.sdk"])
def test_the_counts_are_the_same_where_a_part_is_missing(absent: str) -> None:
    assert run([absent], COUNTED).splitlines() == SEEN


def test_without_the_instrumentation_package_one_kernel_is_traced_in_full() -> None:
    assert run(["opentelemetry.instrumentation"], """
        from opentelemetry import context
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from agent_kernel_otel import instrument_kernel, uninstrument_kernel
        exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        instrument_kernel(kernel, tracer_provider=provider)
        call()
        for key in (context._SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation"):
            attached = context.attach(context.set_value(key, True))
            call()
            context.detach(attached)
        uninstrument_kernel(kernel)
        call()
        for span in exporter.get_finished_spans():
            print(span.name)
    """).splitlines() == [
        "agent_kernel.policy.evaluate",
        "agent_kernel.grant",
        "agent_kernel.policy.evaluate",
        "agent_kernel.driver.execute",
        "agent_kernel.firewall.apply",
        "agent_kernel.invoke",
    ]  # fmt: skip


def test_settings_that_need_opentelemetry_are_taken_and_do_nothing() -> None:
    line, *seen = run(["opentelemetry"], """
        from agent_kernel_otel import instrument_kernel, kernel_stats, set_span_level
        instrument_kernel(kernel, span_level="debug", metrics_level="debug", gen_ai_metrics=True,
                          propagate_context={"http", "mcp", "federation"}, session="mine")
        set_span_level("debug")
        print(call())
        print(kernel_stats(kernel).snapshot().invocations)
    """).splitlines()  # fmt: skip
    assert "nothing is exported" in line
    assert seen == ["summary", "1"]


def _packages_of(found: Distribution, into: dict[str, Path]) -> None:
    """The top-level modules of a distribution and of all that it requires."""
    for file in found.files or ():
        top = file.parts[0]
        if top not in {"..", "__pycache__"}:
            into[top] = Path(str(found.locate_file(top)))
    for line in found.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            _packages_of(distribution(requirement.name), into)


@pytest.fixture(scope="module")
def without_opentelemetry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the kernel, wrapt and this package, no more."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = directory / "lib" / version / "site-packages"
    packages: dict[str, Path] = {}
    for name in ("weaver-kernel", "wrapt"):
        _packages_of(distribution(name), packages)
    import agent_kernel_otel

    packages["agent_kernel_otel"] = Path(agent_kernel_otel.__file__).parent
    for name, path in packages.items():
        (site / name).symlink_to(path)
    return directory / "bin" / "python"


@pytest.mark.parametrize("namespace", [False, True])
def test_an_environment_without_opentelemetry_counts(
    without_opentelemetry: Path, tmp_path: Path, *, namespace: bool
) -> None:
    if namespace:  # as opentelemetry-proto alone makes it
        (tmp_path / "opentelemetry" / "proto").mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [without_opentelemetry, "-W", "error", "-c", "ABSENT = []\n" + BLOCK + KERNEL + COUNTED],
        capture_output=True, text=True, check=False, timeout=60,
        env={**env, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.stderr == ""
    line, *seen = done.stdout.splitlines()
    assert re.search(r"nothing is exported: opentelemetry\S* is not installed", line)
    assert seen == SEEN


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
