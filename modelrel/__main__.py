"""`python -m modelrel` and the `modelrel` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] == ["--version"]:
        # asked by scripts, often: not worth importing a command line for
        from modelrel import __version__

        print(f"modelrel {__version__}")  # noqa: T201
        return
    from modelrel.commands import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
