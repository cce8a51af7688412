"""`forktui-supervisor`: own the host's VMs and answer on a socket, until SIGTERM; the VMs go on without it."""

import sys
from collections.abc import Sequence

from supervisor.daemon.startup_priority import StartupPriority
from supervisor.programs import run_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the supervisor; return 0 where it was asked to stop, 1 where it failed, 2 where an option is wrong."""
    priority = StartupPriority()

    def run() -> int:
        # Most of a start is these imports.
        from supervisor.daemon.command import run

        return run(arguments, priority)

    try:
        return run_program("forktui-supervisor", run)
    finally:
        priority.end()


if __name__ == "__main__":
    sys.exit(main())
