"""`forktui`: the dashboard and every command; `python -m forktui` is the same."""

import sys
from collections.abc import Sequence

from supervisor.programs import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code, and 1 where it is interrupted before there is anything to end."""

    def run() -> int:
        # Most of a start is these imports.
        from forktui.cli.main import main as run

        return run(arguments)

    return run_program("forktui", run)


if __name__ == "__main__":
    sys.exit(main())
