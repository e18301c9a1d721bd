"""Ways to deliver a verified model: one module per target, all in one mapping.

A new target is a module that satisfies `delivery.Target`, and a line here; help, listings and contract tests follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from modelrel.targets.delivery import Target

_MODULES: Final = {
    "docker": "docker",
    "oci": "oci",
    "modelpack": "modelpack",
    "lambda": "aws_lambda",
    "lambda-image": "lambda_image",
    "tflite": "tflite",
    "npm": "npm",
    "android": "android",
    "ios": "ios",
    "kserve": "kserve",
    "kubernetes": "kubernetes",
    "sagemaker": "sagemaker",
    "vertex": "vertex",
    "azureml": "azureml",
}
"""Target, as the user names it -> the module of this room that knows it."""

if TYPE_CHECKING:
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

    # every module of the list above, so that each is checked to be a target (a test compares the two)
    CHECKED: Final[tuple[Target, ...]] = (
        docker, oci, modelpack, aws_lambda, lambda_image, tflite, npm, android, ios, kserve, kubernetes, sagemaker,
        vertex, azureml,
    )  # fmt: skip


class _Targets(Mapping[str, Target]):
    """Targets by name. All of them take a third of a second to import, so that a module is when it is asked for."""

    def __getitem__(self, name: str) -> Target:
        return cast("Target", import_module(f"{__name__}.{_MODULES[name]}"))

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)

    def __contains__(self, name: object) -> bool:
        return name in _MODULES


TARGETS: Final = _Targets()
"""Target, as the user names it -> the module that knows it."""
