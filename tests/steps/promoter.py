"""A long-lived process that promotes when it is told to: a line of JSON words in, a line with the exit code out."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from modelrel.commands import main
from modelrel.registry import turns


def run(words: list[str]) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    text = out.getvalue()
    return {"code": code, "answer": json.loads(text) if text.strip() else {}, "err": err.getvalue()[-2000:]}


if __name__ == "__main__":
    turns.PATIENCE_S = float(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
