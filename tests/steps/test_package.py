"""Package: complete or not at all, the same bytes every time, nothing of this machine in it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from modelrel import archive, records, wheels
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.steps.package import package, tools
from modelrel.targets import TARGETS, aws_lambda
from modelrel.values import PackageOptions
from tests.targets import tiny

EACH = pytest.mark.parametrize("target", sorted(TARGETS))
WHEELS = pytest.mark.parametrize(
    "target",
    sorted(TARGETS.keys() & {"docker", "oci", "lambda", "lambda-image"}),
)
PLAIN = PackageOptions(render_only=True, platform="linux/amd64", python="3.13")

ELSEWHERE = """
import os, pickle, sys
from pathlib import Path
os.umask(int(sys.argv[3], 8))
from modelrel.steps.package import package
from tests.targets import tiny
found = package(pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2], tiny.plain(sys.argv[2]))
print(*sorted(f"{file.sha256} {file.path}" for file in found.files), sep="\\n")
"""


def tomorrow() -> dict[str, str]:
    """Return what sets the clock of a process a day (and some) ahead, where this machine has libfaketime."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    assert found or "faketime" not in tiny.REQUIRED, "there is no libfaketime here"
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": "+93784s"} if found else {}


def packaged_elsewhere(folder: Path, target: str, umask: str, **environment: str) -> str:
    """Package in a new process with other settings; return the digests."""
    root = str(Path(__file__).parents[2])
    given = folder.with_suffix(".pickle")
    given.parent.mkdir(parents=True, exist_ok=True)
    given.write_bytes(pickle.dumps(tiny.fitting(target, folder)))
    for path in folder.rglob("*"):
        os.utime(path, (int(umask, 8) * 10**7,) * 2)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE, str(given), target, umask],
        env={**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": umask.strip("0") or "1", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def everything(found: Package) -> bytes:
    """Return all bytes of a package, with what is inside its zip."""
    content = b""
    for file in found.files:
        path = found.folder / file.path
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as packed:
                content += b"".join(packed.read(name) for name in packed.namelist() if name.count("/") < 2)
        elif path.suffix == ".tar" and found.image:
            with tempfile.TemporaryDirectory() as work:
                inside = archive.walk(tiny.unpacked(path, Path(work)))
                content += b"".join(one.read_bytes() for one in inside if "site-packages" not in one.parts)
            with tarfile.open(path) as tar:
                content += b"".join(tar.extractfile(entry).read() for entry in tar if 0 < entry.size < 100_000)  # type: ignore[union-attr]
        elif "site-packages" not in file.path:
            content += path.read_bytes()
    return content


@EACH
def test_two_packagings_give_the_same_bytes(target: str, tmp_path: Path) -> None:
    first = packaged_elsewhere(tmp_path / "a", target, "022", TZ="UTC", LC_ALL="C")
    deep = tmp_path / "b" / "deep" / "er"
    home = {name: str(tmp_path / name) for name in ("HOME", "TMPDIR")}
    for name in home:
        (tmp_path / name).mkdir()
    # one target gets its wheels anew; for the others that would show nothing more
    home["XDG_CACHE_HOME"] = str(tmp_path / "cache" if target == "docker" else wheels.cache_dir().parent)
    second = packaged_elsewhere(deep, target, "077", TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", **home, **tomorrow())
    assert first
    assert first == second


@pytest.mark.parametrize("target", ["docker", "tflite"])
def test_a_date_that_is_set_is_the_only_date(target: str, tmp_path: Path) -> None:
    one, other = (packaged_elsewhere(tmp_path / name, target, "022", SOURCE_DATE_EPOCH=name) for name in ("86400", "0"))
    assert one.count("\n") == other.count("\n")
    found = [path for path in tmp_path.rglob("sbom.cdx.json") if "release" not in path.parts]
    dates = {json.loads(path.read_bytes())["metadata"]["timestamp"] for path in found}
    assert dates == {"1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z"}


@EACH
def test_nothing_of_this_machine_is_inside(target: str) -> None:
    found = tiny.delivered(target)
    content = everything(found)
    here = [str(found.folder), f"{Path.home()}/", str(Path(__file__).parents[2]), str(wheels.cache_dir())]
    for trace in here:
        assert trace.encode() not in content


@WHEELS
def test_the_manifest_has_the_digest_of_every_file_beside_it(target: str, tmp_path: Path) -> None:
    found = tiny.delivered(target)
    top = found.folder / found.artifact
    if top.suffix == ".zip":
        with zipfile.ZipFile(top) as packed:
            packed.extractall(tmp_path / "unpacked")
        top = tmp_path / "unpacked"
    if top.suffix == ".tar":
        tiny.unpacked(top, tmp_path / "root")
        top = tmp_path / "root" / "opt" / "modelrel"
        (tmp_path / "root" / "models").rename(top / "model")
    manifest = json.loads((top / "manifest.json").read_bytes())
    assert (manifest["name"], manifest["version"], manifest["run_id"]) == ("churn", "7", "ab12" * 8)
    assert manifest["files"] == {
        path.relative_to(top).as_posix(): archive.sha256(path)
        for path in archive.walk(top)
        if path.name != "manifest.json"
    }


@WHEELS
def test_packaging_again_follows_the_lock_of_before(target: str, tmp_path: Path) -> None:
    parity = tiny.fitting(target, tmp_path / "churn-7")
    first = package(parity, target, tiny.plain(target))
    lock = next(first.folder / file.path for file in first.files if file.path.endswith("requirements.lock"))
    with lock.open("a") as stream:
        stream.write("# another resolution would not have this line\n")
    again = package(parity, target, tiny.plain(target))
    assert lock.read_text().endswith("not have this line\n")
    assert again.digest != first.digest


@EACH
def test_what_cannot_be_finished_leaves_the_package_before(target: str, tmp_path: Path) -> None:
    parity = tiny.fitting(target, tmp_path / "churn-7")
    first = package(parity, target, tiny.plain(target))
    broken = tmp_path / "own" / target
    broken.mkdir(parents=True)
    (broken / "note.j2").write_text("{{ nobody }}")
    with pytest.raises(Invalid):
        package(parity, target, replace(tiny.plain(target), templates=tmp_path / "own"))
    assert not records.changed(first, first.folder)
    assert sorted(
        path.name for path in (parity.source.folder / parity.converted.format).iterdir() if path.is_dir()
    ) == [target]


@EACH
def test_records_of_the_package_before_go_with_it(target: str, tmp_path: Path) -> None:
    parity = tiny.fitting(target, tmp_path / "churn-7")
    top = parity.source.folder / parity.converted.format / target
    top.mkdir()
    (top / "SmokeReport.json").write_text("{}")
    package(parity, target, tiny.plain(target))
    assert not (top / "SmokeReport.json").exists()


@EACH
def test_a_user_template_takes_part(target: str, tmp_path: Path) -> None:
    (tmp_path / "own" / target).mkdir(parents=True)
    (tmp_path / "own" / target / "OWNER.j2").write_text("{{ parity.source.label }} is ours\n")
    found = package(
        tiny.fitting(target, tmp_path / "churn-7"), target, replace(tiny.plain(target), templates=tmp_path / "own")
    )
    owner = next(found.folder / file.path for file in found.files if file.path.endswith("OWNER"))
    assert owner.read_text() == "churn/7 is ours\n"


@pytest.mark.parametrize("target", sorted(name for name in TARGETS if not TARGETS[name].IMAGES))
def test_a_missing_model_is_one_sentence(target: str, tmp_path: Path) -> None:
    parity = tiny.fitting(target, tmp_path / "churn-7")
    parity.converted.path.unlink()
    with pytest.raises(Unavailable, match=r"model\.\w+ is not there"):
        package(parity, target, tiny.plain(target))


def test_an_unknown_target_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no target 'lamda'") as caught:
        package(tiny.verified(tmp_path / "churn-7"), "lamda", PLAIN)
    assert caught.value.hint == f"Did you mean lambda? Targets: {', '.join(TARGETS)}."


def test_a_copy_in_another_format_is_not_packaged(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="the target tflite delivers tflite, not onnx"):
        package(tiny.verified(tmp_path / "churn-7"), "tflite", tiny.plain("tflite"))


def test_the_runtime_is_the_one_that_verified(tmp_path: Path) -> None:
    parity = replace(tiny.verified(tmp_path / "churn-7"), tools={"onnxruntime": "1.24.1"})
    found = package(parity, "docker", PLAIN)
    assert "onnxruntime==1.24.1 " in (found.folder / found.artifact / "requirements.lock").read_text()


def test_a_runtime_that_cannot_be_had_is_replaced_and_said(tmp_path: Path) -> None:
    parity = replace(tiny.verified(tmp_path / "churn-7"), tools={"onnxruntime": "0.0.1"})
    found = package(parity, "docker", PLAIN)
    assert any("instead of onnxruntime 0.0.1" in note for note in found.notes)


def test_a_function_beyond_the_limit_is_refused_with_its_biggest_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws_lambda, "UNZIPPED_BYTES", 50_000_000)
    with pytest.raises(Refused, match=r"AWS Lambda takes 50\.0; the biggest parts: numpy [\d.]+ MB, onnxruntime "):
        package(tiny.verified(tmp_path / "churn-7"), "lambda", tiny.plain("lambda"))


def test_a_zip_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_lambda, "ZIP_BYTES", 20_000_000)
    with pytest.raises(Refused, match=r"has [\d.]+ MB zipped, AWS Lambda takes 20\.0"):
        package(tiny.verified(tmp_path / "churn-7"), "lambda", tiny.plain("lambda"))


def test_tools_change_with_the_user_templates(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    options = replace(PLAIN, templates=tmp_path)
    before = tools("docker", options)
    (tmp_path / "docker" / "Dockerfile.j2").write_text("FROM scratch\n")
    assert tools("docker", options) != before


def test_tools_change_with_the_date_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = tools("docker", PLAIN)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert tools("docker", PLAIN) != before


def test_without_an_engine_the_context_is_all_and_it_says_how_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    found = package(tiny.verified(tmp_path / "churn-7"), "docker", replace(PLAIN, render_only=False))
    assert found.image is None
    assert found.notes[-1] == (
        f"no image was built; build it with: docker build -t churn:7 {tmp_path}/churn-7/onnx/docker/context"
    )


@EACH
def test_what_is_too_large_is_refused_with_what_was_measured(target: str, tmp_path: Path) -> None:
    parity = tiny.fitting(target, tmp_path / "churn-7")
    limit = replace(tiny.plain(target), max_size=10)
    with pytest.raises(Refused, match=r"has [\d,]+ bytes, --max-size is 10; the biggest parts: \w+"):
        package(parity, target, limit)
    top = parity.source.folder / parity.converted.format / target
    assert [path.name for path in top.iterdir()] == ["Package.refused.json"]
    told = json.loads((top / "Package.refused.json").read_text())
    assert (told["target"], told["max_size"]) == (target, 10)
    assert told["size"] > 10
    assert sum(told["parts"].values()) > 0
    allowed = package(parity, target, replace(limit, max_size=told["size"]))
    assert allowed.size == told["size"]
    assert not (top / "Package.refused.json").exists()
