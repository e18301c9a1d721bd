"""The Android library: an archive as Gradle wants it, and Kotlin source that compiles, runs and is right."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from modelrel import archive, tensors
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.measured import Units
from modelrel.steps.package import checked, package
from modelrel.steps.smoke import smoke
from modelrel.targets.android import kotlin as literals
from modelrel.values import PackageOptions, ParityReport, Signature, TensorSpec
from tests.targets import kotlin, tiny

ANDROID = "{http://schemas.android.com/apk/res/android}"
VALUES = {
    "BYTES": np.array([["free"], ['a "$b" \\n'], ["größer 🙂"]], object),
    "FP32": np.array([[1.5], [-1e-7], [np.nan]], np.float32),
    "FP64": np.array([[1 / 3], [-1e300], [0.0]]),
    "INT64": np.array([[2**62], [-(2**63)], [0]]),
    "INT32": np.array([[2**31 - 1], [-(2**31)], [0]], np.int32),
    "INT16": np.array([[2**15 - 1], [-(2**15)], [0]], np.int16),
    "INT8": np.array([[127], [-128], [0]], np.int8),
    "UINT8": np.array([[127], [255], [0]], np.uint8),
    "BOOL": np.array([[True], [False], [True]]),
}
NAMES = ("class", "a b", "aB", 'x"y', "größe", "🙂", "$rows", "new\nline */ }", "rows")


def echo(folder: Path, name: str, specs: dict[str, TensorSpec], rows: dict[str, np.ndarray]) -> ParityReport:
    """Lay out a verified ONNX model that gives back what it is given, under other names."""
    parity = tiny.verified(folder, name=name)
    onnx_types = {"BYTES": TensorProto.STRING, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE}
    types = {kind: onnx_types.get(kind) or getattr(TensorProto, kind) for kind in VALUES}

    def ports(prefix: str) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(prefix + one.name, types[one.datatype], ["N", *[None] * (len(one.shape) - 1)])
            for one in specs.values()
        ]

    nodes = [helper.make_node("Identity", [one], [f"out {one}"]) for one in specs]
    graph = helper.make_graph(nodes, "echo", ports(""), ports("out "))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = parity.converted.path
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = tuple(replace(one, name=f"out {one.name}") for one in specs.values())
    answers = dict(zip([one.name for one in outputs], session.run([one.name for one in outputs], rows), strict=True))
    golden = {
        "inputs": {key: tensors.plain(value) for key, value in rows.items()},
        "outputs": {key: tensors.plain(np.asarray(value)) for key, value in answers.items()},
    }
    (path.parent / "golden.json").write_text(json.dumps(golden))
    inputs = tuple(specs.values())
    kind = "columns" if all(one.shape == (-1, 1) for one in inputs) else "tensor"
    plain = [[{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in side]
             for side in (inputs, outputs)]  # fmt: skip
    said = json.loads((path.parent / "modelrel.json").read_text())
    said |= {"kind": kind, "classes": [], "predict": outputs[0].name, "inputs": plain[0], "outputs": plain[1]}
    (path.parent / "modelrel.json").write_text(json.dumps(said))
    source = replace(parity.source, signature=Signature(kind=kind, inputs=inputs))
    converted = replace(
        parity.converted, source=source, inputs=inputs, outputs=outputs, predict=outputs[0].name, classes=(),
        file=archive.describe(path, folder),
    )  # fmt: skip
    return tiny.remember(parity, converted=converted)


def hostile(folder: Path) -> ParityReport:
    """Return a model of columns of every datatype, whose names mean something to Kotlin or nothing to anybody."""
    columns = dict(zip(NAMES, VALUES, strict=True))
    specs = {name: TensorSpec(name=name, datatype=kind, shape=(-1, 1)) for name, kind in columns.items()}
    return echo(folder, 'größe "2" */', specs, {name: VALUES[kind] for name, kind in columns.items()})


def wide(folder: Path) -> ParityReport:
    """Return a model of tensors, one of them of any size."""
    specs = {
        "ids": TensorSpec(name="ids", datatype="INT64", shape=(-1, -1)),
        "image": TensorSpec(name="image", datatype="FP32", shape=(-1, 2, 3)),
    }
    rows = {"ids": np.arange(8).reshape(2, 4), "image": np.arange(12, dtype=np.float32).reshape(2, 2, 3)}
    return echo(folder, "Row", specs, rows)


def rounded(folder: Path) -> ParityReport:
    """Return the tree model as if its file took and gave whole numbers: its source is compiled, and not run."""
    made = tiny.phone()
    shutil.copytree(made.source.folder, folder)
    units = tuple(Units(name=name, datatype="INT8", scale=1e-05, zero_point=-3) for name in ("input", "probabilities"))
    source = replace(made.source, folder=folder, name="rounded")
    return replace(made, converted=replace(made.converted, source=source, units=units))


@pytest.fixture(scope="module")
def delivered() -> Package:
    return tiny.delivered("android")


@pytest.fixture(scope="module")
def folder(delivered: Package) -> Path:
    return (delivered.folder / delivered.artifact).parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Package, Path]]:
    """Package every kind of model there is, and compile all of the sources at once."""
    top = tmp_path_factory.mktemp("android")
    phone = tiny.phone()
    shutil.copytree(phone.source.folder, top / "phone")
    source = replace(phone.source, folder=top / "phone", name="phone")
    reports = {
        "columns": (tiny.verified(top / "columns"), {}),
        "hostile": (hostile(top / "hostile"), {}),
        "wide": (wide(top / "wide"), {"namespace": "com.example.wide_2"}),
        "phone": (replace(phone, converted=replace(phone.converted, source=source)), {}),
        "rounded": (rounded(top / "rounded"), {}),
    }
    made = {key: package(report, "android", PackageOptions(values=values)) for key, (report, values) in reports.items()}
    sources = [path for one in made.values() for path in (one.folder / one.artifact).parent.rglob("*.kt")]
    assert len(sources) == 10
    classes = kotlin.compiled(sources, top)
    return {key: (one, classes) for key, one in made.items()}


def test_the_archive_holds_what_gradle_looks_for(delivered: Package) -> None:
    with zipfile.ZipFile(delivered.folder / delivered.artifact) as found:
        names = set(found.namelist())
        assert names == {
            "AndroidManifest.xml", "R.txt", "classes.jar", "proguard.txt", "assets/modelrel/churn/model.onnx",
            "assets/modelrel/churn/golden.json", "assets/modelrel/churn/modelrel.json",
            "assets/modelrel/churn/labels.txt", "META-INF/com/android/build/gradle/aar-metadata.properties",
        }  # fmt: skip
        top = ET.fromstring(found.read("AndroidManifest.xml"))
        assert top.get("package") == "io.modelrel.churn"
        assert top.find("uses-sdk").get(f"{ANDROID}minSdkVersion") == "24"
        assert found.read("assets/modelrel/churn/labels.txt") == b"stays\nleaves\n"
        assert archive.sha256(delivered.converted.path) == delivered.converted.file.sha256
        assert found.read("assets/modelrel/churn/model.onnx") == delivered.converted.path.read_bytes()
        (Path(delivered.folder) / "classes.jar").write_bytes(found.read("classes.jar"))
    with zipfile.ZipFile(delivered.folder / "classes.jar") as jar:
        assert jar.namelist() == ["META-INF/MANIFEST.MF"]


def test_packaging_again_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for place in ("one", "another place"):
        made = package(tiny.verified(tmp_path / place), "android", PackageOptions())
        digests.append({file.path: file.sha256 for file in made.files})
    assert digests[0] == digests[1]


def test_smoke_runs_the_model_that_is_in_the_archive(delivered: Package) -> None:
    report = smoke(delivered)
    assert report.runner.startswith("onnxruntime 1")
    assert {check.name for check in report.checks} >= {"golden rows", "a batch", "AAR", "Kotlin", "an unknown input"}
    assert report.max_abs_error < 1e-6


def test_smoke_refuses_an_archive_with_another_model(tmp_path: Path) -> None:
    made = package(tiny.verified(tmp_path / "release"), "android", PackageOptions())
    path = made.folder / made.artifact
    with zipfile.ZipFile(path) as found:
        held = {name: found.read(name) for name in found.namelist()}
    model = "assets/modelrel/churn/model.onnx"
    held[model] = held[model].replace(b"stays", b"stayz")
    with zipfile.ZipFile(path, "w") as other:
        for name, content in held.items():
            other.writestr(name, content)
    files = tuple(archive.describe(made.folder / file.path, made.folder) for file in made.files)
    with pytest.raises(Refused, match="output 'label' of row 0 is 'stayz'"):
        smoke(replace(made, files=files))


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    made = package(tiny.verified(tmp_path / "release"), "android", PackageOptions())
    with zipfile.ZipFile(made.folder / made.artifact, "a") as found:
        found.writestr("assets/modelrel/churn/../../../../escaped", b"")
    files = tuple(archive.describe(made.folder / file.path, made.folder) for file in made.files)
    with pytest.raises(Invalid, match="leads outside its folder"):
        smoke(replace(made, files=files))


@pytest.mark.parametrize("kind", ["columns", "hostile", "wide", "phone"])
def test_the_source_compiles_and_gives_the_golden_rows(kind: str, built: dict[str, tuple[Package, Path]]) -> None:
    made, classes = built[kind]
    top = (made.folder / made.artifact).parent
    with zipfile.ZipFile(made.folder / made.artifact) as found:
        found.extractall(top.parent / "unzipped")
    (test,) = top.glob("src/androidTest/kotlin/**/*Test.kt")
    name = test.relative_to(top / "src/androidTest/kotlin").with_suffix("").as_posix().replace("/", ".")
    assert kotlin.ran(classes, name, top.parent / "unzipped/assets") == "right"


def test_names_that_mean_something_to_kotlin_are_given_others(built: dict[str, tuple[Package, Path]]) -> None:
    made, _ = built["hostile"]
    top = (made.folder / made.artifact).parent
    (path,) = top.glob("src/main/kotlin/**/*.kt")
    text = path.read_text(encoding="utf-8")
    assert path.relative_to(top).as_posix() == "src/main/kotlin/io/modelrel/grosse_2/Grosse2.kt"
    assert "val class2: String," in text
    assert 'feeds["\\ud83d\\ude42"] = tensor(' in text
    assert text.isascii()


def test_the_readme_says_what_was_not_compiled(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "no Android SDK took part" in text
    assert 'implementation("com.microsoft.onnxruntime:onnxruntime-android:' in text
    assert "not compiled" in text


@pytest.mark.parametrize("said", [{"namespace": "churn"}, {"namespace": "com.class.a"}, {"runtime": '1"'}, {"x": "1"}])
def test_settings_that_are_none_are_errors_of_the_command(said: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        checked("android", PackageOptions(values=said))


def test_more_columns_than_a_class_takes_are_refused(tmp_path: Path) -> None:
    specs = {f"c{at}": TensorSpec(name=f"c{at}", datatype="FP64", shape=(-1, 1)) for at in range(121)}
    report = echo(tmp_path / "many", "many", specs, {name: np.zeros((1, 1)) for name in specs})
    with pytest.raises(Refused, match="121 columns"):
        package(report, "android", PackageOptions())


def test_a_literal_is_ascii_and_cannot_end_early() -> None:
    assert literals.text('"$x\\\n\ud800') == '"\\"\\$x\\\\\\u000a\\ud800"'
