"""The served interface: outputs renamed and left out, fields passed through; the copy behind it stays what it is."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelrel.serving import answer, load_model
from tests.conftest import Run
from tests.models import logged

SERVED = '[interface]\noutputs = ["score=probabilities", "class=label"]\npass_through = ["id", "row:INT64"]\n'


def configured(text: str) -> None:
    Path("modelrel.toml").write_text(text)


def converted(run: Run, registry: str) -> Path:
    done = run("convert", "flowers@candidate", "--registry", registry, "--json")
    assert done.code == 0, done.err
    return Path(done.json["converted"]["file"]["path"]) and Path(done.json["folder"], "onnx")


def asked(folder: Path, path: str, body: Any) -> Any:
    model = load_model(folder)
    raw = json.dumps(body).encode()
    reply = answer(model, "POST", path.format(model.name), {"content-type": "application/json"}, raw)
    return reply.status, json.loads(reply.body)


def test_outputs_have_their_new_names_and_fields_come_back(run: Run, own_registry: str) -> None:
    configured(SERVED)
    folder = converted(run, own_registry)
    manifest = json.loads((folder / "modelrel.json").read_text())
    assert [spec["name"] for spec in manifest["outputs"]] == ["score", "class", "id", "row"]
    golden = json.loads((folder / "golden.json").read_text())
    rows = len(golden["inputs"]["id"])
    inputs = [
        {"name": spec["name"], "datatype": spec["datatype"], "shape": np.shape(golden["inputs"][spec["name"]]),
         "data": golden["inputs"][spec["name"]]}
        for spec in manifest["inputs"]
    ]  # fmt: skip
    inputs[-2]["data"] = [f"é {row}" for row in range(rows)]
    inputs[-2]["shape"] = [rows]
    status, said = asked(folder, "/v2/models/{}/infer", {"inputs": inputs})
    assert status == 200, said
    found = {one["name"]: one["data"] for one in said["outputs"]}
    assert list(found) == ["score", "class", "id", "row"]
    assert found["id"] == [f"é {row}" for row in range(rows)]
    assert found["row"] == np.ravel(golden["inputs"]["row"]).tolist()
    np.testing.assert_allclose(found["score"], np.ravel(golden["outputs"]["score"]))
    assert found["class"] == golden["outputs"]["class"]


def test_an_output_that_is_not_served_is_not_given(run: Run, own_registry: str) -> None:
    configured('[interface]\noutputs = ["probabilities"]\n')
    folder = converted(run, own_registry)
    golden = json.loads((folder / "golden.json").read_text())
    assert list(golden["outputs"]) == ["probabilities"]
    frame = {"columns": list(golden["inputs"]), "data": np.column_stack(list(golden["inputs"].values())).tolist()}
    status, said = asked(folder, "/invocations", {"dataframe_split": frame})
    assert status == 200, said
    np.testing.assert_allclose(said["predictions"], golden["outputs"]["probabilities"])


@pytest.mark.lambda_runtime
def test_a_package_with_another_interface_is_smoked(run: Run, own_registry: str) -> None:
    configured(SERVED)
    done = run("release", "flowers@candidate", "--target", "lambda", "--registry", own_registry, "--json")
    assert done.code == 0, done.err


def test_another_interface_is_another_copy(run: Run, own_registry: str) -> None:
    folder = converted(run, own_registry)
    before = (folder / "model.onnx").read_bytes()
    configured(SERVED)
    converted(run, own_registry)
    assert (folder / "model.onnx").read_bytes() == before
    assert "interface" in json.loads((folder / "modelrel.json").read_text())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('outputs = ["x=probability"]', "no output 'probability'"),
        ('outputs = ["x=label", "x=probabilities"]', "named twice"),
        ('pass_through = ["label"]', "cannot be passed through"),
        ('pass_through = ["id:TEXT"]', "as 'TEXT'"),
        ('image = "photo"', "no input 'photo'"),
    ],
)
def test_an_interface_that_does_not_fit_is_refused(text: str, said: str, run: Run, own_registry: str) -> None:
    configured(f"[interface]\n{text}\n")
    done = run("convert", "flowers@candidate", "--registry", own_registry)
    assert done.code == 2, done.err
    assert said in done.err.replace("\n", " ")


IMAGES = """
[verify]
rows = 200
budget = 1
[interface]
image = "input"
scale = "1/127.5"
offset = "-1"
outputs = ["shares=prediction"]
"""


def test_a_network_takes_encoded_images(run: Run, tmp_path: Path) -> None:
    import keras
    from PIL import Image

    model = keras.Sequential([keras.Input((12, 16, 3), name="input"), keras.layers.Flatten(), keras.layers.Dense(2)])
    data = np.random.default_rng(0).random((6, 12, 16, 3)).astype(np.float32)
    logged(model, data, tmp_path / "made", flavor="tensorflow")
    configured(IMAGES)
    done = run("convert", str(tmp_path / "made" / "source"), "--json")
    assert done.code == 0, done.err
    assert done.json["parity"]["sources"]["images"] == 32
    folder = Path(done.json["folder"], "onnx")
    picture = np.random.default_rng(1).integers(0, 256, (30, 50, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    sent = base64.b64encode(stream.getvalue()).decode()
    status, said = asked(folder, "/invocations", {"inputs": {"input": [sent]}})
    assert status == 200, said
    small = np.asarray(Image.fromarray(picture).resize((16, 12), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    np.testing.assert_allclose(said["predictions"], model.predict(small[None], verbose=0), rtol=1e-4, atol=1e-5)
    status, said = asked(folder, "/invocations", {"inputs": {"input": ["no image"]}})
    assert status == 400, said
