"""How a program of this package is started so that nothing but the package and the standard library can be imported."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])


def isolated_command(program: str) -> tuple[str, ...]:
    """Return the command that runs `program`, Python statements for which `sys` is imported.

    The working directory and the user's environment must not decide what is imported, so the interpreter is isolated
    (-I) and told where this package lies, whichever way it was installed; its own library comes first. It needs no
    site-packages (-S), whose .pth files would cost it more than its own start.
    """
    return sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({_ROOT!r}); {program}"
