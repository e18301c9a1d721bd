"""Smoke: what was built is started as its platform would start it, asked, and its answers compared."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Final

import numpy as np

from modelrel import archive, records
from modelrel.delivered import Check, Package, SmokeReport
from modelrel.errors import Refused
from modelrel.targets import TARGETS
from modelrel.targets.delivery import Note, Program, Response, Running, Send
from modelrel.targets.questions import Golden, Request, judge_broken

_BATCH: Final = 200
_TIMED: Final = 100
_PAUSE_S: Final = 0.01


def smoke(package: Package, note: Note = lambda _: None, seconds: float = 120.0) -> SmokeReport:
    """Start what was built and ask it; `seconds` is how long it may take to its first right answer.

    Raises `Refused` for a wrong answer, or a server that dies or stays silent; what was seen until then is written
    beside the package (`SmokeReport.refused.json`). Raises `Unavailable` where nothing here can run it.
    """
    records.intact(package)
    examination = _Examination(package, note)
    try:
        with TARGETS[package.target].launch(package, note) as running:
            if isinstance(running, Program):
                return examination.of_program(running)
            return examination.of(running, seconds)
    except Refused as error:
        content = {
            "record": "SmokeReport.refused",
            "message": error.message,
            "hint": error.hint,
            "package": package.digest,
            "checks": [dataclasses.asdict(check) for check in examination.checks],
        }
        path = archive.within(package.folder, package.artifact).parent / "SmokeReport.refused.json"
        archive.write(path, records.seal(content))
        raise


class _Examination:
    """The questions put to one running server, and what came of them so far."""

    def __init__(self, package: Package, note: Note) -> None:
        self.package = package
        self.note = note
        self.golden = Golden.of(package.parity)
        self.checks: list[Check] = []
        self.one = self.golden.take(slice(0, 1)) if self.golden.any_size else self.golden
        self.rows = 0
        self.worst = 0.0

    def of(self, running: Running, seconds: float) -> SmokeReport:
        first = self._first_answer(running, seconds)
        self.note(f"first right answer after {first:.2f} s")
        send = running.send
        self._infer(send, self.golden, "golden rows by V2 infer")
        self._invoke(send, self.golden, "golden rows by /invocations")
        if self.golden.any_size:
            self._infer(send, self.one, "one row")
            self._infer(send, self.golden.take(np.arange(_BATCH) % self.golden.rows), "a batch")
        for name, shape in running.shapes.items():
            self._infer(shape, self.golden, name)
        for path in ("/v2/health/ready", "/ping"):
            self._health(send, path)
        for name, request in self.golden.broken().items():
            self.checks.append(Check(name=name, detail=judge_broken(self._sent(send, request))))
        self._infer(send, self.golden, "golden rows after broken requests")
        self.note(f"timing {_TIMED} requests of one row")
        times = self._times(send)
        memory = running.memory_bytes()
        running.settled()
        self.checks.extend(running.examined())
        return self._report(running.runner, first, times, memory)

    def of_program(self, running: Program) -> SmokeReport:
        """Ask a program that loaded the file."""
        self._run(running, self.one, "one row")
        first = time.perf_counter() - running.started
        self.note(f"first right answer after {first:.2f} s")
        self._run(running, self.golden, "golden rows")
        if self.golden.any_size:
            self._run(running, self.golden.take(np.arange(_BATCH) % self.golden.rows), "a batch")
        for name, inputs in self.golden.unfit().items():
            said = running.ask(inputs).get("error")
            if not said:
                raise Refused(f"{name} was answered without an error", "See the script of the package.")
            self.checks.append(Check(name=name, detail=str(said)))
        self._run(running, self.golden, "golden rows after what does not fit")
        times = []
        for _ in range(_TIMED):
            begun = time.perf_counter()
            running.ask(self.one.plain())
            times.append((time.perf_counter() - begun) * 1000)
        self.checks.extend(running.examined())
        return self._report(running.runner, first, times, running.memory_bytes())

    def _run(self, running: Program, golden: Golden, name: str) -> None:
        self._count(name, golden, golden.judge(running.ask(golden.plain())))

    def _report(self, runner: str, first: float, times: list[float], memory: int) -> SmokeReport:
        return SmokeReport(
            package=self.package,
            runner=runner,
            checks=tuple(self.checks),
            rows=self.rows,
            max_abs_error=self.worst,
            first_answer_s=round(first, 4),
            p50_ms=round(statistics.median(times), 4),
            p99_ms=round(sorted(times)[int(len(times) * 0.99) - 1], 4),
            memory_bytes=memory,
        )

    def _first_answer(self, running: Running, seconds: float) -> float:
        request = self.one.infer()
        while True:
            try:
                response = running.send(*request)
            except ConnectionError as error:
                if time.perf_counter() - running.started > seconds:
                    raise Refused(
                        f"the packaged server gave no answer within {seconds:g} s ({error})",
                        f"Its last lines:\n{running.log().strip()}",
                    ) from error
                time.sleep(_PAUSE_S)
                continue
            self.one.judge_infer(response)
            return time.perf_counter() - running.started

    def _infer(self, send: Send, golden: Golden, name: str) -> None:
        self._count(name, golden, golden.judge_infer(self._sent(send, golden.infer())))

    def _invoke(self, send: Send, golden: Golden, name: str) -> None:
        self._count(name, golden, golden.judge_invocation(self._sent(send, golden.invocation())))

    def _count(self, name: str, golden: Golden, error: float) -> None:
        self.rows += golden.rows
        self.worst = max(self.worst, error)
        self.checks.append(Check(name=name, detail=f"{golden.rows} rows, largest error {error:.3g}"))

    def _sent(self, send: Send, request: Request) -> Response:
        try:
            return send(*request)
        except ConnectionError as error:
            raise Refused(
                f"the packaged server stopped answering: {error}",
                "It closed the connection in the middle of a request.",
            ) from error

    def _health(self, send: Send, path: str) -> None:
        response = self._sent(send, Request("GET", path, {}, b""))
        if response.status != 200:
            raise Refused(
                f"GET {path} is answered with {response.status}, not 200", "A platform would not send traffic."
            )
        self.checks.append(Check(name=f"GET {path}", detail="200"))

    def _times(self, send: Send) -> list[float]:
        each = range(min(self.golden.rows, _TIMED)) if self.golden.any_size else ()
        requests = [self.golden.take(slice(row, row + 1)).infer() for row in each] or [self.golden.infer()]
        times = []
        for number in range(_TIMED):
            begun = time.perf_counter()
            self._sent(send, requests[number % len(requests)])
            times.append((time.perf_counter() - begun) * 1000)
        return times
