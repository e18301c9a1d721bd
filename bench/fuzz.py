"""A hundred thousand hostile requests to a real server, which is not to crash, hang, fail or grow.

``python bench/fuzz.py`` starts the server on a model of five columns and on one of a tensor, and sends both what
tests/serving/hostile.py makes of a seed: half of it well-formed HTTP with anything in it, half of it broken HTTP. It
prints how often each status came and how the memory grew, and ends with 1 if anything was the server's fault.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

import psutil  # noqa: E402

from tests.serving.conftest import columns_folder, start, tensor_folder  # noqa: E402
from tests.serving.hostile import broken_http, exchange, request  # noqa: E402

LIMIT_MIB = 32


def fuzz(name: str, folder: Path, seed: int, count: int) -> list[str]:
    """Send ``count`` requests to a server of a folder; return what it is to blame for."""
    running = start(folder, "--max-body", "1000000", "--no-access-log")
    process = psutil.Process(running.process.pid)
    rng = random.Random(seed)
    statuses: collections.Counter[int] = collections.Counter()
    blamed: list[str] = []
    warm, peak, began = 0.0, 0.0, time.monotonic()
    sent = 0
    try:
        while sent < count and len(blamed) < 10:
            if rng.random() < 0.2:  # a connection of its own, which is where broken HTTP ends
                data, sent = broken_http(rng), sent + 1
            else:
                data, sent = b"".join(request(rng).wire() for _ in range(10)), sent + 10
            try:
                found = exchange(running.port, data)
            except TimeoutError:
                blamed.append(f"hangs: {data[:2000]!r}")
                continue
            statuses.update(found)
            if any(status >= 500 for status in found):
                blamed.append(f"{found}: {data[:5000]!r}")
            memory = process.memory_info().rss / 2**20
            warm = warm or (memory if sent > count / 10 else 0.0)
            peak = max(peak, memory)
        if exchange(running.port, b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n") != [200]:
            blamed.append("is not ready at the end")
        end = process.memory_info().rss / 2**20
        if running.stop():
            blamed.append("does not end with 0")
        said = running.process.stderr.read() if running.process.stderr else ""
        if said:
            blamed.append(f"says: {said[:2000]}")
    finally:
        running.process.kill()
    if end - warm > LIMIT_MIB:
        blamed.append(f"grows from {warm:.0f} to {end:.0f} MiB")
    seconds = time.monotonic() - began
    print(f"{name}, seed {seed}: {sent} requests in {seconds:.0f} s, {dict(sorted(statuses.items()))}")
    print(f"  memory {warm:.1f} MiB after a tenth, {end:.1f} at the end, {peak:.1f} at most", flush=True)
    return blamed


def main() -> int:
    """Fuzz both models; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="to send in all (default: 100000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="(default: a new one)")
    options = parser.parse_args()
    blamed = []
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("columns", columns_folder), ("tensor", tensor_folder)):
            blamed += fuzz(name, make(Path(folder) / name), options.seed, options.requests // 2)
    print("\n".join(blamed) or "nothing is the server's fault")
    return bool(blamed)


if __name__ == "__main__":
    sys.exit(main())
