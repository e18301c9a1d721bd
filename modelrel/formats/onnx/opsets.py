"""The operator sets that are written: the newest that the converters and onnxruntime both take."""

from __future__ import annotations

from typing import Final

NEWEST: Final = 22  # skl2onnx 1.20: skl2onnx.__max_supported_opset__
OLDEST: Final = 13  # before it, Squeeze, ReduceSum and Unsqueeze have other forms
ML: Final = 3  # what skl2onnx writes
ML_TREES: Final = 5  # brings TreeEnsemble, the only tree operator with float64 thresholds
