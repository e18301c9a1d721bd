"""Several TFLite copies of a model in one package: each converted, verified, weighed and run by itself."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from modelrel.targets.tflite import micro, packed
from tests.conftest import Run
from tests.models import logged
from tests.serving.clients import _made, run_client

MICRO = """
import json, sys
import numpy as np
from tflite_micro import runtime
model = runtime.Interpreter.from_bytes(open(sys.argv[1], "rb").read(), arena_size=1_000_000)
sides = model.get_input_details(0), model.get_output_details(0)
(scale, zero), (out_scale, out_zero) = [
    [side["quantization_parameters"][key][0] if side["dtype"] == np.int8 else None for key in ("scales", "zero_points")]
    for side in sides
]
found = []
for row in json.load(open(sys.argv[2]))["inputs"]["input"]:
    given = np.array([row], np.float32)
    if scale:
        given = np.clip(np.rint(given / scale) + zero, -128, 127).astype(np.int8)
    model.set_input(given, 0)
    model.invoke()
    answer = model.get_output(0)[0].astype(float)
    found.append(((answer - out_zero) * out_scale if out_scale else answer).tolist())
print(json.dumps(found))
"""
DIGITS, DIGIT = load_digits(return_X_y=True)
KNOWN = 1200


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a logged model in `source`, and `rows.csv` with digits that are new to it."""
    top = tmp_path_factory.mktemp("digits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((64,), max_iter=60, random_state=0).fit(DIGITS[:KNOWN] / 16, DIGIT[:KNOWN])
    logged(model, DIGITS / 16, top)
    pd.DataFrame(DIGITS[KNOWN:] / 16).to_csv(top / "rows.csv", index=False)
    return top


def words(folder: Path, variants: str) -> list[Any]:
    named = ("--target", "tflite", "--set", f"variants={variants}")
    options = ("--micro", "--data", folder / "rows.csv", "--dist", folder / "dist", "--json")
    return ["release", folder / "source", *named, *options]


def test_each_copy_has_its_own_proof_size_and_smoke_test(run: Run, once: Path) -> None:
    done = run(*words(once, "float32,float16,int8"))
    assert done.code == 0, done.err
    (made,) = (once / "dist").glob("*/tflite/tflite")
    record = json.loads((made / "Package.json").read_text())["value"]
    assert record["parts"].keys() == {"model", "float16", "int8", "C source"}
    assert record["parts"]["int8"] < 0.5 * record["parts"]["model"]
    for name in ("float16", "int8"):
        proof = json.loads((made.parent / "variants" / name / "ParityReport.json").read_text())["value"]
        assert proof["loss"]["mode"] == name
        assert json.loads((made / name / "modelrel.json").read_text())["metadata"]["quantize"] == name
    seen = {one["name"] for one in json.loads((made / "SmokeReport.json").read_text())["value"]["checks"]}
    assert seen >= {
        "graph of float32",
        "graph of float16",
        "variant float16",
        "graph of int8",
        "variant int8",
        "C array",
    }
    text = (made / "README.md").read_text(encoding="utf-8")
    assert "| `model.tflite` | float32 |" in text
    assert "| `int8/model.tflite` | int8 |" in text
    assert "of the labels agree" in text
    again = run(*words(once, "float32,float16,int8")).json
    assert {one["outcome"] for one in again["stages"]} == {"up to date"}


def test_the_runtime_of_microcontrollers_gives_the_golden_rows(run: Run, once: Path, tmp_path: Path) -> None:
    assert run(*words(once, "float32,float16,int8")).code == 0
    (made,) = (once / "dist").glob("*/tflite/tflite")
    python = _made("tflite-micro==0.dev20261023182759", "numpy")
    for name in (".", "int8"):
        array = tmp_path / "array"
        array.write_bytes(packed.slim((made / name / "model.tflite").read_bytes()))
        golden = json.loads((made / name / "golden.json").read_text())
        found = run_client(python, MICRO, array, made / name / "golden.json")
        # a whole number may be the next one where other code adds
        step = 0.0 if name == "." else 1 / 256
        np.testing.assert_allclose(found, golden["outputs"]["probabilities"], atol=1e-5 + step)
    assert micro.array(made) == packed.slim((made / "model.tflite").read_bytes())


def test_a_copy_that_is_not_the_one_that_was_verified_is_refused(run: Run, once: Path, tmp_path: Path) -> None:
    assert run(*words(once, "float32,float16,int8")).code == 0
    folder = Path(shutil.copytree(once, tmp_path / "other"))
    (proof,) = folder.glob("dist/*/tflite/variants/int8/ParityReport.json")
    proof.write_text(proof.read_text().replace('"agreement": ', '"agreement": 0'))
    done = run("smoke", *words(folder, "int8")[1:4], "--dist", folder / "dist", "--json")
    assert done.code == 4
    assert "variants/int8/ParityReport.json is not about the bytes" in done.json["error"]["message"]


def test_a_copy_beyond_its_budget_stops_the_package_and_is_named(run: Run, once: Path) -> None:
    done = run(*words(once, "dynamic"), "--mean-error", "0.00001")
    assert done.code == 4
    assert done.json["error"]["message"].startswith("the variant dynamic: the dynamic tflite copy of ")


def test_a_variant_that_there_is_none_of_is_an_error_of_the_command(run: Run, once: Path) -> None:
    done = run(*words(once, "float61"))
    assert done.code == 2
    assert "there is no variant 'float61'" in done.json["error"]["message"]
    assert "float16" in done.json["error"]["hint"]
