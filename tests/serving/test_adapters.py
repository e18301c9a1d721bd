"""Adapters: what stands between the served inputs and the graph's."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from modelrel.serving import BrokenModel, adapters, load_model
from tests.serving.conftest import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEP = {"kind": "image", "takes": ["photo"], "gives": ["input"], "size": [4, 6], "mode": "RGB", "resize": "nearest"}
GIVES = [{"name": "input", "datatype": "FP32", "shape": [-1, 4, 6, 3]}]


def adapter(folder: Path, **changes: Any) -> Path:
    path = folder / adapters.FILE
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "steps": [STEP | changes], "gives": GIVES}))
    return path


def encoded(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return base64.b64encode(stream.getvalue()).decode()


def photo(seed: int = 0, size: tuple[int, int] = (4, 6)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def folder(top: Path, **changes: Any) -> Path:
    """A model that gives the mean over the pixels of each image, and takes images."""
    adapter(top, **changes)
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[1, 2, 3])
    mean = helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0)
    write_folder(
        top,
        [axes, mean],
        [("input", "FP32", [-1, 4, 6, 3])],
        [("mean", "FP32", [-1])],
        predict="mean",
        adapter=adapters.FILE,
    )
    manifest = json.loads((top / "modelrel.json").read_text())
    manifest["inputs"] = [{"name": "photo", "datatype": "BYTES", "shape": [-1]}]
    (top / "modelrel.json").write_text(json.dumps(manifest | {"golden": None}))
    return top


def test_an_image_becomes_its_pixels(tmp_path: Path) -> None:
    run = adapters.load(adapter(tmp_path, scale=1 / 255, offset=[0.0, 1.0, 2.0]))
    found = run({"photo": np.array([encoded(photo(seed)) for seed in range(3)], object)})
    expected = np.stack([photo(seed) for seed in range(3)]).astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(found["input"], expected + np.array([0, 1, 2], np.float32))
    assert found["input"].dtype == np.float32


def test_an_image_is_resized_as_pillow_does_it(tmp_path: Path) -> None:
    run = adapters.load(adapter(tmp_path, resize="bilinear", layout="NCHW"))
    large = photo(1, (50, 40))
    found = run({"photo": np.array([encoded(large)], object)})["input"]
    expected = np.asarray(Image.fromarray(large).resize((6, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1)[None].astype(np.float32))


@pytest.mark.parametrize("item", ["", "not base64!", base64.b64encode(b"no image").decode(), None, 7])
def test_what_is_no_image_is_refused(tmp_path: Path, item: object) -> None:
    run = adapters.load(adapter(tmp_path))
    items = np.empty(2, object)
    items[:] = [encoded(photo()), item]
    with pytest.raises(adapters.BadInput, match="row 1"):
        run({"photo": items})


def test_an_image_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(stream, "PNG")
    run = adapters.load(adapter(tmp_path))
    with pytest.raises(adapters.BadInput, match=r"pixels|exceeds limit"):
        run({"photo": np.array([base64.b64encode(stream.getvalue()).decode()], object)})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema": 2}',
        b'{"schema": 1, "steps": 3, "gives": []}',
        b'{"schema": 1, "steps": [{"kind": "no"}], "gives": []}',
        b'{"schema": 1, "gives": [], "steps": [{"kind": "image", "takes": ["a"], "gives": ["b"], "size": [0, 1]}]}',
        json.dumps({"schema": 1, "gives": [], "steps": [STEP | {"size": [0, 1]}]}).encode(),
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_no_adapter_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / adapters.FILE
    path.write_bytes(content)
    with pytest.raises(adapters.BrokenAdapter, match="adapter"):
        adapters.load(path)


def test_a_model_with_an_adapter_is_served(tmp_path: Path) -> None:
    model = load_model(folder(tmp_path))
    pictures = [photo(seed) for seed in range(2)]
    items = np.array([encoded(one) for one in pictures], object)
    found = model.predict({"photo": items})["mean"]
    np.testing.assert_allclose(found, [one.mean() for one in pictures], rtol=1e-6)


def test_a_bad_image_is_the_clients_fault(tmp_path: Path, ask: Callable[..., Any]) -> None:
    model = load_model(folder(tmp_path))
    body = {"inputs": [{"name": "photo", "shape": [1], "datatype": "BYTES", "data": ["no image"]}]}
    reply = ask(model, "POST", "/v2/models/churn/infer", body)
    assert reply.status == 400
    assert "row 0" in reply.json["error"]


def test_an_adapter_that_does_not_fit_the_graph_is_broken(tmp_path: Path) -> None:
    top = folder(tmp_path)
    said = json.loads((top / adapters.FILE).read_text())
    said["gives"][0]["datatype"] = "UINT8"
    (top / adapters.FILE).write_text(json.dumps(said))
    with pytest.raises(BrokenModel, match="the adapter says UINT8"):
        load_model(top)


def test_an_adapter_says_what_it_requires(tmp_path: Path) -> None:
    assert adapters.requires(adapter(tmp_path)) == ("pillow",)
