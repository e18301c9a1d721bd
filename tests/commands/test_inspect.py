"""Inspect: what this one model can become, told by its records, by trying, or left open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tests.conftest import Done, Run
from tests.models import by_hand, hostile, logged


def onnx(done: Done) -> Any:
    assert done.code == 0, done.out + done.err
    return done.json["formats"]["onnx"]


def stages(done: Done) -> list[str]:
    return [one["stage"] for one in done.json["stages"]]


def test_a_model_that_can_is_tried_and_nothing_is_left_behind(run: Run, sqlite_registry: str) -> None:
    done = run("inspect", "flowers/2", "--registry", sqlite_registry, "--json")
    found = onnx(done)
    assert (found["can"], found["told_by"]) == ("yes", "trial")
    assert found["estimator"].startswith("LogisticRegression")
    assert {"docker", "oci", "lambda", "npm"} <= set(found["targets"])
    assert "tflite" not in found["targets"]
    assert found["seconds"] > 0
    assert stages(done) == ["pull", "try onnx", "try tflite", "try pmml", "try python"]
    assert sorted(path.name for path in Path("dist/flowers-2").iterdir()) == ["SourceModel.json", "source"]


def test_a_model_that_cannot_is_told_in_the_words_of_convert(run: Run, tmp_path: Path) -> None:
    texts = pd.DataFrame({"text": ["good", "bad", "fine", "poor"]})
    model = make_pipeline(CountVectorizer(tokenizer=str.split, token_pattern=None), LogisticRegression()).fit(
        texts["text"], [1, 0, 1, 0]
    )
    top = logged(model, texts, tmp_path / "words").model_dir
    refused = run("convert", top, "--json")
    assert refused.code == 4, refused.out
    found = onnx(run("inspect", top, "--json"))
    assert (found["can"], found["told_by"]) == ("no", "trial")
    assert found["why"].startswith(refused.json["error"]["message"])
    assert "CountVectorizer" in found["why"]


def test_a_converted_model_is_not_loaded_again(run: Run, sqlite_registry: str) -> None:
    assert run("convert", "flowers/2", "--registry", sqlite_registry).code == 0
    done = run("inspect", "flowers/2", "--registry", sqlite_registry, "--json")
    found = onnx(done)
    assert (found["can"], found["told_by"], found["seconds"]) == ("yes", "proof", 0)
    assert stages(done) == ["pull", "try tflite", "try pmml", "try python"]
    Path("dist/flowers-2/onnx/ParityReport.json").unlink()
    assert onnx(run("inspect", "flowers/2", "--registry", sqlite_registry, "--json"))["told_by"] == "copy"


def test_a_copy_that_was_refused_is_a_no_with_the_reason(run: Run, sqlite_registry: str) -> None:
    assert run("convert", "digits/1", "--registry", sqlite_registry).code == 0
    refused = run("verify", "digits/1", "--registry", sqlite_registry, "--rtol", 0, "--atol", 0, "--json")
    assert refused.code == 4
    found = onnx(run("inspect", "digits/1", "--registry", sqlite_registry, "--json"))
    assert (found["can"], found["told_by"]) == ("no", "proof")
    assert found["why"] in refused.json["error"]["message"]
    # the copy of another model is no reason
    Path("dist/digits-1/onnx/model.onnx").write_bytes(b"another")
    assert onnx(run("inspect", "digits/1", "--registry", sqlite_registry, "--json"))["can"] == "yes"


@pytest.mark.parametrize("quick", [True, False])
def test_quick_does_not_load_the_model(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    monkeypatch.setenv("MODELREL_ALLOW_PICKLE", "builtins.exec")
    loaded = tmp_path / "loaded"
    top = hostile(tmp_path / "model", f"open({str(loaded)!r}, 'w')").model_dir
    found = onnx(run("inspect", top, "--json", *(["--quick"] if quick else [])))
    assert loaded.exists() is not quick
    assert found["can"] == ("unknown" if quick else "no")


def test_an_environment_that_is_not_here_is_not_made(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    top = by_hand(tmp_path / "model", b"", "scikit-learn==1.2.2\n").model_dir
    found = onnx(run("inspect", top, "--json"))
    assert (found["can"], found["told_by"]) == ("unknown", "flavor")
    assert "environment" in found["why"]
    assert not (tmp_path / "cache").exists()


def test_a_model_without_a_signature_is_a_no_without_loading(run: Run, tmp_path: Path) -> None:
    top = hostile(tmp_path / "model", "raise SystemExit").model_dir
    text = (top / "MLmodel").read_text()
    (top / "MLmodel").write_text(text[: text.index("signature:")])
    found = onnx(run("inspect", top, "--json"))
    assert (found["can"], found["told_by"]) == ("no", "flavor")
    assert "signature" in run("inspect", top).out.rpartition("to onnx")[2]


def test_what_loading_a_model_would_run_is_shown_and_nothing_is_loaded(run: Run, tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    top = hostile(tmp_path / "model", f"open({str(loaded)!r}, 'w')").model_dir
    done = run("inspect", top, "--json")
    assert (done.code, loaded.exists()) == (0, False)
    assert done.json["pickle"]["verdict"] == "dangerous"
    assert done.json["pickle"]["files"][0]["dangerous"] == ["builtins.exec"]
    assert "--allow-pickle builtins.exec" in done.json["formats"]["onnx"]["why"]
    assert "dangerous: model.pkl asks for builtins.exec" in run("inspect", top, "--quick").out
