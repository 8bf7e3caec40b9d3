# SPDX-License-Identifier: Apache-2.0
"""The Compose file, as the real Compose reads it and as ``make stack`` does; no engine is needed."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.stack.compose import FILE, FOLDER, read
from tests.stack.conftest import Compose
from tests.stack.stack import ROOT

ENDS = {"volumes"}
"""Services that do one thing and end."""
WITHOUT_A_CHECK = {"collector"}
"""Whose image has nothing to check with; another service does."""
MADE_HERE = {"agent-kernel-otel-demo"}
PROVISIONING = FOLDER / "grafana" / "provisioning"
DASHBOARDS = ROOT / "src" / "agent_kernel_otel" / "dashboards" / "json"


@pytest.fixture
def configured(compose: Compose) -> dict[str, Any]:
    done = compose("-f", str(FILE), "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_compose_rejects_what_it_does_not_know(compose: Compose, tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("healthcheck:", "healthchek:", 1))
    assert compose("-f", str(wrong), "config").returncode != 0


def test_images_have_a_version(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        if service["image"] not in MADE_HERE:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_the_versions_are_those_that_are_run_here() -> None:
    images = {name: service["image"] for name, service in read({})["services"].items()}
    builder = (FOLDER.parent / "builders" / "collector.yaml").read_text()
    assert images["collector"].endswith(":" + yaml.safe_load(builder)["dist"]["version"])
    # Jaeger has two numbers for a release: v1.76.0 is 2.13.0.
    assert "@v1.76.0" in (ROOT / "tests" / "jaeger" / "build.py").read_text()
    assert images["jaeger"].endswith(":2.13.0")


def test_ports_are_on_loopback_and_clash_with_none(configured: dict[str, Any]) -> None:
    ports = [p for service in configured["services"].values() for p in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert len(published) == len(set(published)) == 6


def test_what_can_be_changed_is_in_the_example_with_its_default() -> None:
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", FILE.read_text()))
    example = (FOLDER / ".env.example").read_text()
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == used


def test_ports_can_be_changed(compose: Compose, tmp_path: Path) -> None:
    changed = tmp_path / ".env"
    example = (FOLDER / ".env.example").read_text()
    changed.write_text(example.replace("GRAFANA_PORT=3000", "GRAFANA_PORT=3001"))
    done = compose("-f", str(FILE), "--env-file", str(changed), "config", "--format", "json")
    (port,) = json.loads(done.stdout)["services"]["grafana"]["ports"]
    assert (port["published"], port["target"]) == ("3001", 3000)


def test_every_service_that_stays_is_checked_and_comes_again(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        if name in ENDS:
            assert "restart" not in service
            continue
        assert service["restart"] == "unless-stopped", name
        assert ("healthcheck" in service) == (name not in WITHOUT_A_CHECK), name
    check = configured["services"]["collector-health"]["healthcheck"]["test"]
    assert "http://collector:13134/" in check


def test_no_service_has_more_rights_than_it_needs(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged"), name


def test_there_is_no_password(configured: dict[str, Any]) -> None:
    assert "PASSWORD" not in json.dumps(configured)
    grafana = configured["services"]["grafana"]["environment"]
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_what_is_mounted_is_there_and_cannot_be_written(configured: dict[str, Any]) -> None:
    for name, service in configured["services"].items():
        for mount in service.get("volumes", ()):
            if mount["type"] == "bind":
                assert Path(mount["source"]).exists(), mount["source"]
                assert mount["read_only"], (name, mount["source"])
            else:
                assert mount["source"] in configured["volumes"]


def test_make_stack_reads_the_file_as_compose_does(configured: dict[str, Any]) -> None:
    services = read({})["services"]
    assert set(services) == set(configured["services"])
    for name, service in configured["services"].items():
        environment = services[name].get("environment", {})
        assert {key: str(value) for key, value in environment.items()} == (
            service.get("environment") or {}
        )
        assert services[name].get("command") == service.get("command")


def test_the_image_of_the_demo_gets_the_files_that_it_imports() -> None:
    dockerfile = (FOLDER / "demo" / "Dockerfile").read_text()
    copied = {
        path
        for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE)
        for path in line.split()[:-1]
    }
    for path in copied:
        assert (ROOT / path).exists(), path
    needed, seen = ["tests/stack/demo.py"], set()
    while needed:
        file = needed.pop()
        seen.add(file)
        packages = [str(p / "__init__.py") for p in Path(file).parents if p.parts]
        assert {file, *packages} <= copied, file
        needed += [f for f in _imported(ROOT / file) if f not in seen]
    assert len(seen) == 3


def _imported(file: Path) -> list[str]:
    """Files of the tests that a file imports."""
    names = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests")
        for alias in node.names
    ]
    return [f"{name.replace('.', '/')}.py" for name in names]


def _data_sources() -> dict[str, dict[str, Any]]:
    (file,) = (PROVISIONING / "datasources").iterdir()
    return {source["uid"]: source for source in yaml.safe_load(file.read_text())["datasources"]}


def test_exemplars_lead_to_the_data_source_for_traces() -> None:
    sources = _data_sources()
    (link,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "trace_id"
    assert sources[link["datasourceUid"]]["type"] == "jaeger"


def test_data_sources_are_services_of_the_file() -> None:
    services = read({})["services"]
    for source in _data_sources().values():
        service = re.fullmatch(r"http://([a-z]+):\d+", source["url"])
        assert service
        assert service[1] in services


def test_every_data_source_of_the_dashboards_is_provisioned() -> None:
    sources = _data_sources()
    types = {source["type"] for source in sources.values()}
    files = list(DASHBOARDS.glob("*.json"))
    assert len(files) >= 6
    for file in files:
        dashboard = json.loads(file.read_text())
        variables = {v["name"]: v for v in dashboard["templating"]["list"]}
        for uid in _uids(dashboard):
            name = uid.removeprefix("${").removesuffix("}")
            if name == uid:
                assert uid in {*sources, "-- Grafana --"}, (file.name, uid)
            else:
                assert variables[name]["type"] == "datasource", (file.name, uid)
        assert {variables["datasource"]["query"], variables["jaeger"]["query"]} <= types


def _uids(value: Any) -> set[str]:
    """Those of all data sources in a part of a dashboard."""
    if isinstance(value, list):
        return set().union(*map(_uids, value))
    if not isinstance(value, dict):
        return set()
    own = value.get("datasource")
    found = {own["uid"]} if isinstance(own, dict) and "uid" in own else set()
    return found.union(*map(_uids, value.values()))


def test_the_dashboards_are_where_grafana_looks_for_them(configured: dict[str, Any]) -> None:
    (file,) = (PROVISIONING / "dashboards").iterdir()
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    mounts = configured["services"]["grafana"]["volumes"]
    sources = {mount["target"]: mount["source"] for mount in mounts}
    assert Path(sources[provider["options"]["path"]]) == DASHBOARDS
    home = configured["services"]["grafana"]["environment"]
    path = Path(home["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(path.parent) == provider["options"]["path"]
    assert (DASHBOARDS / path.name).exists()
