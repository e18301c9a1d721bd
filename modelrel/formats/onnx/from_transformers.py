"""A pipeline of text classification -> its network as ONNX, from ids to label and scores, and its tokenizer as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from modelrel import extras
from modelrel.errors import Refused
from modelrel.formats.onnx import from_torch
from modelrel.formats.onnx.graph import Core
from modelrel.formats.onnx.torch_trial import Asked
from modelrel.formats.order import Order
from modelrel.serving import adapters
from modelrel.serving.adapters import tokenizer as texts
from modelrel.values import Signature, TensorSpec

_UNENDING: Final = 10**6
"""Tokenizers without a limit say 10**30."""
_LONGEST: Final = 2048
"""Tokens that the network is asked at most: attention takes memory for each pair of them."""

_TEXTS: Final = ("one", "two words", "a somewhat longer text of nine or more words", "", "Ünïcode 北京 😀 x_y-z")
_HARD: Final = (
    " ", "\t\n", "UPPER lower", "nai\u0308ve Straße", "don't 3.14 x\u00a0y", "\u200bword", "a\u0000b", "١٢٣ пример",
    "x" * 300,
)  # fmt: skip
_WORDS: Final = 60
_LETTERS: Final = 1000
"""Letters of a text that is made of the vocabulary."""


def write(native: Any, order: Order) -> tuple[Core, Order, dict[str, object]]:
    """Return the network, an order with its own inputs, and the adapter that makes these of one text.

    Raises `Refused` for what the network or its tokenizer need beyond ids and masks, and as `from_torch.write` does.
    """
    _, numbers = order.answers.outputs
    pipe = native.pipe
    names = _inputs(pipe)
    shape = Signature(
        kind="tensor", inputs=tuple(TensorSpec(name=name, datatype="INT64", shape=(-1, -1)) for name in names)
    )
    network = _scored(pipe.model, names, native.applied, numbers)
    found = pipe.tokenizer(list(_TEXTS), padding=True, return_tensors="np")
    rows = {name: np.asarray(found[name], np.int64) for name in names}
    asked = Asked(network, shape, varied=False)
    wide = (-1, len(order.answers.classes))
    shapes = {
        "label": TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
        numbers: TensorSpec(name=numbers, datatype="FP32", shape=wide),
    }
    inner = replace(order, signature=shape, rows=rows, shapes=shapes)
    core = from_torch.exported(asked, inner)
    most = _most(asked, rows, names)
    if order.signature.kind == "tensor" and len(order.signature.inputs[0].shape) > 2:
        raise Refused("the signature is a tensor of texts of several dimensions", "Log a signature of one string.")
    step = _step(native, order.signature.inputs[0].name, names, most)
    hint = _hint(pipe.tokenizer)
    _alike(native, step, (*_TEXTS, *_HARD, *hint["categories"]))
    gives = [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in shape.inputs]
    adapter: dict[str, object] = {"schema": adapters.SCHEMA, "steps": [step], "gives": gives}
    core = replace(_labelled(core, order, numbers), hints={"features": [hint]})
    return core, inner, adapter


def _inputs(pipe: Any) -> list[str]:
    """Return what the tokenizer makes of a text for the network, in the order of FIELDS."""
    made = set(pipe.tokenizer("a"))
    if other := made - texts.FIELDS.keys():
        raise Refused(
            f"{type(pipe.tokenizer).__name__} gives {', '.join(sorted(other))}, which the tokenizers library does not",
            "Log a pipeline whose tokenizer gives ids and masks alone.",
        )
    return [name for name in texts.FIELDS if name in made]


def _scored(model: Any, names: list[str], function: str, numbers: str) -> Any:
    """Return the network with the pipeline's function behind it, in float32 as the pipeline computes it."""
    torch: Any = extras.load("torch")

    class Scored(torch.nn.Module):  # type: ignore[misc]  # torch's types are not looked at
        """Ids in, scores out; the parameters have the names of the tokenizer's fields."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            logits = self.model(**dict(zip(names, values, strict=True))).logits.float()
            if function == "softmax":
                logits = torch.softmax(logits, -1)
            elif function == "sigmoid":
                logits = torch.sigmoid(logits)
            return {numbers: logits}

    return Scored().eval()


def _most(asked: Asked, rows: Mapping[str, Any], names: list[str]) -> int:
    """Return the largest number of tokens that the network answers, 0 where it answers `_LONGEST`."""
    one = [rows[name][:1, :1] for name in names]

    def takes(size: int) -> bool:
        return not isinstance(asked.answer([np.repeat(array, size, axis=1) for array in one]), str)

    low, high = 2, 4
    while takes(high):
        low, high = high, high * 2
        if high > _LONGEST:
            return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) else (low, middle)
    return low


def _step(native: Any, takes: str, names: list[str], most: int) -> dict[str, Any]:
    """Return what `adapters.tokenizer` needs to do as the pipeline's tokenizer does."""
    words = native.pipe.tokenizer
    limit = native.options.get("max_length") or words.model_max_length
    cut = native.options.get("truncation") not in (None, False, "do_not_truncate")
    if cut and native.options["truncation"] not in (True, "longest_first", "only_first"):
        raise Refused(
            f"the pipeline truncates {native.options['truncation']!r}, which is for pairs of texts",
            "Log it with truncation=True.",
        )
    if getattr(words, "split_special_tokens", False):
        raise Refused(
            f"{type(words).__name__} splits special tokens that are typed in a text, which its tokenizer.json does not "
            "say",
            "Log it with split_special_tokens=False.",
        )
    if words.pad_token_id is None:
        raise Refused(
            f"{type(words).__name__} has no token to fill up shorter texts with", "Set its pad_token, and log it again."
        )
    return {
        "kind": "tokenizer",
        "takes": [takes],
        "gives": names,
        "tokenizer": json.loads(words.backend_tokenizer.to_str()),
        "truncate": int(limit) if cut and limit < _UNENDING else 0,
        "truncate_side": words.truncation_side,
        "most": most,
        "pad": {
            "id": int(words.pad_token_id),
            "type_id": int(words.pad_token_type_id),
            "token": str(words.pad_token),
            "side": words.padding_side,
        },
    }


def _alike(native: Any, step: dict[str, Any], said: tuple[str, ...]) -> None:
    """Raise `Refused` where the adapter makes other ids of a text than the pipeline's tokenizer."""
    run = texts.step({**step, "most": 0})
    options = {name: native.options[name] for name in ("truncation", "max_length") if name in native.options}
    for text in said:
        wanted = native.pipe.tokenizer(text, **options)
        found = run([np.array([text], object)])
        for name, ids in zip(step["gives"], found, strict=True):
            if ids[0].tolist() != list(wanted[name]):
                raise Refused(
                    f"{type(native.pipe.tokenizer).__name__} makes other {name} of {text[:80]!r} than its "
                    "tokenizer.json",
                    "Log the pipeline with a tokenizer that does nothing beside its tokenizer.json.",
                )


def _labelled(core: Core, order: Order, numbers: str) -> Core:
    """Add the label: the text of the first class that has the highest score."""
    graph = core.model.graph
    classes = [str(name).encode() for name in order.answers.classes]
    graph.initializer.append(helper.make_tensor("modelrel_classes", TensorProto.STRING, [len(classes)], classes))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "modelrel_zero"))
    graph.node.append(helper.make_node("ArgMax", [core.outputs[numbers]], ["modelrel_best"], axis=1, keepdims=0))
    graph.node.append(helper.make_node("Gather", ["modelrel_classes", "modelrel_best"], ["modelrel_label"]))
    graph.output.append(helper.make_tensor_value_info("modelrel_label", TensorProto.STRING, [None]))
    return replace(core, outputs={"label": "modelrel_label", **core.outputs})


def _hint(words: Any) -> dict[str, list[str]]:
    """Return texts that verification makes rows of: words of the vocabulary, special tokens as typed."""
    special = [token for token in words.all_special_tokens if token]
    known = words.convert_tokens_to_string
    plain = [known([token]).strip() for token in sorted(words.get_vocab()) if token not in special]
    spoken = list(dict.fromkeys(word for word in plain if word and not word.startswith("##"))) or ["a"]
    picked = [spoken[int(place)] for place in np.unique(np.linspace(0, len(spoken) - 1, _WORDS).astype(int))]
    sentences = [" ".join(picked[at : at + 6]) for at in range(0, len(picked), 3)]
    typed = [f"{token} {picked[0]} {token}{picked[-1]}" for token in special]
    return {"vocabulary": picked, "categories": [*sentences, *typed, " ".join(picked * 20)[:_LETTERS]]}
