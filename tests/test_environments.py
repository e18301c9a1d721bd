"""The worker: whatever a model does to its own process, the host hears one sentence and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from modelrel.environments import Limits, Worker
from modelrel.errors import Invalid, ModelrelError, Refused, Unavailable
from modelrel.values import SourceModel
from tests.models import by_hand, hostile, logged

ROWS = {"x": np.zeros((1, 1))}
MINUTE = Limits(seconds=60)
SIGNATURE = {"kind": "columns", "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}], "outputs": []}


def stop(source: SourceModel, limits: Limits = MINUTE) -> ModelrelError:
    with Worker(source, limits) as worker, pytest.raises(ModelrelError) as found:
        worker.call("predict", ROWS, signature=SIGNATURE)
    return found.value


def test_a_model_that_exits_is_refused_with_its_exit_code_and_last_words(tmp_path: Path) -> None:
    found = stop(hostile(tmp_path, "import os; print('so long', flush=True); os._exit(3)"))
    assert isinstance(found, Refused)
    assert "exit code 3" in found.message
    assert "so long" in found.message


def test_a_model_that_kills_its_group_does_not_kill_the_host(tmp_path: Path) -> None:
    found = stop(hostile(tmp_path, "import os, signal; os.killpg(0, signal.SIGKILL)"))
    assert isinstance(found, Refused)
    assert "SIGKILL" in found.message


def test_a_model_that_crashes_is_refused_with_the_signal(tmp_path: Path) -> None:
    assert "SIGSEGV" in stop(hostile(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")).message


def test_a_model_that_never_ends_is_stopped_at_its_limit(tmp_path: Path) -> None:
    start = time.monotonic()
    found = stop(hostile(tmp_path, "while True: pass"), Limits(seconds=2))
    assert isinstance(found, Refused)
    assert "longer than 2 seconds" in found.message
    assert time.monotonic() - start < 10


def test_a_model_that_eats_memory_is_stopped_at_its_limit(tmp_path: Path) -> None:
    code = "import time; x = [bytearray(b'x' * 2**20) for _ in range(1500)]; time.sleep(30)"
    found = stop(hostile(tmp_path, code), Limits(seconds=60, memory_bytes=400 * 2**20))
    assert isinstance(found, Refused)
    assert "400 MiB" in found.message


def test_one_huge_allocation_is_refused_before_it_hurts(tmp_path: Path) -> None:
    found = stop(hostile(tmp_path, "x = bytearray(2**36)"), Limits(seconds=60, memory_bytes=400 * 2**20))
    assert isinstance(found, Refused)
    assert "memory" in found.message


def test_what_a_model_prints_does_not_corrupt_the_protocol_and_is_kept_in_part(tmp_path: Path) -> None:
    source = hostile(tmp_path, "import sys; print('x' * 2**24); sys.stderr.write('the end\\n')")
    with Worker(source) as worker:
        with pytest.raises(ModelrelError, match="NoneType"):
            worker.call("predict", ROWS, signature=SIGNATURE)
        assert "the end" in worker.log_tail()
        assert len(worker.log_tail(10**6)) <= 64 * 1024


def test_a_model_that_reads_stdin_gets_nothing_and_the_requests_stay_whole(tmp_path: Path) -> None:
    found = stop(hostile(tmp_path, "import sys; assert sys.stdin.read() == ''"), Limits(seconds=20))
    assert "seconds" not in found.message


def test_a_model_that_answers_in_the_workers_place_is_refused(tmp_path: Path) -> None:
    code = "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'hello\\n')\n    except OSError: pass"
    found = stop(hostile(tmp_path, code))
    assert isinstance(found, Invalid)
    assert "not what was asked for" in found.message


def test_credentials_are_not_in_the_environment_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "GITHUB_TOKEN", "HTTPS_PROXY")
    for name in secrets:
        monkeypatch.setenv(name, "hush")
    source = hostile(tmp_path, "import os; print(sorted(os.environ)); print('home', os.environ['HOME'])")
    with Worker(source) as worker:
        with pytest.raises(ModelrelError):
            worker.call("predict", ROWS, signature=SIGNATURE)
        log = worker.log_tail(200)
    assert "'PATH'" in log
    assert not [name for name in secrets if name in log]
    assert f"home {os.environ['HOME']}\n" not in log


def test_a_truncated_pickle_is_invalid_and_names_the_file(tmp_path: Path) -> None:
    found = stop(by_hand(tmp_path, b"\x80\x04\x95\x20\x00"))
    assert isinstance(found, Invalid)
    assert "model.pkl cannot be loaded" in found.message
    assert found.hint


def test_a_missing_library_is_named_with_the_version_that_was_logged(tmp_path: Path) -> None:
    found = stop(by_hand(tmp_path, b"cno_such_library.models\nModel\n.", "numpy\nno-such-library==4.2\n"))
    assert isinstance(found, Unavailable)
    assert "no_such_library" in found.message
    assert "pip install no-such-library==4.2" in found.hint


def test_a_class_of_the_training_script_is_refused_with_the_way_out(tmp_path: Path) -> None:
    found = stop(by_hand(tmp_path, b"c__main__\nMyModel\n."))
    assert isinstance(found, Refused)
    assert "MyModel" in found.message
    assert "code_paths" in found.hint


def test_nothing_of_a_worker_stays_behind(tmp_path: Path) -> None:
    code = "import subprocess as s, sys; print(s.Popen([sys.executable, '-c', 'import time; time.sleep(77)']).pid)"
    with Worker(hostile(tmp_path, code)) as worker:
        with pytest.raises(ModelrelError):
            worker.call("predict", ROWS, signature=SIGNATURE)
        home, child = worker._home, int(worker.log_tail(100).split()[0])
    assert home is not None
    assert not home.exists()
    assert gone(child, 60)


def test_a_worker_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    hostile(tmp_path, "import time; time.sleep(120)")
    code = (
        "import sys; from pathlib import Path; from tests.models import pulled; "
        "from modelrel.environments import Worker; "
        f"w = Worker(pulled(Path({str(tmp_path)!r}), 'sklearn')).start(); "
        "print(w._process.pid, flush=True); sys.stdin.read()"
    )
    top = Path(__file__).resolve().parent.parent
    host = subprocess.Popen(
        [sys.executable, "-c", code], cwd=top, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    time.sleep(1)
    host.send_signal(signal.SIGKILL)
    host.wait()
    assert gone(pid, 60)


def gone(pid: int, seconds: float) -> bool:
    """Whether a process (a zombie does not count) ends within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_every_row_that_a_model_can_answer_is_answered_whatever_stands_between(tmp_path: Path) -> None:
    asked = np.arange(24.0)
    asked[1::3], asked[2::6] = np.inf, np.nan
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    with Worker(logged(model, np.zeros((3, 1)), tmp_path), MINUTE) as worker:
        rows = {"x": asked.reshape(-1, 1)}
        tensor = {"kind": "tensor", "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 1]}], "outputs": []}
        reply = worker.call("predict", rows, signature=tensor)
    kept = reply.value["kept"]
    assert sorted(kept) == np.flatnonzero(np.isfinite(asked)).tolist()
    np.testing.assert_allclose(reply.arrays["prediction"].ravel(), 2 * asked[kept], atol=1e-12)
    assert sum(reply.value["raised"].values()) == len(asked) - len(kept)
