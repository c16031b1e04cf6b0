"""The examples to deploy: valid for Kubernetes, their configurations pass, and they allow no more than a run needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config.file import load_config

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
OURS = ("framewire", "bridge")


def manifest(kind: str) -> dict[str, Any]:
    return next(each for each in MANIFESTS if each["kind"] == kind)


def test_kubernetes_accepts_every_manifest() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for each in MANIFESTS:
        validate.validate(each, "1.33", strict=True)


def test_the_configurations_pass_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "a-password-1")
    (tmp_path / "kubernetes.yaml").write_text(manifest("ConfigMap")["data"]["cameras.yaml"])
    for path in (tmp_path / "kubernetes.yaml", DEPLOY / "cameras.yaml"):
        config = load_config(str(path), {})
        assert [source.source_id for source in config.sources] == ["gate"]


def test_the_probes_ask_where_the_run_answers() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    config = yaml.safe_load(manifest("ConfigMap")["data"]["cameras.yaml"])
    port = next(each["containerPort"] for each in container["ports"] if each["name"] == "metrics")
    assert config["metrics"]["address"].endswith(f":{port}")
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert container["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("name", OURS)
def test_containers_have_a_read_only_root_and_no_capabilities(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "ports" not in service


def test_everything_that_compose_mounts_and_scrapes_is_there() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            if volume.startswith("."):
                assert (DEPLOY / volume.split(":")[0]).exists(), volume
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["job_name"] == "framewire"
    assert {target.split(":")[0] for target in scraped["static_configs"][0]["targets"]} == set(OURS)


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker compose is missing: it checks the file")
def test_docker_accepts_the_compose_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "a-password-1")
    monkeypatch.setenv("GRAFANA_PASSWORD", "a-password-2")
    words = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose: install the plugin")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_examples_for_ray_and_keda_hold_valid_pods_and_say_that_they_are_not_verified() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    texts = [(DEPLOY / name).read_text() for name in ("kuberay.yaml", "keda.yaml")]
    assert all(text.startswith("# Not verified on a cluster.") for text in texts)
    cluster, scaled = (yaml.safe_load(text) for text in texts)
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for number, group in enumerate(groups):  # the schemas of Kubernetes know pods, and not the resources around them
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod{number}"}, **group["template"]}
        validate.validate(pod, "1.33", strict=True)
    assert scaled["spec"]["minReplicaCount"] >= 1
    assert min(group["minReplicas"] for group in cluster["spec"]["workerGroupSpecs"]) >= 1
