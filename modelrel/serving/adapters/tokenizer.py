"""Texts to the ids that a language model takes, by the `tokenizers` library and the model's own tokenizer.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .faults import BadInput, BrokenAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Array = np.ndarray[Any, np.dtype[Any]]

REQUIRES: Final = ("tokenizers",)

FIELDS: Final = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""What the networks call it -> what `tokenizers.Encoding` calls it."""

SIDES: Final = ("left", "right")


def step(said: Mapping[str, Any]) -> Callable[[Sequence[Array]], Sequence[Array]]:
    """Return what turns one array of N texts, (N,) or (N, 1), into one int64 array (N, longest) for each of `gives`.

    `said`: `tokenizer`, the content of a tokenizer.json; `gives`, names of FIELDS; `truncate`, the number of tokens
    that a text is cut to (0: never), and `truncate_side`; `most`, the number beyond which a text is refused (0: none);
    `pad`: `id`, `type_id`, `token` and `side` of what fills up shorter texts of a batch.
    """
    import tokenizers

    fields = [FIELDS[name] for name in said["gives"]]
    cut, most, pad = int(said["truncate"]), int(said["most"]), said["pad"]
    if {said["truncate_side"], pad["side"]} - set(SIDES) or min(cut, most) < 0:
        raise BrokenAdapter("the tokenizer's lengths and sides are none that texts can have")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(said["tokenizer"], ensure_ascii=False))
        tokenizer.no_truncation()
        if cut:
            tokenizer.enable_truncation(cut, stride=0, strategy="longest_first", direction=said["truncate_side"])
        tokenizer.no_padding()
        tokenizer.encode("")
    except BaseException as error:  # the library raises Exception itself, and Rust's panics as a BaseException
        if not _own(error):
            raise
        raise BrokenAdapter(f"tokenizer.json is not one of tokenizers {tokenizers.__version__}: {error}") from error

    def run(given: Sequence[Array]) -> Sequence[Array]:
        (texts,) = given
        listed = [_text(item, row) for row, item in enumerate(texts.ravel())]
        try:
            encoded = tokenizer.encode_batch(listed)
        except BaseException as error:
            if not _own(error):
                raise
            raise BadInput(f"the tokenizer takes no such text: {error}") from error
        lengths = [len(one.ids) for one in encoded]
        if most and max(lengths) > most:
            row = int(np.argmax(lengths))
            raise BadInput(f"the text of row {row} has {lengths[row]:,} tokens, and the model takes {most:,}")
        for one in encoded:
            one.pad(
                max(lengths), direction=pad["side"], pad_id=pad["id"], pad_type_id=pad["type_id"],
                pad_token=pad["token"],
            )  # fmt: skip
        return [np.array([getattr(one, field) for one in encoded], np.int64) for field in fields]

    return run


def _own(error: BaseException) -> bool:
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _text(item: object, row: int) -> str:
    if not isinstance(item, str):
        raise BadInput(f"row {row} is {'missing' if item is None else type(item).__name__}, and not a text")
    try:
        item.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"the text of row {row} is no Unicode: {error.reason}") from error
    return item
