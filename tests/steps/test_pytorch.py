"""A network with a branch, through the worker: converted, proven on both sides of it, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelrel.errors import Refused
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, VerifyOptions
from tests.flavors.test_pytorch import ROWS, saved
from tests.formats import modules as nets

HERE = Path(nets.__file__).parent.parent


def test_a_branch_is_proven_on_rows_that_take_either_side(tmp_path: Path) -> None:
    native = torch.jit.script(nets.seeded(nets.Cleaned))
    converted = convert(saved(native, ROWS, tmp_path, serialization_format="pickle"), "onnx", ConvertOptions())
    report = verify(converted, VerifyOptions(rows=100, budget=2))
    assert report.sources["branches"] == 2
    assert [(parity.name, parity.disagreements) for parity in report.outputs] == [("prediction", 0)]
    assert report.batch_sizes[:4] == (1, 2, 7, 31)
    assert report.findings == ()


def test_a_module_that_branches_in_python_is_refused_with_its_line(tmp_path: Path) -> None:
    source = saved(nets.seeded(nets.Cleaned), ROWS, tmp_path, serialization_format="pickle", code_paths=[str(HERE)])
    with pytest.raises(Refused, match=r"Cleaned branches on its data \(modules.py, line \d+: if bool"):
        convert(source, "onnx", ConvertOptions(allow_pickle=("code/*",)))
