"""Pipelines of transformers -> ONNX with the tokenizer in front: equal to the pipeline on hard texts, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modelrel.errors import Refused
from modelrel.flavors import transformers as flavor
from modelrel.formats import FORMATS, Order, behind
from modelrel.serving import adapters
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.tensors import text
from modelrel.values import ConvertedModel, ConvertOptions, SourceModel, VerifyOptions
from tests.formats import pipelines
from tests.serving.conftest import start

LONG = "film " * 300


def rows(texts: Any) -> dict[str, Any]:
    return {"input": text(list(texts), (len(texts), 1))}


def here(source: SourceModel) -> tuple[Any, Any, Path]:
    """Convert in this process; returns what asks the original, what asks the copy, and the adapter's file."""
    native: Any = flavor.load(source.model_dir)
    assert source.signature is not None
    order = Order(
        flavor="transformers",
        signature=source.signature,
        answers=flavor.answers(native, source.model_dir),
        rows=rows(["a"]),
    )
    room, path = FORMATS["onnx"], source.folder / "model.onnx"
    said = room.convert(native, order, path)
    room.check(path)
    adapter = source.folder / adapters.FILE
    adapter.write_text(json.dumps(said["adapter"]))
    signature = source.signature
    return lambda given: flavor.predict(native, given, signature), behind(adapter, room.load(path)), adapter


def test_the_scores_are_those_of_the_pipeline_whatever_texts_are_sent_together(tmp_path: Path) -> None:
    original, copy, _ = here(pipelines.logged(tmp_path))
    wanted = original(rows(pipelines.HARD))
    assert len(set(wanted["label"])) > 1
    for size in (1, 5, len(pipelines.HARD)):
        pieces = [copy(rows(pipelines.HARD[at : at + size])) for at in range(0, len(pipelines.HARD), size)]
        assert [label for piece in pieces for label in piece["label"]] == wanted["label"].tolist()
        found = np.concatenate([piece["probabilities"] for piece in pieces])
        np.testing.assert_allclose(found, wanted["probabilities"], rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="expanded size"):
        original(rows([LONG]))
    with pytest.raises(Refused, match="the text of row 1 has 302 tokens, and the model takes 24"):
        copy(rows(["a", LONG]))


def test_truncation_and_sigmoids_are_those_that_the_pipeline_was_logged_with(tmp_path: Path) -> None:
    source = pipelines.logged(tmp_path, {"truncation": True}, problem_type="multi_label_classification")
    original, copy, _ = here(source)
    wanted, found = (ask(rows([*pipelines.HARD, LONG])) for ask in (original, copy))
    assert list(wanted) == ["label", "scores"]
    assert found["label"].tolist() == wanted["label"].tolist()
    np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> ConvertedModel:
    source = pipelines.logged(tmp_path_factory.mktemp("reviews"), {"truncation": True})
    return convert(source, "onnx", ConvertOptions())


def test_a_released_pipeline_is_proven_and_served_with_texts(released: ConvertedModel) -> None:
    report = verify(released, VerifyOptions(rows=100, budget=4))
    assert {"example", "text", "unseen"} <= set(report.sources)
    assert [parity.disagreements for parity in report.outputs] == [0, 0]
    assert released.classes == ("bad", "ok", "good")
    original: Any = flavor.load(released.source.model_dir)
    (said,) = original.pipe(["a good film"], truncation=True)
    running = start(released.path.parent)
    try:
        url = f"{running.url}/invocations"
        reply = httpx.post(url, json={"inputs": ["a good film", "北京 😀"]}).raise_for_status().json()
        assert reply["predictions"][0] == said["label"]
        wrong = httpx.post(f"{running.url}/v2/models/reviews/infer", json={
            "inputs": [{"name": "input", "shape": [1, 1], "datatype": "BYTES", "data": ["a good film"]}]
        }).raise_for_status().json()  # fmt: skip
        (scores,) = [one["data"] for one in wrong["outputs"] if one["name"] == "probabilities"]
        assert max(scores) == pytest.approx(said["score"], abs=1e-6)
    finally:
        running.stop()


def test_a_pipeline_that_cannot_be_released_is_refused_by_name(tmp_path: Path) -> None:
    source = pipelines.logged(tmp_path, {"top_k": None, "add_special_tokens": False})
    native = flavor.load(source.model_dir)
    with pytest.raises(Refused, match="logged with add_special_tokens, which"):
        flavor.answers(native, source.model_dir)
    said = source.model_dir / "MLmodel"
    content = said.read_text()
    said.write_text(content.replace("task: text-classification", "task: text-generation"))
    with pytest.raises(Refused, match="task is text-generation"):
        flavor.load(source.model_dir)
    said.write_text(content.replace("model_binary: model", "source: hub"))
    with pytest.raises(Refused, match="not its whole weights"):
        flavor.load(source.model_dir)


def test_a_slow_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import CanineTokenizer

    with pytest.raises(Refused, match="CanineTokenizer is no fast tokenizer"):
        flavor.load(pipelines.logged(tmp_path, tokenizer=CanineTokenizer()).model_dir)


@pytest.mark.parametrize(
    "change",
    [{"tokenizer": {"model": "none"}}, {"truncate": -1}, {"gives": ["positions"]}, {"pad": {"side": "up"}}],
)
def test_a_tokenizer_step_that_is_none_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    step = {
        "kind": "tokenizer", "takes": ["input"], "gives": ["input_ids"], "truncate": 0, "truncate_side": "right",
        "most": 0, "pad": {"id": 0, "type_id": 0, "token": "[PAD]", "side": "right"},
        "tokenizer": json.loads(pipelines.fast_tokenizer().backend_tokenizer.to_str()),
    }  # fmt: skip
    path = tmp_path / adapters.FILE
    gives = [{"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]}]
    path.write_text(json.dumps({"schema": 1, "steps": [step], "gives": gives}))
    assert adapters.load(path)({"input": np.array(["a good film"], object)})["input_ids"].shape[0] == 1
    with pytest.raises(adapters.BadInput, match="row 0 is missing, and not a text"):
        adapters.load(path)({"input": np.array([None], object)})
    path.write_text(json.dumps({"schema": 1, "steps": [step | change], "gives": gives}))
    with pytest.raises(adapters.BrokenAdapter, match="is no adapter"):
        adapters.load(path)
