"""Ways to deliver a verified model: one module per target, all in one dictionary.

A new target is a module that satisfies `delivery.Target`, and a line here; help, listings and contract tests follow.
"""

from __future__ import annotations

from typing import Final

from modelrel.targets import (
    android,
    aws_lambda,
    azureml,
    docker,
    ios,
    kserve,
    kubernetes,
    lambda_image,
    modelpack,
    npm,
    oci,
    sagemaker,
    tflite,
    vertex,
)
from modelrel.targets.delivery import Target

TARGETS: Final[dict[str, Target]] = {
    "docker": docker,
    "oci": oci,
    "modelpack": modelpack,
    "lambda": aws_lambda,
    "lambda-image": lambda_image,
    "tflite": tflite,
    "npm": npm,
    "android": android,
    "ios": ios,
    "kserve": kserve,
    "kubernetes": kubernetes,
    "sagemaker": sagemaker,
    "vertex": vertex,
    "azureml": azureml,
}
"""Target, as the user names it -> the module that knows it."""
