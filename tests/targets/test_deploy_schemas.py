"""Deploy files, read by the platforms' own schemas and programs; the cluster's security rules, word for word."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
import yamllint.config
import yamllint.linter

from modelrel.steps.package import package
from modelrel.targets import deployed
from modelrel.targets.process import free_port
from modelrel.values import PackageOptions
from tests.targets import judges, tiny

VERSIONS = ("1.27", "1.31", "1.34", "1.37")
IMAGE = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/models/churn@sha256:{'5eed' * 16}"
CASES: dict[str, list[dict[str, str]]] = {
    "kubernetes": [
        {},
        {"namespace": "models", "max_replicas": "9", "pull_secret": "registry", "service_account": "serving"},
        {"canary": "10", "gateway": "public", "host": "*.example.org", "user": "none"},
    ],
    "kserve": [
        {},
        {"canary": "10", "mode": "Knative", "replicas": "0", "namespace": "models", "timeout": "20"},
        {"mode": "Standard", "pull_secret": "registry", "service_account": "serving", "memory": "2Gi", "cpu": "2"},
    ],
    "sagemaker": [
        {},
        {"canary": "10", "stable": "churn-6-0a1b2c3d", "role": "arn:aws:iam::123456789012:role/service-role/sm"},
        {"serverless": "2048", "concurrency": "5", "region": "eu-west-1"},
    ],
    "vertex": [
        {},
        {"project": "churn-prod", "canary": "10", "stable": "4811238765432109876", "max_replicas": "3"},
        {"service_account": "serving@churn-prod.iam.gserviceaccount.com", "region": "europe-west4"},
    ],
    "azureml": [
        {},
        {"canary": "10", "stable": "version-6", "resource_group": "ml-prod", "workspace": "churn"},
        {"auth": "aad_token", "instances": "3", "timeout": "20"},
    ],
}
ODD = 'größe 🙂 "a\nb: {{ c }}'


def cases(target: str) -> Any:
    return pytest.mark.parametrize("case", [*range(len(CASES[target])), "odd"])


@cache
def folder(target: str, case: int | str) -> Path:
    """Return a folder of deploy files: with settings, or for a model whose name nothing likes."""
    name = ODD if case == "odd" else "churn"
    values = {} if case == "odd" else CASES[target][int(case)]
    parity = tiny.verified(tiny.place() / f"{target}-{case}", name=name, version=name if case == "odd" else "7")
    found = package(parity, target, PackageOptions(image=IMAGE, values=values))
    return (found.folder / found.artifact).parent


def documents(target: str, case: int | str, name: str) -> list[Any]:
    return deployed.documents(folder(target, case) / name)


# Kubernetes


@pytest.mark.parametrize("version", VERSIONS)
@cases("kubernetes")
def test_every_object_is_one_of_this_kubernetes(version: str, case: int | str) -> None:
    asked = [*documents("kubernetes", case, "deployment.yaml"), *documents("kubernetes", case, "service.yaml")]
    asked = [one for one in asked if one["kind"] != "HTTPRoute"]  # of the Gateway API, which has schemas of its own
    assert len(asked) >= 3
    for one in asked:
        kubernetes_validate.validate(one, version, strict=True)


@cases("kserve")
def test_the_pod_of_a_predictor_is_one_of_kubernetes(case: int | str) -> None:
    pod = predictor(case)
    for field in ("minReplicas", "maxReplicas", "timeout", "canaryTrafficPercent"):
        pod.pop(field, None)
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": pod}
    kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def predictor(case: int | str) -> dict[str, Any]:
    found: dict[str, Any] = documents("kserve", case, "inferenceservice.yaml")[0]["spec"]["predictor"]
    return dict(found)


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """Yield what the restricted profile of the Pod Security Standards forbids in a pod."""
    forbidden = {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
    yield from forbidden
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= allowed:
            yield f"volume {volume['name']}"
    whole = pod.get("securityContext", {})
    for one in [*pod["containers"], *pod.get("initContainers", [])]:
        own = one.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            yield "privilege escalation"
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield "capabilities"
        if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
            yield "running as root"
        if 0 in (own.get("runAsUser"), whole.get("runAsUser")):
            yield "user 0"
        profile = own.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield "seccomp"
        if any("hostPort" in port for port in one.get("ports", [])):
            yield "host ports"
        if any(
            "host" in one.get(f"{kind}Probe", {}).get("httpGet", {}) for kind in ("startup", "readiness", "liveness")
        ):
            yield "host of a probe"


@cases("kubernetes")
def test_the_pods_are_what_the_restricted_standard_allows(case: int | str) -> None:
    pod = documents("kubernetes", case, "deployment.yaml")[0]["spec"]["template"]["spec"]
    assert list(violations(pod)) == []
    assert list(
        violations({**pod, "securityContext": {}, "containers": [{**pod["containers"][0], "securityContext": {}}]})
    )


@cases("kserve")
def test_a_predictor_is_what_the_restricted_standard_allows(case: int | str) -> None:
    assert list(violations(predictor(case))) == []


@cases("kserve")
def test_a_predictor_has_only_what_knative_lets_through(case: int | str) -> None:
    # knative.dev/serving, pkg/apis/serving/fieldmask.go, with its default features
    pod = {
        "serviceAccountName", "containers", "volumes", "imagePullSecrets", "enableServiceLinks",
        "automountServiceAccountToken", "minReplicas", "maxReplicas", "timeout", "canaryTrafficPercent",
    }  # fmt: skip
    container = {
        "name", "args", "command", "env", "workingDir", "envFrom", "image", "imagePullPolicy", "livenessProbe", "ports",
        "readinessProbe", "resources", "securityContext", "volumeMounts",
    }  # fmt: skip
    found = predictor(case)
    assert found.keys() <= pod
    assert found["containers"][0].keys() <= container
    assert len(found["containers"][0]["ports"]) == 1


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("kubernetes", "deployment.yaml"),
        ("kubernetes", "service.yaml"),
        ("kubernetes", "kustomization.yaml"),
        ("kserve", "inferenceservice.yaml"),
        ("azureml", "endpoint.yaml"),
        ("azureml", "deployment.yaml"),
    ],
)
@pytest.mark.parametrize("case", [0, 1, 2, "odd"])
def test_yamllint_has_nothing_to_say(target: str, name: str, case: int | str) -> None:
    rules = yamllint.config.YamlLintConfig(
        "{extends: default, rules: {line-length: {max: 1000}, document-start: disable}}"
    )
    text = (folder(target, case) / name).read_text()
    assert [str(problem) for problem in yamllint.linter.run(text, rules)] == []


@cases("kubernetes")
def test_selectors_find_the_pods_and_nothing_changes_them(case: int | str) -> None:
    both = documents("kubernetes", case, "deployment.yaml") + documents("kubernetes", case, "service.yaml")
    labels = both[0]["spec"]["template"]["metadata"]["labels"]
    assert both[0]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert "app.kubernetes.io/version" not in both[0]["spec"]["selector"]["matchLabels"]
    for one in both:
        if one["kind"] == "Service":
            assert one["spec"]["selector"].items() <= labels.items()
            assert len(one["metadata"]["name"]) <= 63
        for value in one["metadata"]["labels"].values():
            assert re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value)


def test_the_kustomization_names_every_file() -> None:
    found = folder("kubernetes", 0)
    listed = yaml.safe_load((found / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in found.glob("*.yaml") if path.name != "kustomization.yaml")


# KServe


def test_kserve_s_sdk_reads_every_field_and_finds_another(tmp_path: Path) -> None:
    wrong = spoiled("kserve", "inferenceservice.yaml", tmp_path, lambda text: text.replace("minReplicas", "minimum"))
    *read, bad = judges.kserve(*every("kserve"), wrong)
    assert [one.get("error") for one in read] == [None] * 4
    assert "minimum" in bad["error"]


def every(target: str) -> list[Path]:
    return [folder(target, case) for case in [*range(len(CASES[target])), "odd"]]


def spoiled(target: str, name: str, into: Path, change: Callable[[str], str]) -> Path:
    """Return a copy of a folder in which one file was changed."""
    found = into / target
    shutil.copytree(folder(target, 0), found)
    text = (found / name).read_text()
    (found / name).write_text(change(text))
    assert (found / name).read_text() != text
    return found


# SageMaker


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("create-model.json", "CreateModel"),
        ("create-endpoint-config.json", "CreateEndpointConfig"),
        ("create-endpoint.json", "CreateEndpoint"),
    ],
)
@cases("sagemaker")
def test_aws_s_model_of_the_service_takes_every_request(name: str, operation: str, case: int | str) -> None:
    assert judges.sagemaker(operation, documents("sagemaker", case, name)[0]) == []


def test_the_judge_of_sagemaker_s_requests_finds_what_is_wrong() -> None:
    good = documents("sagemaker", 0, "create-model.json")[0]
    for wrong in ({"ModelName": "a b"}, {"ModelNam": "a"}, {"EnableNetworkIsolation": "yes"}):
        assert judges.sagemaker("CreateModel", {**good, **wrong})


def test_a_canary_has_its_weight_beside_the_model_that_is_there() -> None:
    variants = documents("sagemaker", 1, "create-endpoint-config.json")[0]["ProductionVariants"]
    assert [(one["VariantName"], one["InitialVariantWeight"]) for one in variants] == [("stable", 90), ("canary", 10)]
    assert variants[0]["ModelName"] == "churn-6-0a1b2c3d"


def test_its_commands_make_an_endpoint_of_a_sagemaker_that_runs_here() -> None:
    programs = judges.aws_commands()
    with sagemaker_here(programs) as url:
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}", "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true",
            "ROLE_ARN": "arn:aws:iam::123456789012:role/sagemaker",
        }  # fmt: skip
        run(folder("sagemaker", 0) / "deploy.sh", environment)
        words = ["aws", "sagemaker", "describe-endpoint", "--endpoint-name", "churn"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    config = documents("sagemaker", 0, "create-endpoint-config.json")[0]["EndpointConfigName"]
    assert json.loads(done.stdout)["EndpointConfigName"] == config


@contextmanager
def sagemaker_here(programs: Path) -> Iterator[str]:
    port = free_port()
    words = [programs / "python", programs / "moto_server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            for line in server.stderr:  # it says so once it listens
                if "Running on" in line:
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def run(script: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Vertex AI


def test_vertex_s_own_messages_read_every_request_and_find_another_field(tmp_path: Path) -> None:
    wrong = spoiled("vertex", "upload.json", tmp_path, lambda text: text.replace("healthRoute", "health"))
    *read, bad = judges.vertex(*every("vertex"), wrong)
    assert "health" in bad["error"]
    for case, said in zip([*range(len(CASES["vertex"])), "odd"], read, strict=True):
        given = documents("vertex", case, "deploy.json")[0]
        assert said["deploy.json"]["trafficSplit"] == given["trafficSplit"]
        assert sum(given["trafficSplit"].values()) == 100
        assert given["deployedModel"]["model"].endswith(f"/models/{said['upload.json']['modelId']}")
        container = said["upload.json"]["model"]["containerSpec"]
        assert container["imageUri"] == IMAGE
        assert container["startupProbe"]["timeoutSeconds"] <= container["startupProbe"]["periodSeconds"]


@cases("vertex")
def test_what_vertex_calls_a_model_is_of_the_letters_it_takes(case: int | str) -> None:
    given = documents("vertex", case, "upload.json")[0]
    for key, value in given["model"]["labels"].items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key)
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value)
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", given["modelId"])


class Vertex(http.server.BaseHTTPRequestHandler):
    """As much of Vertex AI's API as a deployment uses: long-running operations that end at the second look."""

    asked: list[tuple[str, str, Any]]
    looks: dict[str, int]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(("GET", self.path, None))
        if "/operations/" in self.path:
            self.looks[self.path] = self.looks.get(self.path, 0) + 1
            return self.say(200, {"name": self.path[4:], **({"done": True} if self.looks[self.path] > 1 else {})})
        return self.say(404, {"error": {"code": 404}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(("POST", self.path, body))
        if self.headers["Authorization"] != "Bearer a-token":
            return self.say(401, {"error": {"code": 401}})
        return self.say(200, {"name": f"projects/1/locations/l/operations/{len(self.asked)}"})

    def say(self, status: int, content: Any) -> None:
        body = json.dumps(content, indent=2).encode()  # as the API does
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_vertex_s_commands_upload_make_an_endpoint_and_deploy(tmp_path: Path) -> None:
    asked: list[tuple[str, str, Any]] = []
    handler = type("Bound", (Vertex,), {"asked": asked, "looks": {}})
    program(tmp_path / "gcloud", "echo a-token")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_address[1]}"
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "PROJECT": "p-1", "VERTEX_HOST": host, "VERTEX_PAUSE": "0",
        }  # fmt: skip
        run(folder("vertex", 0) / "deploy.sh", environment)
        server.shutdown()
    at = "/v1/projects/p-1/locations/us-central1"
    posted = {path: body for method, path, body in asked if method == "POST"}
    model = posted[f"{at}/models:upload"]["modelId"]
    assert list(posted) == [
        f"{at}/models:upload",
        f"{at}/endpoints?endpointId=churn",
        f"{at}/endpoints/churn:deployModel",
    ]
    deploying = posted[f"{at}/endpoints/churn:deployModel"]["deployedModel"]
    assert deploying["model"] == f"projects/p-1/locations/us-central1/models/{model}"
    assert len([path for method, path, _ in asked if "/operations/" in path]) == 6


def test_vertex_s_commands_stop_where_the_api_refuses(tmp_path: Path) -> None:
    asked: list[tuple[str, str, Any]] = []
    handler = type("Bound", (Vertex,), {"asked": asked, "looks": {}})
    program(tmp_path / "gcloud", "echo another-token")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{server.server_address[1]}"
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROJECT": "p-1", "VERTEX_HOST": host}
        done = subprocess.run(
            ["sh", folder("vertex", 0) / "deploy.sh"], env=environment, capture_output=True, check=False
        )
        server.shutdown()
    assert done.returncode != 0
    assert [path.rpartition("/")[2] for _, path, _ in asked] == ["models:upload"]


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# Azure ML


def test_azure_s_own_schemas_read_every_field_and_find_another(tmp_path: Path) -> None:
    wrong = spoiled("azureml", "deployment.yaml", tmp_path, lambda text: text.replace("instance_count", "machines"))
    *read, bad = judges.azure(*every("azureml"), wrong)
    assert "machines" in bad["error"]
    for case, said in zip([*range(len(CASES["azureml"])), "odd"], read, strict=True):
        given = documents("azureml", case, "deployment.yaml")[0]
        made = said["deployment"]
        assert made["environment"]["inference_config"] == given["environment"]["inference_config"]
        assert made["environment"]["image"] == IMAGE
        for key in ("name", "endpoint_name", "instance_type", "environment_variables"):
            assert made[key] == given[key]
        assert said["endpoint"]["name"] == given["endpoint_name"]


@cases("azureml")
def test_what_azure_calls_a_deployment_is_of_the_letters_it_takes(case: int | str) -> None:
    given = documents("azureml", case, "deployment.yaml")[0]
    for name in (given["name"], given["endpoint_name"]):
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]", name)


@pytest.mark.parametrize("there", [True, False])
def test_azure_s_commands_make_what_is_not_there_and_turn_the_traffic(there: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program(tmp_path / "az", f'echo "$@" >>{log}\ncase "$3" in show) exit {0 if there else 3} ;; esac')
    run(folder("azureml", 1) / "deploy.sh", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    where = "--resource-group ml-prod --workspace-name churn"
    made = [] if there else [f"ml online-endpoint create --file endpoint.yaml {where}"]
    assert log.read_text().splitlines() == [
        f"ml online-endpoint show --name churn {where}",
        *made,
        f"ml online-deployment create --file deployment.yaml {where}",
        f"ml online-endpoint update --name churn --traffic version-6=90 version-7=10 {where}",
    ]


@pytest.mark.parametrize("target", ["sagemaker", "vertex", "azureml"])
@pytest.mark.parametrize("case", [0, 1, 2, "odd"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_shells_read_the_commands(target: str, case: int | str, shell: str) -> None:
    done = subprocess.run(
        [shell, "-n", folder(target, case) / "deploy.sh"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
