"""How soon a server answers rightly after its process was started, and how large it then is, beside its peers.

``python bench/start.py`` starts each several times, in turn, on the linear model and the forest of bench/served.py, and
prints the medians; it also times ``modelrel --version``. Results go to bench/results/.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import load
import peers
import served

SLOW = ("mlserver", "mlflow", "bentoml")


def measured(name: str, rounds: int, without: list[str]) -> list[dict[str, Any]]:
    """Return a line for each server of a model: seconds and MiB, and both as multiples of the bare handler's."""
    trained = getattr(served, name)()
    seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = load.servers(trained, work, set(SLOW) - set(without))
        for turn in range(rounds):
            for peer in found:
                form, rows = peer.forms[0]
                label = f"{peer.label} {form}"
                if turn and peer.label in SLOW:
                    continue
                process, took = peers.start(peer.server, load.body(trained, peer, form, rows))
                seconds.setdefault(label, []).append(took)
                memory.setdefault(label, []).append(peers.memory_mib(process))
                peers.stop(process)
    lines = []
    for server_name, times in seconds.items():
        took, size = statistics.median(times), statistics.median(memory[server_name])
        line = {"model": name, "server": server_name, "start_s": took, "memory_mib": size}
        line["start_of_bare"] = took / statistics.median(seconds["bare json"])
        line["memory_of_bare"] = size / statistics.median(memory["bare json"])
        lines.append(line)
    return lines


def command_ms(*words: str) -> float:
    """Return the median of the milliseconds that a Python command takes."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=peers.HERE.parent)
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def main() -> None:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="starts of each; the median counts (default: 7)")
    parser.add_argument("--models", nargs="*", default=["linear", "forest"])
    parser.add_argument("--without", nargs="*", default=[], choices=SLOW, help="peers to leave out")
    options = parser.parse_args()
    lines = [line for name in options.models for line in measured(name, options.rounds, options.without)]
    print(f"\n{'model':<9}{'server':<17}{'start s':>9}{'of bare':>9}{'MiB':>8}{'of bare':>9}")
    for line in lines:
        row = f"{line['model']:<9}{line['server']:<17}{line['start_s']:>9.2f}{line['start_of_bare']:>9.2f}"
        print(f"{row}{line['memory_mib']:>8.0f}{line['memory_of_bare']:>9.2f}")
    command, python = command_ms("-m", "modelrel", "--version"), command_ms("-c", "pass")
    print(f"\nmodelrel --version: {command:.0f} ms (python -c pass: {python:.0f} ms)")
    now = dt.datetime.now(dt.UTC)
    target = peers.HERE / "results" / f"start-{now:%Y%m%d-%H%M%S}.json"
    target.parent.mkdir(exist_ok=True)
    machine = {"when": now.isoformat(timespec="seconds"), "python": platform.python_version(), "cores": os.cpu_count()}
    target.write_text(json.dumps({**machine, "figures": lines, "version_ms": command, "python_ms": python}, indent=1))
    print(f"written to {target.relative_to(peers.HERE.parent)}")


if __name__ == "__main__":
    main()
