"""The model as it is, in an image: its own locked packages, its pickles told, its files laid out."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelrel import archive, originals
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.registry import mlmodel
from modelrel.steps.convert import convert
from modelrel.steps.package import package, suited
from modelrel.steps.smoke import smoke
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, PackageOptions, ParityReport, SourceModel, VerifyOptions
from tests.models import logged, pulled
from tests.targets import tiny

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

HERE = "{}.{}".format(*sys.version_info[:2])
TEXTS = ["the good day", "a bad night", "good, good", "bad the bad", "fine night", "awful day"]
CLEANING = """
import json, re
from pathlib import Path
STOP = set(json.loads((Path(__file__).parent / "stop.json").read_text()))
def clean(text):
    return " ".join(word for word in re.findall(r"\\w+", text.lower()) if word not in STOP)
"""


LIGHT = tuple(f"{name}=={version(name)}" for name in ("mlflow-skinny", "numpy", "pandas", "cloudpickle"))
"""Requirements of a third of the size, for claims that do not depend on them."""


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("1",)


def sentiment() -> Any:
    """Return a Python model of two parts: words cleaned by code of its own, then a pipeline that is an artifact."""
    from mlflow.pyfunc import PythonModel

    class Sentiment(PythonModel):  # made here, so that it is pickled by value
        def load_context(self, context):  # type: ignore[no-untyped-def]
            import json
            import pickle
            from pathlib import Path

            self.pipeline = pickle.loads(Path(context.artifacts["pipeline"]).read_bytes())
            self.names = json.loads(Path(context.artifacts["names"]).read_text())

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads types
            from modelrel_test_cleaning import clean

            return [self.names[kind] for kind in self.pipeline.predict(model_input["text"].map(clean))]

    return Sentiment()


@cache
def released() -> ParityReport:
    """Return a Python model with code and artifacts, verified as it is."""
    top = tiny.place() / "as-is"
    code = top / "code/modelrel_test_cleaning"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text(CLEANING)
    (code / "stop.json").write_text('["the", "a"]')
    frame = pd.DataFrame({"text": TEXTS * 10})
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(frame["text"], ["pos", "neg"] * 30)
    (top / "pipeline.pkl").write_bytes(pickle.dumps(pipeline))
    (top / "names.json").write_text('{"pos": "positive", "neg": "negative"}')
    pinned = ("mlflow-skinny", "scikit-learn", "numpy", "pandas", "cloudpickle")
    sys.path.insert(0, str(code.parent))  # where the one who logs it has it
    try:
        source = logged(
            sentiment(),
            frame,
            top,
            flavor="pyfunc",
            code_paths=[str(code)],
            artifacts={"pipeline": str(top / "pipeline.pkl"), "names": str(top / "names.json")},
            pip_requirements=[f"{name}=={version(name)}" for name in pinned],
        )
    finally:
        sys.path.remove(str(code.parent))
        sys.modules.pop("modelrel_test_cleaning", None)
    own = ConvertOptions(allow_pickle=("python_model.pkl", "code/*"))
    return verify(convert(recorded(source), "python", own), VerifyOptions(rows=50, budget=1.0))


def recorded(source: SourceModel) -> SourceModel:
    """Return a source with what `pull` reads of its requirements."""
    said = mlmodel.read(source.model_dir)
    return replace(
        source,
        requirements=said.requirements,
        mlflow_version=said.mlflow_version,
        python_version=said.python_version,
    )


@cache
def packaged() -> Package:
    return package(released(), "docker", PackageOptions(render_only=True))


def context(found: Package) -> Path:
    return found.folder / found.artifact


def elsewhere(folder: Path, **changes: Any) -> ParityReport:
    """Return the verified model in another release folder, with another source."""
    parity = released()
    shutil.copytree(parity.source.folder, folder, ignore=shutil.ignore_patterns("docker"))
    source = replace(parity.source, folder=folder, **changes)
    return replace(parity, converted=replace(parity.converted, source=source))


def requirements(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))


def test_what_was_laid_out_answers_as_the_original() -> None:
    report = smoke(packaged())
    assert report.rows > 200
    assert {check.name for check in report.checks} >= {"golden rows by V2 infer", "golden rows by /invocations"}


@pytest.mark.docker
def test_its_image_answers_where_nothing_can_be_written(tmp_path: Path) -> None:
    options = tiny.image_options()
    if options.python != packaged().python:
        tiny.absent("docker", f"the base image has Python {options.python}, the model is of {packaged().python}")
    found = package(elsewhere(tmp_path / "churn-7"), "docker", options)
    assert found.image is not None
    assert smoke(found).runner == "image"
    with tiny.engine() as engine:
        labels = engine.images.get(found.image.id).attrs["Config"]["Labels"]
        engine.images.remove(found.image.tags[0], noprune=True)
    assert labels["io.modelrel.pickle"] == "unknown"
    assert labels["io.modelrel.model.format"] == "python"


def test_its_own_packages_are_locked_with_hashes_apart_from_the_servers() -> None:
    top = context(packaged())
    own, servers = ((top / name).read_text() for name in ("environment.lock", "requirements.lock"))
    assert requirements(own)["scikit-learn"] == version("scikit-learn")
    assert {"mlflow-skinny", "pandas", "cloudpickle"} <= requirements(own).keys()
    assert not {"mlflow-skinny", "scikit-learn", "pandas", "onnxruntime"} & requirements(servers).keys()
    assert "uvicorn" in requirements(servers)
    assert len(re.findall(r"^[\w.-]+==", own, re.MULTILINE)) <= own.count("--hash=sha256:")
    assert (top / "environment/sklearn").is_dir()
    assert not (top / "site-packages/sklearn").exists()


def test_its_packages_are_found_by_their_metadata_and_come_compiled() -> None:
    environment = context(packaged()) / "environment"
    for record in environment.glob("*.dist-info/RECORD"):
        names = [line.rpartition(",")[0].rpartition(",")[0].strip('"') for line in record.read_text().splitlines()]
        assert names
        assert all((environment / name).is_file() for name in names)
    assert not [*environment.rglob("direct_url.json")]
    tag = f"cpython-{packaged().python.replace('.', '')}"
    assert (environment / f"mlflow/__pycache__/__init__.{tag}.pyc").is_file()


def test_the_model_is_laid_out_as_it_was_logged() -> None:
    top, source = context(packaged()) / "model", released().source.model_dir
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in archive.walk(source)}
    files = {name: content for name, content in files.items() if "__pycache__" not in name}
    assert {
        path.relative_to(top / "model").as_posix(): path.read_bytes() for path in archive.walk(top / "model")
    } == files
    said = json.loads((top / "modelrel.json").read_bytes())
    assert (said["file"], said["format"]) == ("modelrel-origin.json", "python")
    assert (top / said["file"]).is_file()


def test_its_pickle_verdict_stands_in_the_manifest_a_label_and_a_note() -> None:
    said = json.loads((context(packaged()) / "manifest.json").read_bytes())["pickle"]
    verdicts = {one["path"]: one["verdict"] for one in said["files"]}
    assert verdicts == {
        "python_model.pkl": "unknown",
        "artifacts/pipeline.pkl": "known",
        "code/modelrel_test_cleaning/__init__.py": "unknown",
    }
    assert (said["verdict"], said["allowed"]) == ("unknown", False)
    names = {one["path"]: one["names"] for one in said["files"]}
    assert "sklearn.pipeline.Pipeline" in names["artifacts/pipeline.pkl"]
    assert 'io.modelrel.pickle="unknown"' in (context(packaged()) / "Dockerfile").read_text()
    assert any(note.startswith("pickle verdict: unknown") for note in packaged().notes)


def test_all_that_is_inside_is_in_the_bill_and_the_parts() -> None:
    bill = json.loads((context(packaged()) / "sbom.cdx.json").read_bytes())
    refs = [one["bom-ref"] for one in bill["components"]]
    assert len(set(refs)) == len(refs)
    names = {one["name"].lower() for one in bill["components"]}
    assert {"mlflow-skinny", "scikit-learn", "uvicorn", "numpy"} <= names
    assert {"environment/sklearn", "environment/numpy", "numpy", "serving", "model"} <= packaged().parts.keys()
    licences = (context(packaged()) / "THIRD_PARTY_LICENSES").read_text()
    assert f"scikit-learn {version('scikit-learn')}" in licences


def test_packaging_again_gives_the_same_bytes(tmp_path: Path) -> None:
    again = package(elsewhere(tmp_path / "churn-7"), "docker", PackageOptions(render_only=True))
    assert again.digest == packaged().digest


def infected(folder: Path) -> ParityReport:
    """Return the verified model with a file more, which nothing loads."""
    parity = elsewhere(folder, requirements=LIGHT)
    with zipfile.ZipFile(parity.converted.path, "a") as packed:
        packed.writestr("model/artifacts/notes.bin", pickle.dumps({"more": Evil()}))
    return parity


def test_a_pickle_that_runs_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"artifacts/notes\.bin asks for builtins\.eval") as caught:
        package(infected(tmp_path / "churn-7"), "docker", PackageOptions(render_only=True))
    assert "--set allow_pickle=yes" in caught.value.hint
    assert not (tmp_path / "churn-7/python/docker/context").exists()


def test_who_allows_it_has_that_in_the_manifest(tmp_path: Path) -> None:
    options = PackageOptions(render_only=True, values={"allow_pickle": "yes"})
    found = package(infected(tmp_path / "churn-7"), "docker", options)
    said = json.loads((context(found) / "manifest.json").read_bytes())["pickle"]
    assert (said["verdict"], said["allowed"]) == ("dangerous", True)


@pytest.mark.parametrize("value", [{"allow_pickle": "maybe"}, {"mlflow": "some"}])
def test_a_setting_that_is_none_is_an_error_of_the_command(value: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=next(iter(value))):
        package(released(), "docker", PackageOptions(render_only=True, values=value))


def test_a_requirement_without_a_wheel_is_one_sentence(tmp_path: Path) -> None:
    parity = elsewhere(tmp_path / "churn-7", requirements=("numpy", "docopt==0.6.2"))  # there only is a source archive
    with pytest.raises(Unavailable, match=r"there are no wheels for Python [^\n]*docopt[^\n]*$"):
        package(parity, "docker", PackageOptions(render_only=True))


def test_a_requirement_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    parity = elsewhere(tmp_path / "churn-7", requirements=("numpy", "-r /etc/passwd"))
    with pytest.raises(Invalid, match="requires '-r /etc/passwd'"):
        package(parity, "docker", PackageOptions(render_only=True))


def test_it_gets_the_python_that_made_it_where_the_target_has_that(tmp_path: Path) -> None:
    made = elsewhere(tmp_path / "churn-7", python_version="3.12.4")
    assert suited(made, "docker", PackageOptions()).python == "3.12"
    assert suited(made, "docker", PackageOptions(python="3.13")).python == "3.13"
    old = replace(made, converted=replace(made.converted, source=replace(made.source, python_version="3.8.1")))
    assert suited(old, "docker", PackageOptions()).python == "3.11"  # the oldest that the server runs on
    assert suited(tiny.phone(), "docker", PackageOptions()).python == ""


def source(flavor: str, folder: Path, requirements: tuple[str, ...] = (), mlflow: str = "3.10.1") -> SourceModel:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source/MLmodel").write_text("flavors:\n  sklearn:\n    sklearn_version: 1.4.2\n  python_function: {}\n")
    found = pulled(folder, flavor)
    return replace(found, requirements=requirements, mlflow_version=mlflow)


def test_a_model_of_a_library_is_served_by_mlflow_without_its_dependencies(tmp_path: Path) -> None:
    given = ("mlflow==3.10.1", "scikit-learn==1.6.1", "numpy==2.1.0 # pinned")
    found = originals.carried(source("sklearn", tmp_path, given), whole=False)
    assert set(found) == {"mlflow-skinny==3.10.1", "scikit-learn==1.6.1", "numpy==2.1.0", "pandas", "PyYAML"}
    whole = originals.carried(source("sklearn", tmp_path, given), whole=True)
    assert "mlflow==3.10.1" in whole
    assert "mlflow-skinny==3.10.1" not in whole


def test_a_python_model_keeps_what_it_named(tmp_path: Path) -> None:
    found = originals.carried(source("pyfunc", tmp_path, ("mlflow[genai]==3.10.1", "polars")), whole=False)
    assert set(found) == {"mlflow[genai]==3.10.1", "polars", "numpy", "pandas", "PyYAML"}


def test_what_its_file_is_read_with_is_added_where_it_is_not_named(tmp_path: Path) -> None:
    made = source("lightgbm", tmp_path, ("lightgbm==4.6.0", "numpy", "pandas", "PyYAML"))
    (tmp_path / "source/MLmodel").write_text("flavors:\n  lightgbm:\n    serialization_format: skops\n")
    assert set(originals.carried(made, whole=False)) - set(made.requirements) == {"skops", "mlflow-skinny==3.10.1"}
    named = replace(made, requirements=(*made.requirements, "skops==0.13.0"))
    assert "skops" not in originals.carried(named, whole=False)


def test_what_an_old_model_did_not_say_is_added(tmp_path: Path) -> None:
    found = originals.carried(source("sklearn", tmp_path, mlflow="2.9.2"), whole=False)
    assert {"scikit-learn==1.4.2", "numpy<2", "pandas<3", "mlflow-skinny==2.9.2", "setuptools<81"} <= set(found)


def test_a_tflite_copy_is_served_by_litert_in_an_image(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    made = tiny.phone()
    shutil.copytree(made.source.folder, tmp_path / "churn-7")
    parity = replace(made, converted=replace(made.converted, source=replace(made.source, folder=tmp_path / "churn-7")))
    found = package(parity, "docker", PackageOptions(render_only=True, python=HERE))
    lock = requirements((context(found) / "requirements.lock").read_text())
    assert "ai-edge-litert" in lock
    assert "onnxruntime" not in lock
    assert "pickle" not in json.loads((context(found) / "manifest.json").read_bytes())
    assert smoke(found).rows > 200


def test_its_function_answers_through_the_runtime_client(tmp_path: Path) -> None:
    found = package(elsewhere(tmp_path / "churn-7"), "lambda-image", PackageOptions(render_only=True, python=HERE))
    assert (context(found) / "environment.lock").is_file()
    assert smoke(found).rows > 200


def test_an_image_of_modelrels_own_has_the_environment_as_its_first_layer(tmp_path: Path) -> None:
    parity = elsewhere(tmp_path / "churn-7", requirements=LIGHT)
    found = package(parity, "oci", tiny.offered("oci", platform="linux/amd64"))
    assert found.image is not None
    assert [layer.name for layer in found.image.layers] == ["environment", "wheels", "serving", "model", "metadata"]
    other = elsewhere(tmp_path / "churn-8", requirements=LIGHT)
    with zipfile.ZipFile(other.converted.path, "a") as packed:
        packed.writestr("model/artifacts/more.txt", "newer")
    again = package(other, "oci", tiny.offered("oci", platform="linux/amd64"))
    assert again.image is not None
    pairs = zip(found.image.layers, again.image.layers, strict=True)
    assert [one.name for one, two in pairs if one.digest != two.digest] == ["model", "metadata"]
