"""Networks load as MLflow logged them, and answer as its pyfunc does."""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from modelrel import modules, originals
from modelrel.errors import Invalid, Refused
from modelrel.flavors import FLAVORS
from modelrel.probes import rows
from modelrel.values import Signature, SourceModel, TensorSpec
from tests.formats import modules as nets
from tests.formats import pipelines
from tests.models import pulled

ROWS = np.random.default_rng(0).normal(0, 1, (5, 4)).astype(np.float32)


def saved(native: Any, data: Any, folder: Path, **options: Any) -> SourceModel:
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signature = mlflow.models.infer_signature(data)
        mlflow.pytorch.save_model(
            native, folder / "source", signature=signature, input_example=data, pip_requirements=["torch"], **options
        )
    return pulled(folder, "pytorch")


@pytest.mark.parametrize("form", ["pickle", "torchscript", "pt2", "columns"])
def test_a_logged_module_answers_as_mlflow_does(form: str, tmp_path: Path) -> None:
    import mlflow

    native: Any = nets.seeded(nets.perceptron)
    data: Any = ROWS
    if form == "torchscript":
        native = torch.jit.script(native)
    if form == "columns":
        data = pd.DataFrame(ROWS.astype(np.float64), columns=list("abcd"))
    source = saved(native, data, tmp_path, serialization_format="pt2" if form == "pt2" else "pickle")
    flavor, example = FLAVORS["pytorch"], rows.example(source)
    assert example is not None
    assert source.signature is not None
    found = flavor.predict(flavor.load(source.model_dir), example, source.signature)
    expected = mlflow.pyfunc.load_model(str(source.model_dir)).predict(data)
    assert list(found) == [modules.PREDICTION]
    # the same sums: TorchScript fuses after some runs, and a frame's columns lie otherwise in memory
    np.testing.assert_allclose(found[modules.PREDICTION], np.asarray(expected), rtol=1e-6)


def test_a_pipeline_answers_as_mlflow_does(tmp_path: Path) -> None:
    import mlflow

    source = pipelines.logged(tmp_path, {"truncation": True})
    flavor, example = FLAVORS["transformers"], rows.example(source)
    assert example is not None
    assert source.signature is not None
    found = flavor.predict(flavor.load(source.model_dir), example, source.signature)
    expected = mlflow.pyfunc.load_model(str(source.model_dir)).predict(list(pipelines.SENTENCES))
    assert found["label"].tolist() == expected["label"].tolist()
    assert found["probabilities"].max(axis=1).tolist() == pytest.approx(expected["score"].tolist(), abs=1e-7)


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("name", ["model.pth", "model.pt2"])
def test_a_truncated_file_is_invalid(name: str, size: int, tmp_path: Path) -> None:
    form = "pt2" if name.endswith("pt2") else "pickle"
    source = saved(nets.seeded(nets.perceptron), ROWS, tmp_path, serialization_format=form)
    path = source.model_dir / "data" / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Invalid, match=name):
        FLAVORS["pytorch"].load(source.model_dir)


def test_truncated_weights_of_a_pipeline_are_invalid(tmp_path: Path) -> None:
    source = pipelines.logged(tmp_path)
    path = source.model_dir / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Invalid, match="cannot be loaded"):
        FLAVORS["transformers"].load(source.model_dir)


def test_weights_without_their_module_are_refused(tmp_path: Path) -> None:
    source = saved(nets.seeded(nets.perceptron), ROWS, tmp_path, serialization_format="pickle")
    torch.save(nets.perceptron().state_dict(), source.model_dir / "data" / "model.pth")
    with pytest.raises(Refused, match=r"model.pth holds a OrderedDict, which is no torch.nn.Module"):
        FLAVORS["pytorch"].load(source.model_dir)


def test_an_answer_that_is_not_one_row_for_each_is_refused() -> None:
    signature = Signature(kind="tensor", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),))
    with pytest.raises(Refused, match=r"prediction has the shape \[4\] for 5 rows"):
        modules.answered(lambda x: x.mean(0), [ROWS], signature)
    with pytest.raises(Refused, match="answers a str"):
        modules.answered(lambda x: "words", [ROWS], signature)


def test_another_version_of_pytorch_gets_no_environment_of_gigabytes_unless_it_is_asked_for(tmp_path: Path) -> None:
    source = saved(nets.seeded(nets.perceptron), ROWS, tmp_path)
    old = dataclasses.replace(source, requirements=("torch==1.13.1", "scikit-learn==1.2.2"))
    assert originals.wanted(old, "auto") is None
    assert originals.differing(originals.versions(old))["torch"] == "1.13.1"
    asked = originals.wanted(old, "model")
    assert asked is not None
    assert "torch==1.13.1" in asked.requirements


def test_the_flavors_are_listed_without_importing_what_they_need() -> None:
    import subprocess

    code = "import sys, modelrel.flavors, modelrel.formats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
