"""How soon a packaged function answers after its process was started, beside a bare script that does what it must.

``python bench/lambda_start.py`` trains the XGBoost model of ``make demo``, releases it as a Lambda zip, unpacks that,
and starts both in turn with the same interpreter. The function is driven by AWS's runtime client (awslambdaric) over
the Runtime API; its time ends with the first right answer. The bare script imports onnxruntime from the same wheels as
pip installs them (compiled, nothing left out), loads the same file, and infers one row; its time ends when it says so.
Beside the time by the wall stands that of the processor, all threads of the process up to its answer: on a machine that
does other things meanwhile it is the one to believe.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from modelrel import interpreters, wheels
from modelrel.delivered import Package
from modelrel.steps.convert import convert
from modelrel.steps.package import package
from modelrel.steps.verify import verify
from modelrel.targets import function, payload
from modelrel.targets.questions import Golden
from modelrel.values import ConvertOptions, PackageOptions, VerifyOptions

BARE = """
import json, sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", options, providers=["CPUExecutionProvider"])
with open(sys.argv[1] + "/golden.json") as stream:
    row = json.load(stream)["inputs"]
types = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}
feeds = {one.name: np.array(row[one.name][:1], types[one.type]) for one in session.get_inputs()}
session.run(None, feeds)
print("answered", flush=True)
sys.stdin.read()
"""


def packaged(folder: Path, python: str) -> Package:
    """Return the XGBoost model of the demo (handwritten digits), packaged as a zip."""
    from sklearn.datasets import load_digits
    from xgboost import XGBClassifier

    from tests.models import logged

    rows, target = load_digits(return_X_y=True, as_frame=True)
    model = XGBClassifier(n_estimators=20, max_depth=4, random_state=0).fit(rows, target)
    source = logged(model, rows, folder, flavor="xgboost")
    report = verify(convert(source, "onnx", ConvertOptions()), VerifyOptions(rows=200, budget=20.0))
    return package(report, "lambda", PackageOptions(python=python, platform=wheels.host_platform()))


def installed(made: Package, folder: Path, program: Path) -> Path:
    """Return a folder with the wheels of a package, whole and compiled as pip does it."""
    lock = made.folder / Path(made.artifact).parent / payload.LOCK
    words = [wheels.uv(), "pip", "install", "--quiet", "--python", str(program), "--target", str(folder)]
    words += ["--compile-bytecode", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    words += ["--requirement", str(lock)]
    subprocess.run(words, check=True)
    return folder


class Took(NamedTuple):
    """Seconds until the first answer, by the wall and of the processor."""

    wall: float
    cpu: float

    @classmethod
    def since(cls, begun: float) -> Took:
        """Return what the one process that we have started took, `begun` being its `time.perf_counter()`."""
        wall = time.perf_counter() - begun
        tasks = Path("/proc/self/task").glob("*/children")
        (child,) = (int(pid) for task in tasks for pid in task.read_text(encoding="ascii").split())
        return cls(wall, time.clock_gettime(~child << 3 | 2))  # a process's clock, as clock_getcpuclockid(3) names it


def ours(made: Package) -> Took:
    """Return what the function took to its first right answer."""
    golden = Golden.of(made.parity)
    one = golden.take(slice(0, 1))
    with ExitStack() as stack:
        running = stack.enter_context(function.launch(made, lambda _: None))
        one.judge_infer(running.send(*one.infer()))
        return Took.since(running.started)


def bare(program: Path, folder: Path, model: Path, **more: str) -> Took:
    """Return what the bare script took until it had its answer."""
    begun = time.perf_counter()
    environment = {"PATH": os.defpath, "PYTHONPATH": str(folder), "ORT_DISABLE_TELEMETRY": "1", **more}
    words = [str(program), "-S", "-s", "-c", BARE, str(model)]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"answered\n"
        return Took.since(begun)


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="starts of each; the median counts (default: 15)")
    options = parser.parse_args()
    python = next((one for one in ("3.13", "3.12", "3.14") if interpreters.find(one)), "")
    program = interpreters.find(python)
    if program is None:
        sys.exit("none of the Pythons that AWS Lambda has is here: uv python install 3.13")
    with tempfile.TemporaryDirectory() as work:
        made = packaged(Path(work, "release"), python)
        whole = installed(made, Path(work, "whole"), program)
        model = made.converted.path.parent
        took: dict[str, list[Took]] = {"function": [], "bare": [], "bare, one BLAS thread": []}
        for _ in range(options.rounds + 1):
            took["function"].append(ours(made))
            took["bare"].append(bare(program, whole, model))
            took["bare, one BLAS thread"].append(bare(program, whole, model, OPENBLAS_NUM_THREADS="1"))
        medians = {  # the first fills the caches
            name: Took(*map(statistics.median, zip(*times[1:], strict=True))) for name, times in took.items()
        }
        print(f"the zip has {made.size / 1e6:.1f} MB; Python {python}, medians of {options.rounds} starts:")
        least = medians["bare"]
        for name, one in medians.items():
            wall, cpu = (
                f"{its * 1e3:>5.0f} ms, {its / of_bare:.2f} of bare" for its, of_bare in zip(one, least, strict=True)
            )
            print(f"{name:<24}{wall}; processor {cpu}")
        figures: dict[str, Any] = {"python": python, "zip_bytes": made.size, "medians_s": medians, "all_s": took}
    target = Path(__file__).parent / "results" / f"lambda-start-{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(figures, indent=1))
    print(f"written to {target.relative_to(Path(__file__).parent.parent)}")


if __name__ == "__main__":
    main()
