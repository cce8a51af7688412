"""`forktui`: the dashboard and every command; `python -m forktui` is the same."""

import sys
from collections.abc import Sequence

from supervisor.programs import run_program
from supervisor.system.last_words import escape_tracebacks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code, and 1 where it is interrupted before there is anything to end."""
    escape_tracebacks()

    def run() -> int:
        # Most of a start is these imports.
        from forktui.cli.main import main as run

        return run(arguments)

    return run_program("forktui", run)


if __name__ == "__main__":
    sys.exit(main())
