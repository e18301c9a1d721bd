"""Deploy files: they name the image that was packaged, and what they say is what is started and asked."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from modelrel import archive, records
from modelrel.delivered import Image, Package, SmokeReport
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.steps.package import package
from modelrel.steps.smoke import smoke
from modelrel.targets import TARGETS, deployed
from modelrel.values import PackageOptions
from tests.targets import tiny

DEPLOYS = sorted(name for name, target in TARGETS.items() if target.IMAGES)
EACH = pytest.mark.parametrize("target", DEPLOYS)
WITH_WORDS = pytest.mark.parametrize("target", ["sagemaker", "vertex"])
"""The targets that start an image with a command, or with variables."""
HERE = "{}.{}".format(*sys.version_info[:2])
TAG = "modelrel-test/deployed:7"
MANIFEST = f"sha256:{'c0de' * 16}"


@cache
def context() -> Package:
    """Return the small model, packaged as a build context for this Python, and recorded as a release does it."""
    found = tiny.delivered("docker", python=HERE)
    records.write(found, found.folder / "onnx" / "docker" / "Package.json", "key")
    return found


@cache
def built() -> Package:
    """Return the small model, packaged as an image of the engine, and recorded as a release does it."""
    # a name of its own: `churn:7` is whatever was built last, by any test that runs meanwhile
    found = package(tiny.verified(tiny.place() / "deployed"), "docker", tiny.image_options(tags=(TAG,)))
    records.write(found, found.folder / "onnx" / "docker" / "Package.json", "key")
    return found


def deploy(image: Package, target: str, templates: Path | None = None, **values: str) -> Package:
    """Package the deploy files of an image, beside it."""
    return package(image.parity, target, PackageOptions(values=values, templates=templates), image=image)


def written(found: Package) -> str:
    """Return all that the files of a delivery say."""
    return "".join((found.folder / file.path).read_text() for file in found.files)


def template(folder: Path, name: str, change: Callable[[str], str]) -> Path:
    """Write a template of a user's, which is one of ours changed; return the folder to give as --templates."""
    ours = Path(__file__).parents[2] / "templates" / name
    path = folder / "own" / name
    path.parent.mkdir(parents=True)
    text = ours.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    return folder / "own"


# the image


@EACH
def test_the_files_name_the_image_just_packaged_and_say_that_it_is_not_built(target: str) -> None:
    found = deploy(context(), target)
    assert "churn:7" in written(found)
    assert any("docker build -t churn:7" in note for note in found.notes)


@EACH
def test_they_name_an_image_that_modelrel_wrote_by_the_digest_of_its_manifest(target: str, tmp_path: Path) -> None:
    image = Image(
        tags=("eu.registry.example:5000/models/churn:7",), id="sha256:1", size=1, added=1, base="b", manifest=MANIFEST
    )
    found = package(
        tiny.verified(tmp_path / "churn-7"), target, PackageOptions(), image=replace(context(), image=image)
    )
    assert f"eu.registry.example:5000/models/churn@{MANIFEST}" in written(found)


@EACH
def test_they_name_it_as_it_is_pushed(target: str) -> None:
    image = pushed().image
    assert image is not None
    assert f"registry.example/models/churn@{image.manifest}" in written(deploy(pushed(), target))


@cache
def pushed() -> Package:
    """Return an image of the small model that is to be pushed."""
    return image_of(tiny.place() / "pushed", push="registry.example/models/churn:seven")


@EACH
def test_an_image_of_the_user_s_is_named_as_it_is(target: str, tmp_path: Path) -> None:
    options = PackageOptions(image="registry.example/models/churn:7")
    found = package(tiny.verified(tmp_path / "churn-7"), target, options)
    assert json.loads((found.folder / "onnx" / target / "image.json").read_text()) == {"reference": options.image}


@EACH
def test_a_name_that_is_no_image_s_is_an_error_of_the_command(target: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is not the name of an image"):
        package(tiny.verified(tmp_path / "churn-7"), target, PackageOptions(image='Churn"\n:7'))


@EACH
def test_without_an_image_there_is_nothing_to_deploy(target: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no image to deploy") as caught:
        package(tiny.verified(tmp_path / "churn-7"), target, PackageOptions())
    assert "--image" in caught.value.hint


# the smoke test


@WITH_WORDS
def test_the_smoke_test_asks_what_the_platform_asks(target: str) -> None:
    report = smoke(deploy(context(), target))
    assert report.runner == "process"
    assert_asked(target, report)


@WITH_WORDS
def test_an_image_that_modelrel_wrote_is_started_as_the_files_say_without_an_engine_too(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    report = smoke(deploy(pushed(), target))
    assert report.runner == "process"
    assert_asked(target, report)


@pytest.mark.docker
@EACH
def test_the_image_runs_in_the_engine_as_the_files_say(target: str) -> None:
    notes: list[str] = []
    report = smoke(deploy(built(), target), notes.append)
    assert report.runner == "image"
    assert_asked(target, report)
    user, root = {
        "kserve": ("65532:0", "read-only"),
        "kubernetes": ("65532:0", "read-only"),
        "sagemaker": ("0:0", "writable"),
    }.get(target, ("12345:0", "read-only"))
    assert f"starting {TAG} ({root} root, user {user}, no capabilities)" in notes


def assert_asked(target: str, report: SmokeReport) -> None:
    rows = report.package.parity.golden
    assert rows
    said = {check.name: check.detail for check in report.checks}
    expected = {
        "kserve": ["readiness probe, GET /v2/health/ready", "GET /v2/models/churn/ready"],
        "kubernetes": [f"{kind} probe, GET /v2/health/ready" for kind in ("startup", "readiness")],
        "sagemaker": ["health probe, GET /ping", "golden rows by /invocations"],
        "vertex": ["startup probe, GET /v2/health/ready", "golden rows by /predict"],
        "azureml": ["liveness probe, GET /v2/health/live", "golden rows by /invocations"],
    }[target]
    assert set(expected) <= said.keys()


def test_a_probe_that_the_server_does_not_answer_is_refused(tmp_path: Path) -> None:
    own = template(
        tmp_path, "kubernetes/deployment.yaml.j2", lambda text: text.replace("{{ deployment.live.quoted }}", "/alive")
    )
    with pytest.raises(Refused, match=r"^the liveness probe, GET /alive, is answered with 404, not 200$"):
        smoke(deploy(context(), "kubernetes", own))


def test_a_file_that_names_another_image_is_refused(tmp_path: Path) -> None:
    own = template(
        tmp_path, "kserve/inferenceservice.yaml.j2", lambda text: text.replace("{{ service.image.quoted }}", "other:1")
    )
    with pytest.raises(Refused, match="the files name the image other:1, packaged was churn:7"):
        smoke(deploy(context(), "kserve", own))


def test_a_file_without_its_container_is_refused(tmp_path: Path) -> None:
    own = template(tmp_path, "azureml/deployment.yaml.j2", lambda text: text.replace("scoring_route", "scoring"))
    with pytest.raises(Refused, match=r"deployment\.yaml has no inference_config\.scoring_route\.path"):
        smoke(deploy(context(), "azureml", own))


def test_a_variable_that_the_server_does_not_take_is_found_by_the_smoke_test(tmp_path: Path) -> None:
    own = template(
        tmp_path,
        "kubernetes/deployment.yaml.j2",
        lambda text: text.replace('value: "{{ deployment.grace }}"', 'value: "soon"'),
    )
    with pytest.raises(Refused, match="MODELREL_GRACE must be a number"):
        smoke(deploy(context(), "kubernetes", own))


def test_a_template_that_is_no_yaml_any_more_is_refused_when_it_is_rendered(tmp_path: Path) -> None:
    own = template(tmp_path, "azureml/endpoint.yaml.j2", lambda text: text.replace("tags:", "tags: ["))
    with pytest.raises(Invalid, match=r"^endpoint\.yaml is not valid YAML: [^\n]+$"):
        deploy(context(), "azureml", own)


def test_files_about_an_image_that_was_packaged_anew_are_refused() -> None:
    found = deploy(context(), "kubernetes")
    path = found.folder / "onnx" / "kubernetes" / "image.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "package": "0" * 64}))
    files = tuple(archive.describe(found.folder / file.path, found.folder) for file in found.files)
    with pytest.raises(Refused, match="the files are about another image than the target docker holds now"):
        smoke(replace(found, files=files))


@pytest.mark.docker
def test_an_image_that_the_engine_cannot_get_is_one_sentence(tmp_path: Path) -> None:
    tiny.base_image()
    options = PackageOptions(image="localhost:9/models/churn:7")
    found = package(tiny.verified(tmp_path / "churn-7"), "kubernetes", options)
    with pytest.raises(Unavailable, match=r"^the image localhost:9/models/churn:7 is not in the engine .*[^\n]+$"):
        smoke(found)


@pytest.mark.docker
def test_an_image_of_the_user_s_is_started_by_its_name() -> None:
    assert_asked("vertex", smoke(package(built().parity, "vertex", PackageOptions(image=TAG))))


@pytest.mark.docker
def test_memory_that_is_too_little_for_the_image_is_found() -> None:
    with pytest.raises(Refused, match="ended by itself"):
        smoke(deploy(built(), "kubernetes", memory="24Mi"))


# names and settings


@pytest.mark.parametrize(
    "text",
    [
        'churn"',
        "a\nb: c",
        "{{ x }}",
        "größe 🙂",
        "x" * 300,
        "日本語",
        "-",
        "7",
        "- a",
        "\u2028\u0085\x7f\x00",
        "a'b$`c`$(d)",
    ],
)
@EACH
def test_whatever_a_model_is_called_the_files_mean_it(target: str, text: str, tmp_path: Path) -> None:
    parity = tiny.verified(tmp_path / "release")
    source = replace(parity.source, name=text, version=text)
    odd = replace(parity, converted=replace(parity.converted, source=source))
    found = package(odd, target, PackageOptions(image=tiny.DEPLOYED))
    documents = {
        path.name: deployed.documents(path)
        for path in archive.walk(found.folder / "onnx" / target)
        if path.suffix != ".sh"
    }
    first = documents[TITLES[target][0]][0]
    for key in TITLES[target][1]:
        first = first[key]
    if target == "sagemaker":  # its tags take no more than this
        assert first == re.sub(r"[^\w .:/=+@-]", "-", source.label)[:256]
    else:
        assert first == source.label[: 128 if target == "vertex" else None]


TITLES = {
    "kserve": ("inferenceservice.yaml", ["metadata", "annotations", "modelrel.io/model"]),
    "kubernetes": ("deployment.yaml", ["metadata", "annotations", "modelrel.io/model"]),
    "sagemaker": ("create-model.json", ["Tags", 0, "Value"]),
    "vertex": ("upload.json", ["model", "displayName"]),
    "azureml": ("deployment.yaml", ["description"]),
}


@pytest.mark.parametrize(
    "pair", [("größe", "grösse"), ("日本", "中国"), ("a" * 80, "a" * 81), ("7", "m-7 "), ('"', "'")]
)
def test_two_models_never_share_a_name(pair: tuple[str, str]) -> None:
    first, second = (deployed.name(text, 40) for text in pair)
    assert first != second
    for name in (first, second):
        assert len(name) <= 40
        assert name[0].isalpha()
        assert name.strip("-") == name


@pytest.mark.parametrize(
    ("target", "name", "value", "why"),
    [
        ("kubernetes", "replicas", "two", "not a whole number from 1 to 1000"),
        ("kubernetes", "replicas", "0", "not a whole number from 1 to 1000"),
        ("kubernetes", "max_replicas", "1", "less than the 2 replicas"),
        ("kubernetes", "memory", "lots", "not an amount"),
        ("kubernetes", "cpu", "-1", "not an amount"),
        ("kubernetes", "canary", "100", "not a whole percentage from 0 to 99"),
        ("kubernetes", "canary", "ten", "not a whole percentage from 0 to 99"),
        ("kubernetes", "namespace", "My Models", "not of the form it must have"),
        ("kubernetes", "host", "churn.example.org", "without a gateway"),
        ("kubernetes", "user", "root", "not a whole number from 1"),
        ("kubernetes", "name", 'x"\nkind: Secret', "not of the form it must have"),
        ("kserve", "mode", "Serverles", "which it does not know"),
        ("kserve", "replicas", "-1", "not a whole number from 0"),
        ("sagemaker", "role", "admin", "not of the form it must have"),
        ("sagemaker", "serverless", "1000", "not a size that SageMaker has"),
        ("sagemaker", "canary", "10", "without the model that has the rest"),
        ("sagemaker", "region", "Frankfurt", "not of the form it must have"),
        ("sagemaker", "startup_seconds", "30", "not a whole number from 60 to 3600"),
        ("vertex", "project", "x; rm -rf /", "not of the form it must have"),
        ("vertex", "canary", "10", "without the deployed model that has the rest"),
        ("vertex", "service_account", "me", "not of the form it must have"),
        ("azureml", "auth", "none", "which it does not know"),
        ("azureml", "timeout", "600", "not a whole number from 1 to 180"),
        ("azureml", "stable", "-", "not of the form it must have"),
    ],
)
def test_a_setting_that_is_none_is_one_sentence(target: str, name: str, value: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        TARGETS[target].options(PackageOptions(values={name: value}))
    assert f"the setting {name} of {target} is" in caught.value.message
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint.endswith(".")


@EACH
def test_every_setting_is_described_with_its_default(target: str) -> None:
    for told in TARGETS[target].VALUES.values():
        assert told.endswith(")") or told.startswith(("SageMaker model", "ID of the deployed", "deployment that"))


def test_the_grace_of_a_pod_is_longer_than_that_of_the_server() -> None:
    found = deploy(context(), "kubernetes", grace="90")
    pod = yaml.safe_load_all((found.folder / "onnx/kubernetes/deployment.yaml").read_text())
    spec = next(iter(pod))["spec"]["template"]["spec"]
    assert {"name": "MODELREL_GRACE", "value": "90"} in spec["containers"][0]["env"]
    assert spec["terminationGracePeriodSeconds"] > 95


def test_a_canary_stands_beside_what_is_there() -> None:
    documents = files(deploy(context(), "kubernetes", canary="20", replicas="8"), "deployment.yaml")
    assert [(one["kind"], one["metadata"]["name"]) for one in documents] == [
        ("Deployment", "churn-canary"),
        ("PodDisruptionBudget", "churn-canary"),
    ]
    assert documents[0]["spec"]["replicas"] == 2


def test_a_gateway_gives_a_canary_its_exact_weight() -> None:
    found = deploy(context(), "kubernetes", canary="7", gateway="public", host="churn.example.org")
    route = files(found, "service.yaml")[-1]
    assert route["kind"] == "HTTPRoute"
    assert route["spec"]["rules"] == [
        {
            "backendRefs": [
                {"name": "churn-stable", "port": 80, "weight": 93},
                {"name": "churn-canary", "port": 80, "weight": 7},
            ]
        }
    ]


def test_sagemaker_takes_no_image_for_several_platforms(tmp_path: Path) -> None:
    both = image_of(tmp_path, platform="linux/amd64,linux/arm64")
    with pytest.raises(Refused, match="the image is an index of several, which SageMaker does not take") as caught:
        deploy(both, "sagemaker")
    assert "--manifest docker" in caught.value.hint


@pytest.mark.parametrize(("manifest", "told"), [("oci", True), ("docker", False)])
def test_sagemaker_s_files_tell_when_an_image_has_no_docker_manifest(manifest: str, told: bool, tmp_path: Path) -> None:
    found = deploy(image_of(tmp_path, manifest=manifest), "sagemaker")
    assert any("package with --manifest docker" in note for note in found.notes) == told


def image_of(folder: Path, **options: str) -> Package:
    """Write an image of the small model, on a base with nothing in it that runs."""
    asked = PackageOptions(base_image=str(tiny.made_base()), python=HERE, **options)  # type: ignore[arg-type]
    found = package(tiny.verified(folder / "churn-7"), "oci", asked)
    records.write(found, found.folder / "onnx" / "oci" / "Package.json", "key")
    return found


def files(found: Package, name: str) -> list[dict]:  # type: ignore[type-arg]
    return deployed.documents(found.folder / Path(found.artifact).parent / name)
