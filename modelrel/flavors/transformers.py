"""transformers: pipelines of text classification, logged with their weights and a fast tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from modelrel import extras, tensors
from modelrel.errors import Invalid, Refused
from modelrel.flavors import mlmodel
from modelrel.flavors.calibrated import Curve
from modelrel.tensors import Array, Tensors
from modelrel.values import Answers, Signature

_TASKS: Final = ("text-classification", "sentiment-analysis")
_IGNORED: Final = ("batch_size", "num_workers", "padding", "top_k", "return_all_scores")
"""Options of a call that choose how it is computed, or which of the scores are shown."""

_HUB: Final = "Log it with its weights: mlflow.transformers.log_model(pipeline, save_pretrained=True)."


class Logged(NamedTuple):
    """A pipeline, and the options that MLflow calls it with."""

    pipe: Any
    options: Mapping[str, Any]

    @property
    def applied(self) -> str:
        """What the pipeline makes scores of logits with: softmax, sigmoid or none.

        Source: transformers.TextClassificationPipeline.postprocess.
        """
        config = self.pipe.model.config
        chosen = self.options.get("function_to_apply")
        if chosen is not None:
            return str(getattr(chosen, "value", chosen)).lower()
        if config.problem_type == "regression":
            return "none"
        one = config.problem_type == "multi_label_classification" or config.num_labels == 1
        return "sigmoid" if one else "softmax"

    @property
    def numbers(self) -> str:
        """What the scores are called."""
        return "probabilities" if self.applied == "softmax" else "scores"


def load(folder: Path) -> object:
    """Return the pipeline logged in `folder`, on the CPU, on one thread; nothing is fetched, and no code of it is run.

    Raises `Refused` for another task, weights that are not among the files, and a tokenizer that is not fast.
    """
    said = mlmodel.configuration(folder, "transformers")
    task = str(said.get("task"))
    if task not in _TASKS:
        raise Refused(
            f"the pipeline's task is {task}, and only text-classification can be released",
            "Log the network itself with mlflow.pytorch.log_model.",
        )
    if "model_binary" not in said or "peft_adaptor" in said:
        what = "a PEFT adapter" if "peft_adaptor" in said else f"the name {said.get('source_model_name')!r}"
        raise Refused(f"the logged model is {what} and not its whole weights", _HUB)
    weights, words = (
        mlmodel.inside(folder, name) for name in (str(said["model_binary"]), "components/tokenizer")
    )  # fmt: skip
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported
    torch, transformers = extras.load("torch"), extras.load("transformers")
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kept = {"local_files_only": True}
    kind = getattr(transformers, str(said.get("pipeline_model_type")), transformers.AutoModelForSequenceClassification)
    precise = getattr(torch, str(said.get("torch_dtype", "")).removeprefix("torch."), "auto")

    def read() -> Logged:
        model = kind.from_pretrained(weights, dtype=precise, **kept).eval()
        words_ = _class(transformers, str(said.get("tokenizer_type"))).from_pretrained(words, **kept)
        return Logged(transformers.pipeline(task, model=model, tokenizer=words_, device="cpu"), _options(folder))

    logged = mlmodel.opened(read, weights)
    if not getattr(logged.pipe.tokenizer, "is_fast", False):
        raise Refused(
            f"{type(logged.pipe.tokenizer).__name__} is no fast tokenizer: it is Python alone, with no tokenizer.json",
            "Log the pipeline with AutoTokenizer.from_pretrained(..., use_fast=True).",
        )
    return logged


def answers(native: Any, _folder: Path) -> Answers:
    """Return `label`, and `probabilities` of all classes in order (`scores`, where they are no softmax's).

    Raises `Refused` for classes of one name, and for options of a call that are not known here.
    """
    config = native.pipe.model.config
    names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    if len(set(names)) < len(names):
        raise Refused(f"two classes are called alike: {', '.join(names)}", "Give every class of id2label its name.")
    other = set(native.options) - {*_IGNORED, "truncation", "max_length", "function_to_apply"}
    if other:
        raise Refused(
            f"the pipeline was logged with {', '.join(sorted(other))}, which a released model cannot be given",
            "Log it without, or with truncation, max_length, top_k and function_to_apply alone.",
        )
    return Answers(
        outputs=("label", native.numbers), predict="label", estimator=type(native.pipe.model).__name__, classes=names
    )


def curves(_native: Any, _signature: Signature) -> list[Curve]:
    """Return none: the scores are no calibrated model's."""
    return []


def predict(native: Any, given: Tensors, signature: Signature) -> dict[str, Array]:
    """Return label (N,) and scores (N, classes) of N texts, each as the pipeline answers it alone.

    Raises what the pipeline raises, and `Refused` for a signature that is not one column or tensor of text.
    """
    if len(signature.inputs) != 1 or signature.inputs[0].datatype != "BYTES":
        raise Refused("the signature is not one text", "Log the pipeline with a signature of one string.")
    texts = given[signature.inputs[0].name].ravel().tolist()
    config = native.pipe.model.config
    options = {name: value for name, value in native.options.items() if name not in _IGNORED}
    known: dict[Any, tuple[str, list[float]]] = {}
    for text in dict.fromkeys(texts):
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a text")
        # with top_k the best comes first, and all the others follow
        (ranked,) = native.pipe([text], top_k=None, **options)
        scores = {one["label"]: one["score"] for one in ranked}
        ordered = [scores[config.id2label[number]] for number in range(config.num_labels)]
        known[text] = (str(ranked[0]["label"]), ordered)
    return {
        "label": tensors.text([known[text][0] for text in texts], (len(texts),)),
        native.numbers: np.array([known[text][1] for text in texts], np.float32),
    }


def _class(transformers: Any, name: str) -> Any:
    return getattr(transformers, name, transformers.AutoTokenizer)


def _options(folder: Path) -> dict[str, Any]:
    """Return what MLflow's pyfunc passes to each call: `model_config`, or its older file."""
    try:
        said = mlmodel.configuration(folder, "python_function")
    except Invalid:
        return {}
    found = dict(said.get("config") or {})
    older = folder / "components" / "inference_config.txt"
    return found or (json.loads(older.read_text(encoding="utf-8")) if older.is_file() else {})
