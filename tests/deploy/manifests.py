"""The manifests: kustomize builds them, they fit the API's schemas, and they fit together and the program."""

import sys
import tempfile

import yaml

from support import DEPLOY, LARDER, ROOT, run

FOLDER = DEPLOY / "kubernetes"
# Of the API; kubernetes-validate brings their schemas.
VERSIONS = ("1.29", "1.33", "1.37")


def built():
    return run("kubectl", "kustomize", FOLDER)


def of_kind(kind):
    found = [document for document in yaml.safe_load_all(built()) if document["kind"] == kind]
    assert found, f"no {kind}"
    return found


def every_manifest_is_in_the_kustomization():
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    there = {file.name for file in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == there, set(listed) ^ there


def manifests_fit_the_schemas():
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(built())
        file.flush()
        for version in VERSIONS:
            said = run(sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, file.name)
            for kind in ("statefulset", "service", "poddisruptionbudget", "horizontalpodautoscaler", "networkpolicy"):
                assert f"passed for resource {kind}/larder" in said, f"{kind} was not checked: {said}"


def a_wrong_manifest_is_found():
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(built().replace("failureThreshold: 1\n", "failureTreshold: 1\n"))
        file.flush()
        try:
            run(sys.executable, "-m", "kubernetes_validate", "--strict", "-k", VERSIONS[-1], file.name)
        except AssertionError:
            return
        raise AssertionError("a misspelled field passed")


def parts_fit_together():
    pod = of_kind("StatefulSet")[0]["spec"]["template"]
    labels, container = pod["metadata"]["labels"], pod["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for service in of_kind("Service"):
        assert service["spec"]["selector"].items() <= labels.items(), service["metadata"]["name"]
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"])
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = of_kind(kind)[0]["spec"]
        assert (spec.get("selector") or spec["podSelector"])["matchLabels"].items() <= labels.items(), kind
    metric = of_kind("HorizontalPodAutoscaler")[0]["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert metric in (DEPLOY / "prometheus/adapter.yml").read_text() and metric == "larder_saturation_ratio"
    config = (FOLDER / "larder.toml").read_text()
    assert all(f'"0.0.0.0:{port}"' in config for port in ports.values()), ports
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "metrics"
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["/usr/bin/larder", "drain"]
    names = {m["name"] for m in container["volumeMounts"]}
    claims = {c["metadata"]["name"] for c in of_kind("StatefulSet")[0]["spec"]["volumeClaimTemplates"]}
    assert names == claims | {v["name"] for v in pod["spec"]["volumes"]}
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert grace > 10 + 30, "shorter than drain_delay and drain_timeout"


def the_configurations_are_valid():
    """Of the image, of the manifests, and the example of the repository."""
    for file in (FOLDER / "larder.toml", DEPLOY / "docker/larder.toml", ROOT / "config/larder.toml"):
        run(LARDER, "check", file)


CHECKS = [
    every_manifest_is_in_the_kustomization,
    manifests_fit_the_schemas,
    a_wrong_manifest_is_found,
    parts_fit_together,
    the_configurations_are_valid,
]
