"""Ways to deliver a verified model: one module per target, all in one dictionary.

A new target is a module that satisfies `delivery.Target`, and a line here; help, listings and contract tests follow.
"""

from __future__ import annotations

from typing import Final

from modelrel.targets import aws_lambda, docker, tflite
from modelrel.targets.delivery import Target

TARGETS: Final[dict[str, Target]] = {"docker": docker, "lambda": aws_lambda, "tflite": tflite}
"""Target, as the user names it -> the module that knows it."""
