"""What a person sees while the steps run: one line a stage, a spinner on a terminal; all of it on stderr."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from modelrel.show import megabytes
from modelrel.steps.stages import StageResult

_MARKS = {
    "done": "[green]✓[/green]",
    "up to date": "[dim]=[/dim]",
    "would change": "[yellow]~[/yellow]",
    "would be refused": "[red]✗[/red]",
}


class Progress:
    """Listens to a release. `quiet` shows nothing; `verbose` shows every note as a line of its own."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        """Prepare; nothing is shown yet."""
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, quiet=quiet, soft_wrap=True)
        self._verbose = verbose
        self._status: Any = None
        self.running = ""
        """The stage that began and has not ended: where a release stopped, when it did."""
        self._begun = 0.0
        self._told = 0.0

    def begin(self, stage: str) -> None:
        """Show that a stage starts."""
        self.stop()
        self.running, self._begun = stage, time.monotonic()
        self._told = self._begun
        if self._console.is_terminal:
            self._status = self._console.status(f"{stage}…")
            self._status.start()

    def note(self, text: str) -> None:
        """Show what the stage is doing."""
        if self._verbose:
            self._console.print(f"  {text}", style="dim", markup=False)
        elif self._status is not None:
            first = text.strip().splitlines()[0][:100] if text.strip() else ""
            self._status.update(f"{self.running}: {_plain(first)}…")
        elif time.monotonic() - self._told > 1.0 and text.strip():
            # a log without a terminal gets a line when a stage takes its time, not one for every note
            self._told = time.monotonic()
            self._console.print(f"  {self.running}: {text.strip().splitlines()[0][:160]}", style="dim", markup=False)

    def end(self, result: StageResult) -> None:
        """Show how the stage ended."""
        self.stop()
        self.running = ""
        size = f", {megabytes(result.size)}" if result.size else ""
        took = f" [dim]({result.seconds:.1f} s{size})[/dim]"
        same = " [dim]up to date[/dim]" if result.outcome == "up to date" else ""
        mark = _MARKS[result.outcome]
        self._console.print(f"{mark} {result.stage:<16}{same} {_plain(result.detail)}{took}")

    @property
    def seconds(self) -> float:
        """How long the running stage has taken so far."""
        return time.monotonic() - self._begun if self.running else 0.0

    def say(self, text: str) -> None:
        """Show a line."""
        self.stop()
        self._console.print(text, markup=False)

    def stop(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            with suppress(Exception):
                self._status.stop()
            self._status = None


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
