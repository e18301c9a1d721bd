"""The options that skl2onnx converts a model with: plain tensors instead of maps."""

from __future__ import annotations

from typing import Any


def chosen(native: Any, *, scores: bool) -> dict[int, dict[str, Any]]:
    """Return options by the id of a step; `scores` asks the last one for decision values, not probabilities."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import _converter_pool

    final = native
    while hasattr(final, "steps"):
        final = final.steps[-1][1]
    alias = sklearn_operator_name_map.get(type(final))
    known = _converter_pool[alias].get_allowed_options() if alias in _converter_pool else None
    wanted = {"zipmap": False, "raw_scores": scores}
    picked = {name: value for name, value in wanted.items() if name in (known or ()) and (value or name == "zipmap")}
    return {id(final): picked} if picked else {}
