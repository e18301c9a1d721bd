"""The environment of the original: models of other years are converted, and compared with the library of their time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline

from modelrel import interpreters, originals, wheels
from modelrel.errors import Invalid, ModelrelError, Unavailable
from modelrel.formats import FORMATS
from modelrel.originals import Wanted
from modelrel.steps.convert import convert, environment
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, EnvChoice, SourceModel, VerifyOptions
from tests import trained_long_ago
from tests.conftest import Run
from tests.models import logged, people, prepared

THEIRS = ("scikit-learn==1.2.2", "numpy<2", "pandas<2.1", "mlflow-skinny==2.9.2", "setuptools<81")
RAN = "original ran in Python 3.10 with scikit-learn 1.2.2"
MODELS = ("forest", "isolation", "pipeline")


@pytest.fixture(scope="session")
def uv_cache() -> str:
    return subprocess.run([wheels.uv(), "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def long_ago(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models that scikit-learn 1.2 fitted and MLflow 2.9 logged, on Python 3.10."""
    python = interpreters.find("3.10")
    if python is None:
        pytest.skip("Python 3.10 is not on this machine")
    top = tmp_path_factory.mktemp("long-ago")
    subprocess.run([wheels.uv(), "venv", "--quiet", "--python", python, top / "venv"], check=True)
    theirs = top / "venv" / "bin" / "python"
    subprocess.run([wheels.uv(), "pip", "install", "--quiet", "--python", theirs, *THEIRS], check=True)
    subprocess.run([theirs, trained_long_ago.__file__, top], check=True, capture_output=True)
    return top


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(kept: Path, uv_cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environments are made for this session; what uv downloaded before may serve."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    monkeypatch.setenv("UV_CACHE_DIR", uv_cache)


def recorded(*requirements: str, flavor: str = "sklearn", python: str = "3.10.4") -> SourceModel:
    return SourceModel(
        folder=Path("nowhere"), name="churn", version="7", uri="", registry="", flavor=flavor, flavors=(flavor,),
        signature=None, python_version=python, requirements=requirements,
    )  # fmt: skip


def lines(source: SourceModel, *tools: str) -> tuple[str, ...]:
    found = originals.wanted(source, "model", tools)
    assert found is not None
    return found.requirements


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_scikit_learn_1_2_is_verified_against_its_own_library(long_ago: Path, run: Run, name: str) -> None:
    done = run("convert", long_ago / name, "--json")
    assert done.code == 0, done.out + done.err
    assert RAN in done.json["parity"]["findings"]
    assert done.json["parity"]["rows"] >= 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_copy_of_an_old_model_answers_what_was_answered_then(long_ago: Path, run: Run, name: str) -> None:
    made = run("convert", long_ago / name, "--json").json
    copy = FORMATS["onnx"].load(Path(made["folder"], "onnx", "model.onnx"))
    asked = pd.read_csv(long_ago / f"{name}.asked.csv")
    given = {column: asked[[column]].to_numpy(object if column == "shape" else np.float64) for column in asked}
    answered = np.loadtxt(long_ago / f"{name}.answered.csv")
    found = copy(given)["scores" if name == "isolation" else "probabilities"]
    np.testing.assert_allclose(found, answered, rtol=0, atol=1e-15)


@pytest.mark.slow
def test_the_notes_and_tools_of_the_copy_are_those_of_the_old_environment(long_ago: Path, run: Run) -> None:
    converted = run("convert", long_ago / "forest", "--json").json["converted"]
    assert converted["tools"]["scikit-learn"] == "1.2.2"
    assert any(note.startswith("converted in Python 3.10 with scikit-learn 1.2.2") for note in converted["notes"])


@pytest.mark.slow
def test_the_runtime_of_the_proof_is_the_one_here(long_ago: Path, run: Run) -> None:
    parity = run("convert", long_ago / "forest", "--json").json["parity"]
    assert parity["tools"]["onnxruntime"] == version("onnxruntime")


@pytest.mark.slow
def test_an_original_answers_on_python_3_9(long_ago: Path, run: Run, tmp_path: Path) -> None:
    if interpreters.find("3.9") is None:
        pytest.skip("Python 3.9 is not on this machine")
    shutil.copytree(long_ago / "forest", tmp_path / "older")
    said = tmp_path / "older" / "MLmodel"
    said.write_text(said.read_text().replace("python_version: 3.10", "python_version: 3.9"))
    done = run("convert", tmp_path / "older", "--json")
    assert done.code == 0, done.out + done.err
    assert RAN.replace("3.10", "3.9") in done.json["parity"]["findings"]


@pytest.mark.slow
def test_an_old_model_in_the_current_environment_is_refused_with_the_way_out(long_ago: Path, run: Run) -> None:
    done = run("convert", long_ago / "forest", "--env", "current")
    assert done.code == 2
    assert "--env model" in done.err


@pytest.mark.slow
def test_an_old_model_as_it_is_runs_in_its_own_environment(long_ago: Path, run: Run) -> None:
    done = run("convert", long_ago / "forest", "--to", "python", "--json")
    assert done.code == 0, done.out + done.err
    assert RAN in done.json["parity"]["findings"]
    assert [output["max_abs_error"] for output in done.json["parity"]["outputs"]] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "python"])
def test_an_old_python_model_runs_with_the_mlflow_that_it_names(form: str, long_ago: Path, run: Run) -> None:
    # it asks mlflow to load another model, which is a pickle
    done = run("convert", long_ago / "wrapper", "--to", form, "--json", "--allow-pickle", "python_model.pkl")
    assert done.code == 0, done.out + done.err
    assert RAN in done.json["parity"]["findings"]
    named = "class Wrapper, a pyfunc wrapper around sklearn RandomForestClassifier"
    assert done.json["converted"]["estimator"] == named


def test_a_python_model_takes_an_environment_where_anything_that_it_names_is_another_version() -> None:
    here = [f"{name}=={version(name)}" for name in ("numpy", "scikit-learn")]
    assert originals.wanted(recorded(*here, flavor="pyfunc"), "auto") is None
    assert originals.wanted(recorded(*here, "nltk==3.9", flavor="pyfunc"), "auto") is not None
    asked = lines(recorded("mlflow==2.9.2", "numpy<2", flavor="pyfunc"))
    assert {"mlflow==2.9.2", "numpy<2", "setuptools<81"} <= set(asked)
    assert "mlflow" in lines(recorded("numpy<2", flavor="pyfunc"))


@pytest.mark.slow
def test_a_second_run_is_up_to_date(long_ago: Path, run: Run) -> None:
    run("convert", long_ago / "forest")
    stages = run("convert", long_ago / "forest", "--json").json["stages"]
    assert {stage["outcome"] for stage in stages} == {"up to date"}


@pytest.mark.slow
@pytest.mark.parametrize("protobuf", ["6", "7"])
def test_a_model_is_converted_and_verified_with_the_protobuf_of_its_own_environment(
    protobuf: str, tmp_path: Path
) -> None:
    frame, classes, _ = people()
    model = make_pipeline(prepared(), HistGradientBoostingClassifier(max_iter=5, random_state=0)).fit(frame, classes)
    lines = (f"scikit-learn=={version('scikit-learn')}", f"protobuf=={protobuf}.*", "cloudpickle")
    python = "{}.{}".format(*sys.version_info[:2])
    source = replace(logged(model, frame, tmp_path), requirements=lines, python_version=python)
    converted = convert(source, "onnx", ConvertOptions(env="model"))
    used = environment(source, "onnx", "model")
    assert used is not None
    assert originals.installed(used, ("protobuf",))["protobuf"].startswith(f"{protobuf}.")
    report = verify(converted, VerifyOptions(env="model"))
    assert [parity.disagreements for parity in report.outputs] == [0, 0]
    assert converted.notes[-1].startswith(f"converted in Python {python} with scikit-learn")


def small(**changes: object) -> Wanted:
    python = "{}.{}".format(*sys.version_info[:2])
    return replace(Wanted(label="churn/7", python=python, requirements=("PyYAML",)), **changes)  # type: ignore[arg-type]


def test_an_environment_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = originals.ready(small())
    monkeypatch.setenv("PATH", "")  # nothing that could make one is to be had
    monkeypatch.setattr("subprocess.run", None)
    monkeypatch.setattr("subprocess.Popen", None)
    assert originals.ready(small()) == made


def test_two_runs_at_once_make_an_environment_once() -> None:
    notes: list[str] = []
    wanted = small(requirements=("PyYAML", "six"))
    runs = [threading.Thread(target=originals.ready, args=(wanted, notes.append)) for _ in range(2)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert len(notes) == 1


def test_a_folder_that_was_not_finished_is_made_again() -> None:
    wanted = small(requirements=("PyYAML", "typing-extensions"))
    (wanted.folder / "bin").mkdir(parents=True)
    assert originals.ready(wanted).exists()


def stop(wanted: Wanted) -> ModelrelError:
    with pytest.raises(ModelrelError) as found:
        originals.ready(wanted)
    return found.value


def test_a_version_that_no_index_has_is_unavailable_and_named() -> None:
    found = stop(small(requirements=("PyYAML==99.99",)))
    assert isinstance(found, Unavailable)
    assert "99.99" in found.message
    assert "--env current" in found.hint


def test_nothing_stays_behind_where_an_environment_cannot_be_made(kept: Path) -> None:
    wanted = small(requirements=("PyYAML==99.98",))
    stop(wanted)
    assert not wanted.folder.exists()
    assert not list((kept / "modelrel" / "environments").glob(".unfinished-*"))


def test_a_python_that_is_nowhere_is_unavailable_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    found = stop(small(python="3.42"))
    assert isinstance(found, Unavailable)
    assert "Python 3.42" in found.message


@pytest.mark.parametrize(
    "line",
    [
        "--index-url http://127.0.0.1/", "-r ../../etc/passwd", "x @ file:///tmp/x", "git+https://127.0.0.1/x.git",
        "./x.whl", "x==1 --config-settings=a=b", "x==1 \\", "x==${HOME}", "-e .",
    ],
)  # fmt: skip
def test_a_requirement_that_is_more_than_a_name_and_versions_is_refused(line: str) -> None:
    assert isinstance(stop(small(requirements=(line,))), Invalid)


def test_a_package_that_has_to_be_built_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "evil-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    subprocess.run(["tar", "czf", "evil-1.0.tar.gz", "evil-1.0"], cwd=tmp_path, check=True)
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    assert isinstance(stop(small(requirements=("evil==1.0",))), Unavailable)
    assert not (tmp_path / "ran").exists()


def test_the_current_environment_serves_where_major_and_minor_are_equal() -> None:
    major, minor = version("scikit-learn").split(".")[:2]
    assert originals.wanted(recorded(f"scikit-learn=={major}.{minor}.77"), "auto") is None


def test_another_minor_version_takes_an_environment_of_its_own() -> None:
    assert originals.wanted(recorded("scikit-learn==1.2.2"), "auto") is not None


def test_a_booster_inside_a_pipeline_counts_too() -> None:
    same = f"scikit-learn=={version('scikit-learn')}"
    assert originals.wanted(recorded(same, "xgboost==1.7.6"), "auto") is not None


def test_an_old_booster_is_converted_here_and_compared_there() -> None:
    source = recorded("xgboost==1.7.6", flavor="xgboost")
    assert environment(source, "onnx", "auto") is None
    assert originals.wanted(source, "auto") is not None


def test_the_writers_go_where_a_pickle_is_converted() -> None:
    found = environment(recorded("scikit-learn==1.2.2"), "onnx", "auto")
    assert found is not None
    assert f"skl2onnx<={version('skl2onnx')}" in found.requirements


def test_current_never_takes_another_environment() -> None:
    assert originals.wanted(recorded("scikit-learn==1.2.2"), "current") is None


def test_mlflow_is_left_out() -> None:
    assert not [line for line in lines(recorded("mlflow==2.9.2", "scikit-learn==1.2.2")) if "mlflow" in line]


@pytest.mark.parametrize(("choice", "made"), [("auto", False), ("current", False), ("model", True)])
def test_the_files_of_an_older_tensorflow_need_no_environment_of_gigabytes(
    choice: EnvChoice, made: bool, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "MLmodel").write_text("flavors:\n  tensorflow: {keras_version: 2.11.0}\n")
    source = replace(recorded("tensorflow==2.11.0", "numpy==1.24"), folder=tmp_path, flavor="tensorflow")
    wanted = originals.wanted(source, choice)
    assert (wanted is not None) == made
    assert wanted is None or "tensorflow==2.11.0" in wanted.requirements


def test_an_old_library_is_kept_from_a_newer_numpy_than_it_knows() -> None:
    assert "numpy<2" in lines(recorded("scikit-learn==1.2.2"))


def test_a_recorded_numpy_stands() -> None:
    assert [line for line in lines(recorded("scikit-learn==1.2.2", "numpy==1.24.4")) if "numpy" in line] == [
        "numpy==1.24.4"
    ]


def test_an_older_python_than_ours_runs_on_is_replaced_by_the_oldest_that_does() -> None:
    found = originals.wanted(recorded("scikit-learn==1.0.2", python="3.7.9"), "auto")
    assert found is not None
    assert found.python == "3.9"


def test_a_choice_that_does_not_exist_is_invalid(run: Run) -> None:
    done = run("convert", os.curdir, "--env", "venv")
    assert done.code == 2
    assert "'venv'" in done.err
