"""PyTorch's and ONNX's convolutions -> TFLite: equal in LiteRT for any number of rows, gaps and infinities included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from modelrel.errors import Refused
from modelrel.flavors.onnx import Graph
from modelrel.formats import FORMATS, Order
from modelrel.values import Answers, Quantize, Signature, TensorSpec
from tests.formats import modules as nets
from tests.formats.test_onnx_torch import converted, equal

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.normal(0, 1, (5, 4, 9, 8)).astype(np.float32)
LINES = RANDOM.normal(0, 1, (5, 4, 11)).astype(np.float32)

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "steps and a pad": nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), bias=False),
    "gaps": nn.Conv2d(4, 6, 3, dilation=2, padding=2),
    "gaps and steps": nn.Conv2d(4, 6, 3, dilation=2, padding=2, stride=2),
    "same": nn.Conv2d(4, 6, 3, padding="same"),
    "groups": nn.Conv2d(4, 6, 3, groups=2),
    "each channel": nn.Conv2d(4, 8, 3, groups=4, padding=1),
    "each channel, other steps": nn.Conv2d(4, 4, 3, groups=4, stride=(2, 1)),
    "each channel, gaps": nn.Conv2d(4, 4, 3, groups=4, dilation=2),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed groups": nn.ConvTranspose2d(4, 6, 2, stride=(2, 3), groups=2, bias=False),
    "transposed, cut": nn.ConvTranspose2d(4, 2, 2, padding=1, dilation=1),
    "transposed, gaps": nn.ConvTranspose2d(4, 2, 3, dilation=2),
}
POOLS = {
    "max": nn.MaxPool2d(2),
    "max with a pad": nn.MaxPool2d(3, stride=2, padding=1),
    "max, up": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "average": nn.AvgPool2d(2),
    "average with a pad": nn.AvgPool2d(3, stride=2, padding=1),
    "average of places": nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "average, up": nn.AvgPool2d(2, stride=2, ceil_mode=True),
    "global average": nn.AdaptiveAvgPool2d(1),
}
OTHERS = {
    "zeros": nn.ConstantPad2d((1, 2, 0, 3), 0.5),
    "reflected": nn.ReflectionPad2d((1, 2, 3, 0)),
    "repeated": nn.ReplicationPad2d((1, 2, 3, 0)),
    "cut": nn.ConstantPad2d((-1, 2, 0, -2), 0.0),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest by 1.7": nn.Upsample(scale_factor=1.7),
    "linear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "linear, corners": nn.Upsample(size=(13, 5), mode="bilinear", align_corners=True),
    "instance": nn.InstanceNorm2d(4, affine=True),
    "groups": nn.GroupNorm(2, 4),
    "clip": nn.Hardtanh(-0.3, 0.4),
    "dropout": nn.Dropout2d(0.5),
    "batch": nn.BatchNorm2d(4),
}
ON_LINES = {
    "plain": nn.Conv1d(4, 6, 3, stride=2, padding=1),
    "each channel": nn.Conv1d(4, 8, 3, groups=4, stride=2),
    "max": nn.MaxPool1d(3, stride=2, padding=1),
    "average": nn.AvgPool1d(2),
    "transposed": nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1),
    "nearest": nn.Upsample(scale_factor=2),
}


class Beside(nn.Module):
    """Several layers on one input, an output for each."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts.values())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part(x) for part in self.parts)


@pytest.mark.parametrize(
    ("parts", "rows"), [(CONVOLUTIONS, IMAGES), (POOLS, IMAGES), (OTHERS, IMAGES), (ON_LINES, LINES)]
)
def test_each_layer_is_equal_for_any_number_of_rows_with_gaps_and_infinities(
    parts: dict[str, nn.Module], rows: Any, tmp_path: Path
) -> None:
    net = Beside(parts).eval()
    copy, original, _ = converted(net, rows, tmp_path, to="tflite")
    for size in (1, 2, 33):
        asked = rows[np.arange(size) % 5].copy()
        for value in (None, np.nan, np.inf, -np.inf):
            if value is not None:
                asked[0, 1, 3:5, ...] = value
            wanted, found = original({"input": asked}), copy({"input": asked})
            for name, title in zip(wanted, parts, strict=True):
                if title == "linear, corners" and value in (np.inf, -np.inf):
                    continue  # a place that is hit but for rounding: its neighbour's share of infinity is all or none
                said = f"{title}, {size} rows, {value}"
                np.testing.assert_allclose(found[name], wanted[name], rtol=2e-5, atol=2e-6, err_msg=said)


def test_a_net_with_batch_normalisation_and_a_residual_connection_is_equal(tmp_path: Path) -> None:
    equal(nets.residual(IMAGES), IMAGES, tmp_path, to="tflite", sizes=(1, 2, 33, 5000))


@pytest.mark.parametrize("mode", ["int8", "dynamic", "float16"])
def test_a_smaller_copy_of_convolutions_keeps_near_to_the_original(mode: Quantize, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(4, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 64, 3, groups=2), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1),
    )  # fmt: skip
    rows = RANDOM.normal(0, 1, (60, 4, 9, 8)).astype(np.float32)
    net(torch.from_numpy(rows))
    copy, original, said = converted(net.eval(), rows, tmp_path, to="tflite", quantize=mode)
    assert (tmp_path / "model.tflite").stat().st_size < 0.7 * said["exact_size"]
    off = np.abs(copy({"input": rows})["prediction"] - original({"input": rows})["prediction"])
    assert off.max() < {"int8": 0.05, "dynamic": 0.02, "float16": 0.002}[mode]


def made(name: str, *inputs: str, **said: Any) -> onnx.NodeProto:
    return helper.make_node(name, inputs, ["prediction"], **said)


def by_onnx(node: onnx.NodeProto, shape: tuple[int, ...], folder: Path, **constants: Any) -> None:
    """Compare one operator of the ONNX flavor with onnxruntime, in batches of 1 and 7."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, *shape])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rows = RANDOM.normal(0, 1, (7, *shape)).astype(np.float32)
    wanted = session.run(None, {"input": rows})[0]
    order = Order(
        flavor="onnx",
        signature=Signature(kind="tensor", inputs=(TensorSpec(name="input", datatype="FP32", shape=(-1, *shape)),)),
        answers=Answers(outputs=("prediction",), predict="prediction", estimator="ONNX model"),
        rows={"input": rows},
        shapes={"prediction": TensorSpec(name="prediction", datatype="FP32", shape=(-1, *wanted.shape[1:]))},
    )
    FORMATS["tflite"].convert(Graph(model, session), order, folder / "model.tflite")
    predict = FORMATS["tflite"].load(folder / "model.tflite")
    for count in (1, 7):
        found = predict({"input": rows[:count]})["prediction"]
        np.testing.assert_allclose(found, wanted[:count], rtol=2e-5, atol=2e-6)


WEIGHTS = RANDOM.normal(0, 1, (6, 4, 3, 2)).astype(np.float32)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("name", ["Conv", "MaxPool", "AveragePool"])
def test_cells_around_are_put_where_auto_pad_says(name: str, auto: str, tmp_path: Path) -> None:
    weighed = {"weights": WEIGHTS} if name == "Conv" else {}
    node = made(name, "input", *weighed, kernel_shape=[3, 2], strides=[2, 1], auto_pad=auto)
    by_onnx(node, (4, 9, 8), tmp_path, **weighed)


@pytest.mark.parametrize("places", ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("nearest", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_the_nearest_places_are_those_of_onnx(places: str, nearest: str, tmp_path: Path) -> None:
    named = {"coordinate_transformation_mode": places, "nearest_mode": nearest}
    node = made("Resize", "input", "", "scales", mode="nearest", **named)
    by_onnx(node, (2, 9, 8), tmp_path, scales=np.array([1, 1, 2.5, 0.6], np.float32))


@pytest.mark.parametrize(
    ("node", "shape", "words"),
    [
        (made("MaxPool", "input", kernel_shape=[2, 2], dilations=[2, 2]), (4, 9, 8), "gaps"),
        (made("MaxPool", "input", kernel_shape=[2, 2, 2]), (4, 5, 5, 5), "3 dimensions"),
        (made("Resize", "input", "", "scales", mode="cubic"), (2, 9, 8), "by curves"),
    ],
)
def test_what_has_no_exact_form_is_refused(node: onnx.NodeProto, shape: Any, words: str, tmp_path: Path) -> None:
    constants = {"scales": np.array([1, 1, 2, 2], np.float32)} if "scales" in node.input else {}
    with pytest.raises(Refused, match=words):
        by_onnx(node, shape, tmp_path, **constants)
