# SPDX-License-Identifier: Apache-2.0
"""What is for Kubernetes, as Kustomize makes it, by the published schemas and by the Collector itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import opentelemetry.instrumentation.auto_instrumentation as injected
import pytest
import yaml  # type: ignore[import-untyped]

from agent_kernel_otel import semconv
from tests.collector.build import collector, load_balancer
from tests.distro.zero_code import LAUNCHER, environment
from tests.stack.compose import FOLDER, read
from tests.stack.conftest import tool
from tests.stack.kustomize import kustomize
from tests.stack.programs import Program
from tests.support.otlp_sink import OtlpSink
from tests.support.ports import HOST, free_port

CONFIGS = FOLDER.parent
APP = CONFIGS / "kubernetes" / "app"
TOUR = FOLDER.parents[1] / "examples" / "tour.py"
COLLECTORS = {"agent": "DaemonSet", "loadbalancer": "Deployment", "gateway": "StatefulSet"}
OF_POD = {
    "metadata.name": "gateway-0",
    "metadata.namespace": "shop",
    "spec.nodeName": "node-1",
}
ENDPOINT = "http://agent.agent-kernel-otel:4317"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("kubernetes") / "manifests.yaml"
    with made.open("w") as file:
        subprocess.run([str(kustomize()), "build", str(CONFIGS)], stdout=file, check=True)
    return made


@pytest.fixture(scope="module")
def objects(built: Path) -> dict[tuple[str, str], Any]:
    found = yaml.safe_load_all(built.read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def _validated(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("kubernetes-validate"), "--strict", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )


def _pod(objects: dict[tuple[str, str], Any], name: str) -> Any:
    return objects[COLLECTORS[name], name]["spec"]["template"]


def _container(pod: Any) -> Any:
    (container,) = pod["spec"]["containers"]
    return container


def _environment(container: Any) -> dict[str, str]:
    """As the kubelet makes it, without those that come from secrets."""
    values: dict[str, str] = {}
    for entry in container["env"]:
        source = entry.get("valueFrom", {})
        if "fieldRef" in source:
            values[entry["name"]] = OF_POD[source["fieldRef"]["fieldPath"]]
        elif not source:
            values[entry["name"]] = re.sub(
                r"\$\((\w+)\)", lambda found: values[found[1]], entry["value"]
            )
    return values


def _configured(objects: dict[tuple[str, str], Any], name: str, folder: Path) -> list[str]:
    """The arguments of a Collector, its files of configuration written down."""
    pod = _pod(objects, name)
    (volume,) = (v for v in pod["spec"]["volumes"] if v["name"] == "config")
    files: dict[str, str] = objects["ConfigMap", volume["configMap"]["name"]]["data"]
    for file, text in files.items():
        (folder / file).write_text(text)
    arguments = [arg.replace("/etc/otelcol", str(folder)) for arg in _container(pod)["args"]]
    assert len(arguments) == len(files)
    return arguments


def test_every_object_is_as_its_schema_says(built: Path) -> None:
    done = _validated(built, APP / "deployment.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed ") == 13


def test_the_schemas_reject_what_they_do_not_know(built: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(built.read_text().replace("serviceName:", "servicename:"))
    assert _validated(wrong).returncode != 0


@pytest.mark.parametrize("name", COLLECTORS)
def test_the_collector_takes_its_files(
    name: str, objects: dict[tuple[str, str], Any], tmp_path: Path
) -> None:
    binary = load_balancer() if name == "loadbalancer" else collector()
    variables = _environment(_container(_pod(objects, name)))
    arguments = _configured(objects, name, tmp_path)
    unused = [v for v in variables if v != "GOMEMLIMIT" and v not in _text(tmp_path)]
    assert unused == []
    # Checked when it is validated, and not there on this machine.
    variables |= {v: str(tmp_path) for v in variables if v.endswith("_STORAGE")}
    done = subprocess.run(
        [str(binary), "validate", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _text(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.iterdir())


def test_a_gateway_runs_with_its_files_and_says_which_pod_it_is(
    objects: dict[tuple[str, str], Any], tmp_path: Path
) -> None:
    configs, data = tmp_path / "configs", tmp_path / "data"
    configs.mkdir()
    arguments = _configured(objects, "gateway", configs)
    container = _container(_pod(objects, "gateway"))
    ports = {str(port["containerPort"]): str(free_port()) for port in container["ports"]}
    variables = {
        name: re.sub(r"^0\.0\.0\.0:(\d+)$", lambda found: f"{HOST}:{ports[found[1]]}", value)
        for name, value in _environment(container).items()
    }
    variables |= {
        name: value.replace("/var/lib/otelcol", str(data)) for name, value in variables.items()
    }
    variables |= {"GATEWAY_METRICS_HOST": HOST, "GATEWAY_METRICS_PORT": ports["8888"]}
    health = f"http://{HOST}:{ports['13134']}{container['readinessProbe']['httpGet']['path']}"
    with Program(
        "gateway", [str(collector()), *arguments], tmp_path, variables=variables, ready=health
    ) as running:
        assert '"service.instance.id": "gateway-0"' in running.log()
        assert (data / "queues").is_dir()


@pytest.mark.parametrize("name", COLLECTORS)
def test_ports_probes_and_selectors_fit(name: str, objects: dict[tuple[str, str], Any]) -> None:
    pod, service = _pod(objects, name), objects["Service", name]["spec"]
    container = _container(pod)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert {port["targetPort"] for port in service["ports"]} <= set(ports)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    listening = {
        int(value.rpartition(":")[2])
        for value in _environment(container).values()
        if value.startswith("0.0.0.0:")
    }
    assert set(ports.values()) == listening | {8888}


@pytest.mark.parametrize("name", COLLECTORS)
def test_memory_is_limited_below_what_ends_the_process(
    name: str, objects: dict[tuple[str, str], Any]
) -> None:
    container = _container(_pod(objects, name))
    limit = container["resources"]["limits"]["memory"]
    of_pod = int(limit[:-2]) * {"Mi": 1, "Gi": 1024}[limit[-2:]]
    variables = _environment(container)
    (of_limiter,) = (int(v) for k, v in variables.items() if k.endswith("_MEMORY_MIB"))
    assert 0.7 * of_pod < of_limiter < 0.85 * of_pod
    assert variables["GOMEMLIMIT"] == f"{of_limiter}MiB"


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_collector_is_no_root_and_writes_into_its_volumes_only(
    name: str, objects: dict[tuple[str, str], Any]
) -> None:
    pod = _pod(objects, name)["spec"]
    container = _container({"spec": pod})
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
    paths = [v for k, v in _environment(container).items() if k.endswith(("_STORAGE", "_FILE"))]
    assert all(any(path.startswith(mount) for mount in written) for path in paths)
    assert bool(paths) == (name != "loadbalancer")


def test_gateways_have_names_that_stay_and_the_load_balancers_know_them(
    objects: dict[tuple[str, str], Any],
) -> None:
    gateways = objects["StatefulSet", "gateway"]["spec"]
    assert objects["Service", gateways["serviceName"]]["spec"]["clusterIP"] == "None"
    known = _environment(_container(_pod(objects, "loadbalancer")))["GATEWAYS"]
    assert yaml.safe_load(known) == [
        f"gateway-{number}.{gateways['serviceName']}:4317" for number in range(gateways["replicas"])
    ]


def test_a_gateway_has_the_time_to_end_in_good_order(objects: dict[tuple[str, str], Any]) -> None:
    pod = _pod(objects, "gateway")
    longest = _environment(_container(pod))["LONGEST_CALL"]
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 2 * int(longest.removesuffix("s"))
    for name in ("gateway", "loadbalancer"):
        budget = objects["PodDisruptionBudget", name]["spec"]
        assert budget["maxUnavailable"] == 1
        labels = _pod(objects, name)["metadata"]["labels"]
        assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_images_are_those_of_the_compose_file(objects: dict[tuple[str, str], Any]) -> None:
    of_compose = {service["image"] for service in read({})["services"].values()}
    for name in COLLECTORS:
        spec = _pod(objects, name)["spec"]
        containers = [*spec["containers"], *spec.get("initContainers", ())]
        assert {container["image"] for container in containers} <= of_compose


def test_an_app_in_a_plain_deployment_tells_which_pod_it_is() -> None:
    (container,) = yaml.safe_load((APP / "deployment.yaml").read_text())["spec"]["template"][
        "spec"
    ]["containers"]
    command = [LAUNCHER, sys.executable, str(TOUR)]
    assert [Path(word).name for word in command[:1]] == container["command"][:1]
    variables = _environment(container)
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == ENDPOINT
    spans = _spans_of(command, variables)
    assert {span.resource["service.instance.id"] for span in spans} == {"gateway-0"}
    assert {span.resource["service.name"] for span in spans} == {"support-desk"}


def test_an_app_into_which_the_operator_has_put_it_is_traced() -> None:
    # As the operator documents it: its hook first on the path, and the image's folder after that.
    spec = yaml.safe_load((APP / "instrumentation.yaml").read_text())["spec"]
    assert spec["exporter"]["endpoint"] == ENDPOINT
    hook = str(Path(next(iter(injected.__path__))))
    variables = {
        "PYTHONPATH": hook,
        "OTEL_SERVICE_NAME": "support-desk",
        "OTEL_PROPAGATORS": ",".join(spec["propagators"]),
        "OTEL_TRACES_SAMPLER": spec["sampler"]["type"],
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        **{entry["name"]: entry["value"] for entry in spec["python"]["env"]},
    }
    assert _spans_of([sys.executable, str(TOUR)], variables)


def _spans_of(command: list[str], variables: dict[str, str]) -> list[Any]:
    with OtlpSink() as sink:
        to_sink = {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint}
        subprocess.run(command, env=environment(**to_sink), check=True, capture_output=True)
        spans = [span for span in sink.spans() if span.name == semconv.INVOKE]
    assert spans
    return spans
