# SPDX-License-Identifier: Apache-2.0
"""Every backend's file is valid with the gateway's, alone and with any other, and holds no secret."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
import yaml  # type: ignore[import-untyped]

from tests.backends.running import CONFIGS
from tests.collector.build import collector

NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "jaeger": (),
    "datadog": (),
    "datadog-apm": ("datadog",),
    "grafana-cloud": (),
    "lgtm": (),
    "kelpie": (),
    "remote-write": (),
}
"""The backends' files, and those that each cannot do without."""
SECRETS: Final = {"DD_API_KEY": "0" * 32, "GRAFANA_CLOUD_AUTH": "MTp0"}
"""The variables that have no default."""


def validate(folder: Path, *names: str, variables: dict[str, str] | None = None) -> str:
    """What is wrong with some files together."""
    files = [f"--config={CONFIGS / name}.yaml" for name in ("gateway", *names)]
    done = subprocess.run(
        # Datadog's exporter asks the cloud where it runs, even then.
        ["unshare", "--map-root-user", "--net", "--", str(collector()), "validate", *files],
        env={
            "PATH": os.environ["PATH"],
            "GATEWAY_STORAGE": str(folder),
            "DECISIONS_FILE": str(folder / "decisions.jsonl"),
            **(SECRETS if variables is None else variables),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


def components(name: str) -> list[str]:
    """What a file defines, each with its section; lists, which would replace others, must be none."""
    parsed = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    service = parsed.pop("service")
    assert set(service) == {"pipelines"} or name == "gateway"
    sections = {**parsed, "pipelines": service["pipelines"]}
    return [f"{section} {each}" for section, content in sections.items() for each in content]


def test_every_file_of_a_backend_is_known_here() -> None:
    added = {path.stem for path in CONFIGS.glob("*.yaml") if "[forward/" in path.read_text()}
    assert added - {"gateway"} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_a_file_is_valid_with_the_gateways_alone(name: str, tmp_path: Path) -> None:
    assert validate(tmp_path, *NEEDS[name], name) == ""


def test_all_files_together_are_valid(tmp_path: Path) -> None:
    assert validate(tmp_path, *NEEDS) == ""


def test_no_file_touches_what_another_has() -> None:
    defined = [component for name in ("gateway", *NEEDS) for component in components(name)]
    assert [name for name, times in Counter(defined).items() if times > 1] == []


@pytest.mark.parametrize("name", NEEDS)
def test_only_secrets_have_no_default(name: str, tmp_path: Path) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text()
    asked = set(re.findall(r"\$\{env:(\w+)\}", text))
    assert asked <= set(SECRETS)
    if "DD_API_KEY" in asked:
        assert "api.key is not set" in validate(tmp_path, name, variables={})


@pytest.mark.parametrize("name", NEEDS)
def test_a_file_says_what_it_was_proven_on(name: str) -> None:
    comments = (CONFIGS / f"{name}.yaml").read_text().partition("\n\n")[0]
    assert "Proven " in comments
    assert "0.155.0" in comments
    assert f"--config {name}.yaml" in comments
