"""PyTorch modules -> ONNX: equal for any number of rows, on both sides of every branch, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from modelrel import tensors
from modelrel.errors import Refused
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order
from modelrel.formats.onnx import from_torch
from modelrel.values import Answers, Signature, TensorSpec
from tests.formats import modules as nets

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(0, 1, (5, 4)).astype(np.float32)


def signature(rows: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Signature:
    return Signature(
        kind="tensor",
        inputs=tuple(
            TensorSpec(
                name=name, datatype=tensors.datatype(array.dtype), shape=shapes.get(name, (-1, *array.shape[1:]))
            )
            for name, array in rows.items()
        ),
    )


def converted(
    native: Any, rows: Any, folder: Path, to: str = "onnx", *, opset: int = 0, quantize: Any = "", **shapes: Any
) -> Any:
    """Convert as the worker does; returns what asks the copy, what asks the original, and the description."""
    given = rows if isinstance(rows, dict) else {"input": rows}
    shape = signature(given, shapes)
    answered = FLAVORS["pytorch"].predict(native, given, shape)
    order = Order(
        flavor="pytorch",
        signature=shape,
        answers=Answers(outputs=tuple(answered), predict=next(iter(answered)), estimator=type(native).__name__),
        opset=opset,
        quantize=quantize,
        rows=given,
        shapes=tensors.specs(answered),
    )
    room = FORMATS[to]
    path = folder / f"model{room.SUFFIX}"
    said = room.convert(native, order, path)
    room.check(path)
    return room.load(path), lambda asked: FLAVORS["pytorch"].predict(native, asked, shape), said


def equal(native: Any, rows: Any, folder: Path, sizes: tuple[int, ...] = (1, 2, 33), **options: Any) -> Any:
    """Convert, and compare batches of several sizes; returns the description."""
    copy, original, said = converted(native, rows, folder, **options)
    given = rows if isinstance(rows, dict) else {"input": rows}
    for size in sizes:
        asked = tensors.take(given, np.arange(size) % 5)
        wanted, found = original(asked), copy(asked)
        assert list(wanted) == list(found)
        for name, array in wanted.items():
            assert array.shape == found[name].shape
            assert array.dtype == found[name].dtype
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
    return said


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_a_perceptron_is_equal_and_its_bytes_are_the_same_each_time_and_name_no_file(tmp_path: Path) -> None:
    net = nets.seeded(nets.perceptron)
    equal(net, ROWS, tmp_path)
    first = (tmp_path / "model.onnx").read_bytes()
    converted(net, ROWS, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == first
    assert b".py" not in first
    assert b"torch" not in first


def test_convolutions_and_batch_normalisation_are_equal(tmp_path: Path) -> None:
    equal(nets.seeded(nets.convolutional), RANDOM.normal(0, 2, (5, 1, 8, 8)).astype(np.float32), tmp_path)


def test_an_lstm_is_equal_at_every_length(tmp_path: Path) -> None:
    net = nets.seeded(nets.Recurrent)
    rows = RANDOM.normal(0, 1, (5, 6, 3)).astype(np.float32)
    copy, original, _ = converted(net, rows, tmp_path, input=(-1, -1, 3))
    for length in (1, 2, 6, 40):
        asked = {"input": RANDOM.normal(0, 1, (3, length, 3)).astype(np.float32)}
        np.testing.assert_allclose(copy(asked)["prediction"], original(asked)["prediction"], rtol=1e-5, atol=1e-6)


def test_an_output_for_each_step_has_as_many_as_the_row(tmp_path: Path) -> None:
    class Steps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = torch.nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x).squeeze(-1)

    net = nets.seeded(Steps)
    rows = RANDOM.normal(0, 1, (5, 6, 3)).astype(np.float32)
    copy, original, said = converted(net, rows, tmp_path, input=(-1, -1, 3))
    assert said["outputs"][0]["shape"] == (-1, -1)
    for length in (1, 3, 9):
        asked = {"input": RANDOM.normal(0, 1, (2, length, 3)).astype(np.float32)}
        np.testing.assert_allclose(copy(asked)["prediction"], original(asked)["prediction"], rtol=1e-5, atol=1e-6)
    with pytest.raises(Refused, match="takes rows of one size"):
        converted(net, rows, tmp_path, to="tflite", input=(-1, -1, 3))


def test_a_dict_gives_its_outputs_by_name_and_one_row_keeps_its_dimension(tmp_path: Path) -> None:
    said = equal(nets.seeded(nets.Several), ROWS, tmp_path)
    assert [one["name"] for one in said["outputs"]] == ["scores", "value"]


def test_columns_go_in_side_by_side_as_float32(tmp_path: Path) -> None:
    net = nets.seeded(nets.perceptron)
    kinds = {"a b": "FP64", "c": "INT64", "d": "BOOL", "e": "FP32"}
    columns = tuple(TensorSpec(name=name, datatype=kind, shape=(-1, 1)) for name, kind in kinds.items())
    shape = Signature(kind="columns", inputs=columns)
    rows = {
        name: (ROWS[:, [place]] * 2 > 0 if kind == "BOOL" else ROWS[:, [place]] * 2).astype(tensors.NUMPY[kind])
        for place, (name, kind) in enumerate(kinds.items())
    }
    answers = Answers(outputs=("prediction",), predict="prediction", estimator="Sequential")
    shapes = {"prediction": TensorSpec(name="prediction", datatype="FP32", shape=(-1, 3))}
    order = Order(flavor="pytorch", signature=shape, answers=answers, rows=rows, shapes=shapes)
    said = FORMATS["onnx"].convert(net, order, tmp_path / "model.onnx")
    assert [one["name"] for one in said["inputs"]] == list(kinds)  # type: ignore[attr-defined]
    found = FORMATS["onnx"].load(tmp_path / "model.onnx")(rows)["prediction"]
    wanted = FLAVORS["pytorch"].predict(net, rows, shape)["prediction"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_several_inputs_are_given_by_the_names_of_the_parameters(tmp_path: Path) -> None:
    rows = {"right": ROWS[:, :3].copy(), "left": ROWS}
    said = equal(nets.seeded(nets.Pair), rows, tmp_path)
    assert [one["name"] for one in said["outputs"]] == ["output_0", "output_1"]


def test_an_embedding_is_equal_and_an_id_that_the_original_refuses_is_refused_by_the_copy(tmp_path: Path) -> None:
    net = nets.seeded(nets.Words)
    rows = RANDOM.integers(0, 50, (5, 6))
    equal(net, rows, tmp_path)
    copy, original, _ = converted(net, rows, tmp_path)
    for wrong in (-1, 50):
        asked = {"input": np.full((1, 6), wrong)}
        with pytest.raises(IndexError):
            original(asked)
        with pytest.raises(Refused, match="onnxruntime fails"):
            copy(asked)


@pytest.mark.parametrize(
    "make", [lambda: torch.jit.script(nets.seeded(nets.Cleaned)), lambda: nets.seeded(nets.Conditional)]
)
def test_a_branch_of_torchscript_and_of_torch_cond_is_kept_and_both_sides_are_tried(make: Any, tmp_path: Path) -> None:
    net = make()
    said = equal(net, ROWS, tmp_path)
    assert "If" in operators(tmp_path / "model.onnx")
    gaps = ROWS.copy()
    gaps[2, 1] = np.nan
    equal(net, gaps, tmp_path)
    taken = np.array(said["hints"]["rows"]["input"], np.float64)
    assert np.isnan(taken).any(axis=1).any()
    assert not np.isnan(taken).any(axis=1).all()


def test_a_branch_on_the_data_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        converted(nets.seeded(nets.Cleaned), ROWS, tmp_path)
    assert refused.value.message.startswith("Cleaned branches on its data (modules.py, line ")
    assert "if bool(torch.isnan(x).any())" in refused.value.message
    assert "torch.cond" in refused.value.hint
    assert "torch.jit.script" in refused.value.hint


def test_a_branch_of_which_one_side_is_never_taken_is_refused_and_an_example_that_takes_it_helps(
    tmp_path: Path,
) -> None:
    net = torch.jit.script(nets.seeded(nets.Rare))
    with pytest.raises(Refused, match="none of 42 rows makes the condition of a branch true, so that side"):
        converted(net, ROWS, tmp_path)
    with_it = ROWS.copy()
    with_it[3, 2] = 12345.0
    equal(net, with_it, tmp_path)


@pytest.mark.parametrize("make", [nets.Mixing, lambda: torch.jit.script(nets.Mixing())])
def test_a_module_that_mixes_rows_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="prediction of a row depends on the other rows in its batch"):
        converted(nets.seeded(make), ROWS, tmp_path)


def test_dropout_that_is_active_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="differently each time"):
        converted(nets.perceptron().train(), ROWS, tmp_path)


@pytest.mark.parametrize(("most", "exactly"), [(100, False), (1, True)])
def test_a_way_that_depends_on_the_number_of_rows_is_refused(most: int, exactly: bool, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"another way where|depends on the other rows|differs from the module's"):
        converted(nets.seeded(nets.Sized, most, exactly=exactly), ROWS, tmp_path)


def test_numbers_of_another_width_than_the_weights_are_refused_as_the_module_says_it() -> None:
    rows = {"input": ROWS.astype(np.float64)}
    order = Order(
        flavor="pytorch",
        signature=signature(rows, {}),
        answers=Answers(outputs=(), predict="", estimator="Sequential"),
        rows=rows,
    )
    with pytest.raises(Refused, match="Sequential raises on every row that was tried: RuntimeError: mat1 and mat2"):
        from_torch.write(nets.seeded(nets.perceptron), order)


@pytest.mark.parametrize("opset", [18])
def test_an_older_opset_is_written_where_it_is_asked_for(opset: int, tmp_path: Path) -> None:
    said = equal(nets.seeded(nets.convolutional), np.ones((5, 1, 8, 8), np.float32), tmp_path, opset=opset)
    assert said["opsets"] == {"ai.onnx": opset}


def test_a_torchscript_module_of_an_opset_that_its_exporter_lacks_is_refused(tmp_path: Path) -> None:
    net = torch.jit.script(nets.seeded(nets.perceptron))
    with pytest.raises(Refused, match="opset 20 at most, not in 22"):
        converted(net, ROWS, tmp_path, opset=22)


ACTIVATIONS = (
    torch.nn.ReLU(), torch.nn.GELU(), torch.nn.GELU("tanh"), torch.nn.SiLU(), torch.nn.LeakyReLU(0.2),
    torch.nn.ELU(0.7), torch.nn.SELU(), torch.nn.Softplus(), torch.nn.Hardswish(), torch.nn.ReLU6(), torch.nn.Mish(),
    torch.nn.PReLU(), torch.nn.Hardsigmoid(), torch.nn.LogSoftmax(1), torch.nn.BatchNorm1d(4), torch.nn.LayerNorm(4),
)  # fmt: skip


def test_every_activation_becomes_tflite_and_a_missing_number_stays_one(tmp_path: Path) -> None:
    class Side(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(ACTIVATIONS)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(part(x * (1 + place / 10)) for place, part in enumerate(self.parts))

    rows = RANDOM.normal(0, 3, (5, 4)).astype(np.float32)
    copy, original, _ = converted(Side().eval(), rows, tmp_path, to="tflite")
    rows[4, 1] = np.nan
    wanted, found = (ask({"input": rows}) for ask in (original, copy))
    for name, part in zip(wanted, ACTIVATIONS, strict=True):
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-6, atol=4e-6, err_msg=str(part))


def test_a_perceptron_becomes_tflite_and_an_operator_without_form_there_is_named(tmp_path: Path) -> None:
    equal(nets.seeded(nets.perceptron), ROWS, tmp_path, to="tflite")
    with pytest.raises(Refused, match="it needs LSTM"):
        converted(nets.seeded(nets.Recurrent), RANDOM.normal(0, 1, (5, 6, 3)).astype(np.float32), tmp_path, to="tflite")
