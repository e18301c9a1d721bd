"""An image written without an engine: taken by the tools of others, whole, and right for each processor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from modelrel import archive, wheels
from modelrel.delivered import Package
from modelrel.errors import Invalid, ModelrelError, Refused, Unavailable
from modelrel.steps.package import package, stands
from modelrel.steps.smoke import smoke
from modelrel.targets import images
from modelrel.targets.loaded import examined, opened
from modelrel.values import PackageOptions
from tests import registries
from tests.oci import made
from tests.targets import tiny

BOTH = ",".join(made.PLATFORMS)
TRANSPORTS = pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])


@cache
def two() -> Package:
    """Return the small model for two processors, on a base with nothing that runs."""
    options = PackageOptions(base_image=str(tiny.made_base()), platform=BOTH, python="3.13")
    return package(tiny.verified(tiny.place() / "oci-two"), "oci", options)


@cache
def real() -> Package:
    """Return the small model on the base image of the engine tests."""
    options = tiny.image_options(base_image=str(tiny.saved_base()))
    return package(tiny.verified(tiny.place() / "oci-real"), "oci", options)


def image_of(found: Package) -> Path:
    return found.folder / found.artifact


def written(folder: Path, **changes: Any) -> Package:
    """Return the small model, packaged anew for one processor."""
    return package(tiny.verified(folder / "churn-7"), "oci", replace(tiny.plain("oci"), **changes))


def skopeo(*words: str) -> str:
    done = subprocess.run(
        [tiny.tool("skopeo"), "--override-os", "linux", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def reference(found: Package, transport: str, work: Path) -> str:
    """Return what skopeo calls the image; for `oci:` its tar is unpacked first."""
    if transport != "oci":
        return f"{transport}:{image_of(found)}"
    with tarfile.open(image_of(found)) as tar:
        tar.extractall(work / "layout", filter="data")
    return f"oci:{work / 'layout'}"


def document(found: Package, digest: str) -> Any:
    with tarfile.open(image_of(found)) as tar:
        content = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
        assert content is not None
        return json.loads(content.read())


def manifest(found: Package) -> Any:
    assert found.image is not None
    return document(found, found.image.manifest)


def config(found: Package) -> Any:
    return document(found, manifest(found)["config"]["digest"])


@TRANSPORTS
def test_skopeo_reads_it_whichever_way(transport: str, tmp_path: Path) -> None:
    found = json.loads(skopeo("inspect", reference(tiny.delivered("oci"), transport, tmp_path)))
    assert found["Architecture"] == "amd64"
    assert found["Labels"]["org.opencontainers.image.title"] == "churn"
    assert len(found["Layers"]) == 5


@TRANSPORTS
def test_skopeo_copies_it_whichever_way(transport: str, tmp_path: Path) -> None:
    # copying checks each digest, and that each layer is what the config says
    skopeo("copy", reference(tiny.delivered("oci"), transport, tmp_path), f"docker-archive:{tmp_path}/copy.tar:a:1")
    skopeo("copy", f"docker-archive:{tmp_path}/copy.tar:a:1", f"dir:{tmp_path}/dir")


def test_the_digest_that_skopeo_sees_is_the_recorded_one() -> None:
    found = tiny.delivered("oci")
    assert found.image is not None
    seen = json.loads(skopeo("inspect", f"oci-archive:{image_of(found)}"))
    assert seen["Digest"] == found.image.manifest


def test_docker_manifests_are_taken_too(tmp_path: Path) -> None:
    found = written(tmp_path, manifest="docker")
    kinds = {manifest(found)["mediaType"], *(layer["mediaType"] for layer in manifest(found)["layers"])}
    assert kinds == {
        "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"
    }  # fmt: skip
    for transport in ("oci", "oci-archive", "docker-archive"):
        skopeo("copy", reference(found, transport, tmp_path / transport), f"dir:{tmp_path}/{transport}-copy")


def test_an_index_lists_an_image_for_each_processor(tmp_path: Path) -> None:
    listed = json.loads(skopeo("inspect", "--raw", f"oci-archive:{image_of(two())}"))["manifests"]
    assert [one["platform"] for one in listed] == [
        {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}
    ]  # fmt: skip
    skopeo("copy", "--all", f"oci-archive:{image_of(two())}", f"oci:{tmp_path}/copy")
    for machine in ("amd64", "arm64"):
        seen = skopeo("--override-arch", machine, "inspect", f"oci:{tmp_path}/copy")
        assert json.loads(seen)["Architecture"] == machine


def test_docker_lists_are_for_two_processors_too(tmp_path: Path) -> None:
    options = PackageOptions(base_image=str(tiny.made_base()), platform=BOTH, python="3.13", manifest="docker")
    found = package(tiny.verified(tmp_path / "churn-7"), "oci", options)
    assert manifest(found)["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    skopeo("copy", "--all", f"oci-archive:{image_of(found)}", f"dir:{tmp_path}/copy")


@pytest.mark.parametrize("platform", made.PLATFORMS)
def test_every_library_inside_is_for_its_processor(platform: str, tmp_path: Path) -> None:
    heads = [path.read_bytes()[:20] for path in archive.walk(tiny.unpacked(image_of(two()), tmp_path, platform))]
    libraries = [head for head in heads if head[:4] == b"\x7fELF"]
    assert len(libraries) > 10
    assert {int.from_bytes(head[18:20], "little") for head in libraries} == {made.MACHINES[platform]}


def test_docker_load_gets_the_first_processor_of_several() -> None:
    with tarfile.open(image_of(two())) as tar:
        loads = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    first = document(two(), manifest(two())["manifests"][0]["digest"])
    assert loads[0]["Config"] == f"blobs/{first['config']['digest'].replace(':', '/')}"
    assert loads[0]["RepoTags"] == ["churn:7"]


def test_server_and_model_are_the_same_layers_for_both_processors() -> None:
    assert two().image is not None
    names = [layer.name for layer in two().image.layers]  # type: ignore[union-attr]
    assert names == ["wheels linux/amd64", "serving", "model", "metadata linux/amd64", "wheels linux/arm64",
                     "metadata linux/arm64"]  # fmt: skip


def test_the_layers_of_the_base_come_first_as_they_are() -> None:
    base = json.loads((tiny.made_base() / "index.json").read_text())["manifests"][0]["digest"]

    def blob(digest: str) -> Any:
        return json.loads((tiny.made_base() / "blobs" / digest.replace(":", "/")).read_text())

    image = blob(blob(base)["manifests"][0]["digest"])
    layers = manifest(tiny.delivered("oci"))["layers"]
    assert layers[0] == image["layers"][0]
    assert len(layers) == 1 + len(tiny.delivered("oci").image.layers)  # type: ignore[union-attr]


def test_the_base_is_pinned_in_labels_and_annotations() -> None:
    labels, annotations = (
        config(tiny.delivered("oci"))["config"]["Labels"],
        manifest(tiny.delivered("oci"))["annotations"],
    )
    for key, value in {"base.name": "base", "base.digest": tiny.delivered("oci").image.base.partition("@")[2]}.items():  # type: ignore[union-attr]
        assert labels[f"org.opencontainers.image.{key}"] == annotations[f"org.opencontainers.image.{key}"] == value


def test_what_the_base_says_stays_where_we_say_nothing_else() -> None:
    settings = config(tiny.delivered("oci"))["config"]
    assert {"PATH=/usr/bin:/bin", "MADE=by hand", "MODELREL_MODEL_DIR=/models"} <= set(settings["Env"])
    assert settings["Labels"]["made"] == "yes"
    assert "Cmd" not in settings


def test_history_tells_of_every_layer() -> None:
    found = config(tiny.delivered("oci"))
    assert len(found["history"]) == len(found["rootfs"]["diff_ids"])
    assert [one["created_by"] for one in found["history"][1:]] == [
        f"modelrel: {name}" for name in ("wheels", "serving", "model", "metadata")
    ]
    assert found["created"] == "2026-05-04T03:02:01Z"


def test_another_model_makes_new_only_the_last_two_layers(tmp_path: Path) -> None:
    first = written(tmp_path / "a")
    parity = tiny.verified(tmp_path / "b" / "churn-8", version="8")
    second = package(parity, "oci", tiny.plain("oci"))
    same = [
        one["digest"] == other["digest"]
        for one, other in zip(manifest(first)["layers"], manifest(second)["layers"], strict=True)
    ]
    assert same == [True, True, True, False, False]


def test_the_image_is_started_as_a_process_where_no_engine_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    python = "{}.{}".format(*os.sys.version_info[:2])  # type: ignore[attr-defined]
    report = smoke(written(tmp_path, python=python, platform=f"{wheels.host_platform()}"))
    assert report.runner == "process"
    assert {"image", f"programs for {wheels.host_platform()}"} <= {check.name for check in report.checks}


def test_an_image_for_another_processor_is_not_started_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    other = next(one for one in made.PLATFORMS if one != wheels.host_platform())
    with pytest.raises(Unavailable, match=f"no Python 3.13 for {other} here"):
        smoke(written(tmp_path, platform=other))


def copied(tmp_path: Path, change: Any) -> Package:
    """Return the package for two processors with a file of its tar changed: name and content -> content, or None."""
    folder = tmp_path / "release"
    shutil.copytree(two().folder, folder)
    converted = two().parity.converted
    source = replace(converted.source, folder=folder)
    found = replace(two(), parity=replace(two().parity, converted=replace(converted, source=source)))
    with tarfile.open(image_of(two())) as old, tarfile.open(image_of(found), "w") as new:
        for entry in old:
            data = change(entry.name, old.extractfile(entry).read()) if entry.isreg() else b""  # type: ignore[union-attr]
            if data is not None:
                new.addfile(*made.stream(made.file(entry.name, data, type=entry.type)))
    return found


def examine(found: Package) -> list[str]:
    with opened(found) as image:
        return [check.name for check in examined(found, image)]


def test_what_is_examined_is_named() -> None:
    assert examine(two()) == ["image", "programs for linux/amd64", "programs for linux/arm64"]


@pytest.mark.parametrize("part", ["wheels linux/arm64", "model"])
def test_a_damaged_layer_is_seen(part: str, tmp_path: Path) -> None:
    layer = next(one for one in two().image.layers if one.name == part)  # type: ignore[union-attr]

    def change(name: str, content: bytes) -> bytes:
        return content[:-1] + b"x" if name.endswith(layer.digest.removeprefix("sha256:")) else content

    with pytest.raises(Refused, match=f"holds other bytes than {layer.digest}"):
        examine(copied(tmp_path, change))


def test_a_missing_layer_is_seen(tmp_path: Path) -> None:
    layer = two().image.layers[0].digest.removeprefix("sha256:")  # type: ignore[union-attr]
    with pytest.raises(Refused, match="not the same ones"):
        examine(copied(tmp_path, lambda name, content: None if name.endswith(layer) else content))


def test_a_part_that_nobody_names_is_seen(tmp_path: Path) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(b'"schemaVersion":2', b'"schemaVersion": 2') if name == "index.json" else content

    found = copied(tmp_path, change)
    with tarfile.open(image_of(found), "a") as tar:
        tar.addfile(*made.stream(made.file(f"blobs/sha256/{'0' * 64}", b"x")))
    with pytest.raises(Refused, match="not the same ones"):
        examine(found)


def test_another_image_for_docker_load_is_seen(tmp_path: Path) -> None:
    second = document(two(), manifest(two())["manifests"][1]["digest"])

    def change(name: str, content: bytes) -> bytes:
        loads = json.loads(content) if name == "manifest.json" else []
        return json.dumps([{**loads[0], "Config": second["config"]["digest"]}]).encode() if loads else content

    with pytest.raises(Refused, match="tells docker load of another image"):
        examine(copied(tmp_path, change))


def test_a_library_for_another_processor_in_the_base_is_refused(tmp_path: Path) -> None:
    wrong = made.one_layer(tmp_path / "base", [made.file("lib/libx.so.1", made.library(made.MACHINES["linux/arm64"]))])
    with pytest.raises(Refused, match=r"lib/libx\.so\.1 in the image is built for another processor"):
        examine(written(tmp_path, base_image=str(wrong)))


HOSTILE = {
    "a name that leads out": (made.file("../../etc/cron.d/x", b"x"), Refused),
    "a name from the root": (made.file("/etc/passwd", b"x"), Refused),
    "a hard link that leads out": (made.file("x", type=tarfile.LNKTYPE, linkname="../../etc/shadow"), Refused),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_base_leaves_nothing_behind(how: str, tmp_path: Path) -> None:
    entry, error = HOSTILE[how]
    base = made.one_layer(tmp_path / "base", [entry])
    with pytest.raises(error) as caught:
        written(tmp_path, base_image=str(base))
    assert "\n" not in caught.value.message
    left = [path.name for path in archive.walk(tmp_path / "churn-7" / "onnx")]
    assert not [name for name in left if name.endswith((".tar", "config.json")) or name.startswith(archive.UNFINISHED)]


@pytest.mark.parametrize(
    ("base", "code"),
    [("nowhere/", 3), ("./nowhere.tar", 3), ("oci:nowhere", 3), ("Not A Name", 2), ("host/../x", 2)],
)
def test_a_base_that_is_nowhere_is_a_documented_exit(base: str, code: int, tmp_path: Path) -> None:
    with pytest.raises(ModelrelError) as caught:
        written(tmp_path, base_image=base)
    assert caught.value.exit_code in (code, 2 if base == "nowhere/" else code)


def test_a_base_with_another_python_is_an_error_of_the_command(tmp_path: Path) -> None:
    base = made.base(tmp_path / "base", Env=["PYTHON_VERSION=3.12.1"])
    with pytest.raises(Invalid, match=r"holds Python 3\.12\.1, the wheels are for 3\.13"):
        written(tmp_path, base_image=str(base))


@pytest.mark.parametrize("text", ["base", "./base", "oci:base", "oci:base:latest", "base:latest"])
def test_a_base_on_disk_is_named_as_skopeo_does_or_by_its_path(text: str, tmp_path: Path) -> None:
    folder = made.base(tmp_path / "base", ["linux/amd64"])
    index = json.loads((folder / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps(index))
    base = images.base_of(text, "linux/amd64", "", lambda _: None)  # in tmp_path: see conftest
    assert base.digest == index["manifests"][0]["digest"]
    assert base.name in ("base", "base:latest")


def test_a_user_can_replace_what_a_container_is_started_with(tmp_path: Path) -> None:
    own = tmp_path / "own" / "oci"
    own.mkdir(parents=True)
    (own / "config.json.j2").write_text(
        '{% extends "builtin/oci/config.json.j2" %}{% block more %}"Volumes": {"/data": {}},{% endblock %}'
    )
    assert config(written(tmp_path, templates=tmp_path / "own"))["config"]["Volumes"] == {"/data": {}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "is not JSON"),
        ("[]", "is no JSON object"),
        ('{"Entrypont": []}', "sets 'Entrypont', which is no setting of a container"),
        ('{"Env": [1]}', "has a Env that is no list of texts"),
        ('{"Labels": []}', None),
        ('{"Labels": "x"}', "are no object"),
    ],
)
def test_a_template_that_no_engine_would_take_is_an_error(text: str, said: str | None, tmp_path: Path) -> None:
    own = tmp_path / "own" / "oci"
    own.mkdir(parents=True)
    (own / "config.json.j2").write_text(text)
    if said is None:
        assert config(written(tmp_path, templates=tmp_path / "own"))["config"]["Labels"] == {"made": "yes"}
        return
    with pytest.raises(Invalid, match=said):
        written(tmp_path, templates=tmp_path / "own")


@pytest.mark.parametrize("options", [{"manifest": "v1"}, {"platform": "linux/amd64,linux/s390x"}, {"tags": ("A B",)}])
def test_options_that_make_no_sense_are_errors_of_the_command(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        written(tmp_path, **options)


def test_a_base_in_a_registry_is_there_again_when_the_registry_is_silent(tmp_path: Path) -> None:
    told: list[str] = []
    with registries.running(tmp_path / "registry") as address:
        name = f"{address}/team/base:1"
        registries.skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{tiny.made_base()}", f"docker://{name}")
        first = images.base_of(name, "linux/arm64", "", told.append)
    again = images.base_of(name, "linux/arm64", "", told.append)
    assert (again.name, again.digest) == (name, first.digest)
    assert first.config["architecture"] == "arm64"
    assert ": building on sha256:" in told[-1]


def test_a_base_that_is_named_by_digest_is_asked_for_once(tmp_path: Path) -> None:
    told: list[str] = []
    with registries.running(tmp_path / "registry") as address:
        registries.skopeo("copy", "--dest-tls-verify=false", f"oci:{tiny.made_base()}", f"docker://{address}/base:1")
        digest = images.base_of(f"{address}/base:1", "linux/amd64", "", told.append).digest
        images.base_of(f"{address}/base@{digest}", "linux/amd64", "", told.append)
    assert images.base_of(f"{address}/base@{digest}", "linux/amd64", "", told.append).digest == digest
    assert not any("of before" in line for line in told)


@pytest.mark.parametrize("target", ["oci", "docker"])
def test_another_base_at_the_same_place_is_a_reason_to_package_again(target: str, tmp_path: Path) -> None:
    base = made.one_layer(tmp_path / "base", made.plain("linux/amd64"))
    own = {"builder": "oci"} if target == "docker" else {}
    options = PackageOptions(base_image=str(base), platform="linux/amd64", python="3.13", **own)  # type: ignore[arg-type]
    found = package(tiny.verified(tmp_path / "churn-7"), target, options)
    assert stands(found, options)
    shutil.rmtree(base)
    assert stands(found, options)
    made.one_layer(tmp_path / "base", [*made.plain("linux/amd64"), made.file("new")])
    assert not stands(found, options)


# in a real engine


@pytest.mark.docker
def test_docker_loads_it_under_its_name_and_it_is_the_recorded_image(tmp_path: Path) -> None:
    found = package(
        tiny.verified(tmp_path / "churn-7"),
        "oci",
        tiny.image_options(base_image=str(tiny.saved_base()), tags=("modelrel-test/loaded:7",)),
    )
    assert found.image is not None
    with tiny.engine() as engine, image_of(found).open("rb") as stream:
        loaded = engine.images.load(stream)
        try:
            assert [one.tags for one in loaded] == [["modelrel-test/loaded:7"]]
            assert loaded[0].id == found.image.id
        finally:
            engine.images.remove("modelrel-test/loaded:7")


@pytest.mark.docker
def test_the_engine_runs_it_and_keeps_no_name_of_it() -> None:
    report = smoke(real())
    assert report.runner == "image"
    assert {"image", "programs for linux/amd64"} <= {check.name for check in report.checks}
    with tiny.engine() as engine:
        ours = [one for one in engine.images.list() if one.id == real().image.id]  # type: ignore[union-attr]
        assert not [tag for one in ours for tag in one.tags if tag.startswith("modelrel-smoke")]


@pytest.mark.docker
def test_it_says_the_same_of_a_container_as_the_dockerfile() -> None:
    with tiny.engine() as engine:
        built = engine.images.get(tiny.delivered("docker", image=True).image.id).attrs["Config"]  # type: ignore[union-attr]
    ours = config(real())["config"]
    for key in ("User", "WorkingDir", "Entrypoint", "StopSignal", "ExposedPorts", "Healthcheck"):
        assert ours[key] == built[key], key
    assert set(built["Env"]) - set(ours["Env"]) <= {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    assert built["Labels"].keys() <= ours["Labels"].keys()


@pytest.mark.docker
def test_it_holds_the_files_that_the_dockerfile_copies(tmp_path: Path) -> None:
    context = tiny.delivered("docker", image=True)
    there = {
        path.relative_to(image_of(context)).as_posix(): archive.sha256(path) for path in archive.walk(image_of(context))
    }
    root = tiny.unpacked(image_of(real()), tmp_path)
    (root / "models").rename(root / "opt" / "modelrel" / "model")
    here = {
        path.relative_to(root / "opt" / "modelrel").as_posix(): archive.sha256(path)
        for path in archive.walk(root / "opt" / "modelrel")
    }
    same = there.keys() & here.keys() - {"manifest.json", "sbom.cdx.json"}
    assert {name: here[name] for name in same} == {name: there[name] for name in same}
    assert there.keys() - here.keys() == {"Dockerfile", ".dockerignore"}


@pytest.mark.docker
def test_buildah_runs_what_is_inside(tmp_path: Path) -> None:
    buildah = tiny.tool("buildah")
    if os.geteuid():
        tiny.absent("buildah", "buildah's chroot isolation asks for root here")
    where = ["--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run")]

    def run(*words: str) -> str:
        done = subprocess.run([buildah, *where, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    container = run("from", f"oci-archive:{image_of(real())}")
    try:
        asked = "from serving import load_model; print(load_model('/models').name)"
        assert run("run", "--user", "0", "--isolation", "chroot", container, "--", "python3", "-c", asked).endswith(
            "churn"
        )
    finally:
        run("rm", container)
        run("rmi", "--all")


@pytest.mark.docker
def test_docker_writes_the_image_itself_where_it_is_told_to(tmp_path: Path) -> None:
    options = tiny.image_options(base_image=str(tiny.saved_base()), builder="oci")
    found = package(tiny.verified(tmp_path / "churn-7"), "docker", options)
    assert found.image is not None
    assert (found.folder / found.image.at).name == "churn-7.tar"
    assert (found.folder / found.artifact / "Dockerfile").is_file()
    assert smoke(found).runner == "image"


def test_docker_without_an_engine_writes_the_image_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    options = PackageOptions(base_image=str(tiny.made_base()), platform="linux/amd64", python="3.13")
    found = package(tiny.verified(tmp_path / "churn-7"), "docker", options)
    assert found.image is not None
    assert found.image.at == "onnx/docker/churn-7.tar"
    assert f"load it with: docker load -i {found.folder / found.image.at}" in found.notes[-1]


def test_docker_with_the_engine_asked_for_stops_without_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    options = PackageOptions(base_image=str(tiny.made_base()), builder="engine", python="3.13", platform="linux/amd64")
    with pytest.raises(Unavailable, match="no container engine answers here"):
        package(tiny.verified(tmp_path / "churn-7"), "docker", options)


def test_docker_asked_to_write_it_stops_without_a_base(tmp_path: Path) -> None:
    options = PackageOptions(base_image="./nowhere.tar", builder="oci", python="3.13", platform="linux/amd64")
    with pytest.raises(Unavailable, match="there is no image at"):
        package(tiny.verified(tmp_path / "churn-7"), "docker", options)


def test_an_unknown_builder_is_an_error_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="--builder is 'kaniko'"):
        package(tiny.verified(tmp_path / "churn-7"), "docker", PackageOptions(builder="kaniko"))
