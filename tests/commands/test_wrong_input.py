"""Wrong input, each with its exit code, one sentence and a hint; never a traceback, never half a file."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done, Run, free_port


def is_refused(done: Done, code: int, said: str) -> None:
    """Check the promise: this code, one sentence, a hint, no traceback, nothing half-written."""
    assert done.code == code, done.out + done.err
    error = done.json["error"]
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert error["hint"]
    assert "Traceback" not in done.err
    assert not list(Path().rglob(".unfinished-*"))


@pytest.fixture
def saved(run: Run, sqlite_registry: str) -> Callable[[str], Path]:
    """Return a function that gives a copy of a registered model as a plain folder."""

    def copy(name: str) -> Path:
        assert run("pull", name, "--registry", sqlite_registry, "--dist", "pulled").code == 0
        top = Path("model")
        shutil.copytree(Path("pulled") / name.replace("/", "-") / "source", top)
        shutil.rmtree("pulled")
        return top

    return copy


@pytest.mark.parametrize("model", ["nobody/1", "flowers/9", "flowers@nobody", "models:/flowers/Staging"])
def test_an_unknown_model_version_alias_or_stage(run: Run, sqlite_registry: str, model: str) -> None:
    is_refused(run("release", model, "-t", "lambda", "--registry", sqlite_registry, "--json"), 2, "no ")
    assert not Path("dist").exists()


@pytest.mark.parametrize("command", ["pull", "convert", "inspect"])
def test_a_registry_that_is_down(run: Run, command: str) -> None:
    done = run(command, "flowers/1", "--registry", f"http://127.0.0.1:{free_port()}", "--json")
    is_refused(done, 3, "does not answer")
    assert not Path("dist").exists()


def test_a_folder_without_mlmodel(run: Run) -> None:
    Path("empty").mkdir()
    is_refused(run("convert", "./empty", "--json"), 2, "no MLmodel file")


def test_a_corrupt_mlmodel(run: Run) -> None:
    Path("broken").mkdir()
    Path("broken/MLmodel").write_text("flavors: [")
    is_refused(run("convert", "./broken", "--json"), 2, "not valid YAML")
    assert not Path("dist").exists()


def test_a_truncated_model_file(run: Run, saved: Callable[[str], Path]) -> None:
    top = saved("digits/1")
    file = top / "model.ubj"
    file.write_bytes(file.read_bytes()[:1000])
    is_refused(run("convert", top, "--json"), 2, "cannot be loaded")


def pickled(top: Path, code: str, name: str = "clf") -> Path:
    """Write a scikit-learn model folder in MLflow's pickle format; `code` makes the estimator."""
    script = f"""
import sys, warnings; warnings.filterwarnings("ignore")
import mlflow.sklearn, numpy as np
from mlflow.models import infer_signature
rng = np.random.default_rng(0); X = rng.normal(size=(60, 3)); y = (X[:, 0] > 0).astype(int)
{code}
mlflow.sklearn.save_model({name}, {str(top)!r}, serialization_format="cloudpickle",
                          signature=infer_signature(X, y), input_example=X[:3])
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return top


def test_a_truncated_pickle(run: Run, tmp_path: Path) -> None:
    top = pickled(tmp_path / "m", "from sklearn.linear_model import LogisticRegression as L; clf = L().fit(X, y)")
    file = next(top.glob("*.pkl"))
    file.write_bytes(file.read_bytes()[:-200])
    is_refused(run("convert", top, "--json"), 4, "cannot be read to its end")
    is_refused(run("convert", top, "--json", "--allow-pickle", file.name), 2, "cannot be loaded")


def test_a_model_whose_library_is_not_installed(run: Run, tmp_path: Path) -> None:
    package = tmp_path / "elsewhere" / "rarelib.py"
    package.parent.mkdir()
    package.write_text("from sklearn.linear_model import LogisticRegression\nclass Rare(LogisticRegression): pass\n")
    top = pickled(
        tmp_path / "m", f"sys.path.insert(0, {str(package.parent)!r}); import rarelib; clf = rarelib.Rare().fit(X, y)"
    )
    is_refused(run("convert", top, "--json"), 4, "asks for rarelib.Rare")
    is_refused(run("convert", top, "--json", "--allow-pickle", "rarelib.Rare"), 3, "rarelib")


def test_an_estimator_without_a_converter(run: Run, tmp_path: Path) -> None:
    top = pickled(
        tmp_path / "m",
        "from sklearn.gaussian_process import GaussianProcessClassifier as G; from sklearn.pipeline import Pipeline;"
        "from sklearn.preprocessing import StandardScaler as S; clf = Pipeline([('s', S()), ('g', G())]).fit(X, y)",
    )
    is_refused(run("convert", top, "--json"), 4, "GaussianProcessClassifier")


def test_a_model_without_a_signature(run: Run, saved: Callable[[str], Path]) -> None:
    top = saved("digits/1")
    text = (top / "MLmodel").read_text()
    (top / "MLmodel").write_text(text.partition("signature:")[0])
    is_refused(run("convert", top, "--json"), 4, "signature")


def test_a_full_disk(run: Run, sqlite_registry: str) -> None:
    if os.getuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("mounting needs root: not on this platform")
    Path("small").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "small"], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted: not on this platform")
    try:
        done = run("pull", "digits/1", "--registry", sqlite_registry, "--dist", "small/dist", "--json")
        is_refused(done, 3, "full")
        assert not list(Path("small").rglob("*.json"))
    finally:
        subprocess.run(["umount", "small"], check=True)


def test_a_folder_that_cannot_be_written(run: Run, sqlite_registry: str) -> None:
    Path("file").write_text("not a folder")
    done = run("pull", "digits/1", "--registry", sqlite_registry, "--dist", "file/dist", "--json")
    is_refused(done, 3, "file")


def test_a_port_in_use(run: Run, sqlite_registry: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "digits/1", "--registry", sqlite_registry, "--port", port, "--json")
        is_refused(done, 3, str(port))


def test_an_unknown_target(run: Run, sqlite_registry: str) -> None:
    done = run("package", "digits/1", "--target", "dokcer", "--registry", sqlite_registry, "--json")
    is_refused(done, 2, "no target 'dokcer'")
    assert "Did you mean docker?" in done.json["error"]["hint"]


def test_a_template_with_an_undefined_variable(run: Run, sqlite_registry: str) -> None:
    Path("mine/docker").mkdir(parents=True)
    Path("mine/docker/Dockerfile.j2").write_text("FROM scratch\nLABEL x={{ nothing_of_this_name }}\n")
    done = run(
        "package", "digits/1", "--target", "docker", "--render-only", "--templates", "mine",
        "--registry", sqlite_registry, "--json",
    )  # fmt: skip
    is_refused(done, 2, "nothing_of_this_name")
    assert not Path("dist/digits-1/onnx/docker/context").exists()


@pytest.mark.parametrize("alias", ["latest", "v7", "a b", "ä", "x" * 300, "a/b"])
def test_an_alias_that_mlflow_refuses(run: Run, sqlite_registry: str, alias: str) -> None:
    is_refused(run("promote", "digits/1", "--to", alias, "--registry", sqlite_registry, "--json"), 2, "alias")


def test_a_stage_that_does_not_exist(run: Run, sqlite_registry: str) -> None:
    done = run("promote", "digits/1", "--stage", "Live", "--registry", sqlite_registry, "--json")
    is_refused(done, 2, "'Live' is not a stage")


def test_a_promotion_without_evidence(run: Run, sqlite_registry: str) -> None:
    done = run("promote", "digits/1", "--to", "champion", "--registry", sqlite_registry, "--json")
    is_refused(done, 4, "no evidence")


def test_a_data_file_that_does_not_exist(run: Run, sqlite_registry: str) -> None:
    done = run("verify", "digits/1", "--data", "none.csv", "--registry", sqlite_registry, "--json")
    is_refused(done, 2, "none.csv does not exist")


SEVERAL = ("package", "nobody/1", "-t", "oci", "-t", "kserve", "-t", "sagemaker", "--json")


def test_a_setting_goes_to_the_targets_that_know_it(run: Run) -> None:
    done = run(*SEVERAL, "--set", "namespace=models", "--set", "allow_pickle=no")
    is_refused(done, 3, "")  # it is the registry that is not there: all settings found their targets
    assert "namespace" not in done.out


def test_a_setting_that_no_target_knows_names_the_nearest(run: Run) -> None:
    done = run(*SEVERAL, "--set", "namespce=models")
    is_refused(done, 2, "namespce=models")
    assert "Did you mean namespace?" in done.json["error"]["hint"]


def test_a_wrong_value_names_setting_and_target(run: Run) -> None:
    is_refused(run(*SEVERAL, "--set", "role=boss"), 2, "role of sagemaker")


def test_an_option_that_no_target_takes_says_whose_it_is(run: Run) -> None:
    done = run("package", "nobody/1", "-t", "npm", "--base-image", "python:3.13-slim", "--json")
    is_refused(done, 2, "--base-image is not for npm")
    assert "docker" in done.json["error"]["hint"]


def test_two_targets_are_not_pushed_under_one_name(run: Run) -> None:
    words = ("release", "nobody/1", "-t", "oci", "-t", "modelpack", "--push", "localhost:5000/churn:7", "--json")
    is_refused(run(*words), 2, "oci and modelpack would both be pushed as localhost:5000/churn:7")
