"""PyTorch: modules logged as a pickle, TorchScript modules, and exported programs (pt2)."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

from modelrel import extras, modules
from modelrel.errors import Refused
from modelrel.flavors import mlmodel
from modelrel.flavors.calibrated import Curve
from modelrel.tensors import Array, Tensors
from modelrel.values import Answers, Signature


def load(folder: Path) -> object:
    """Return the module logged in `folder`, on the CPU, in evaluation mode, on one thread.

    MLflow writes `model.pth` (torch.save of a pickled or scripted module) or `model.pt2` (torch.export.save). Raises
    `Refused` for what is no module.
    """
    said = mlmodel.configuration(folder, "pytorch")
    data = mlmodel.inside(folder, str(said.get("model_data", "data")))
    pickled = data / "model.pth" if data.is_dir() else data
    path = pickled if pickled.exists() else mlmodel.inside(folder, f"{data.relative_to(folder.resolve())}/model.pt2")
    torch = extras.load("torch")
    torch.set_num_threads(1)  # sums in another order are other sums

    def read() -> object:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        # Cloudpickle writes plain pickles, whatever module MLflow names for reading them.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*TorchScript archive")  # it reads one all the same
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=pickle)

    native = mlmodel.opened(read, path)
    if not isinstance(native, torch.nn.Module):
        raise Refused(
            f"{path.name} holds a {type(native).__name__}, which is no torch.nn.Module",
            "Log the module itself with mlflow.pytorch.log_model, not its weights.",
        )
    if path.suffix != ".pt2":
        native.eval()
    return native


def answers(native: Any, _folder: Path) -> Answers:
    """Return answers without outputs: only an answer tells what a module gives."""
    return Answers(outputs=(), predict="", estimator=modules.named(native))


def curves(_native: Any, _signature: Signature) -> list[Curve]:
    """Return none: a network is not calibrated by curves that are known from outside."""
    return []


def predict(native: Any, tensors: Tensors, signature: Signature) -> dict[str, Array]:
    """Return every output for N rows; columns go in side by side as float32, as MLflow's pyfunc does.

    Raises what the module raises, and `Refused` where an answer is not one row for each that went in.
    """
    return modules.answered(native, modules.given(tensors, signature), signature)
