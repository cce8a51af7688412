"""The embedded VMM: a drop-in for Firecracker whose guest memory is real and whose CPU is simulated.

One process is started per VM, so what it imports is bounded: the standard library only, and of that neither argparse
nor dataclasses nor pathlib nor http, which would cost more than all of the VMM's own code.
"""

from typing import Final

APP_NAME: Final = "forktui embedded VMM"
VERSION: Final = "0.1.0"
SNAPSHOT_VERSION: Final = "1.1.0"
"""The format of a state-file; a state-file of another version is refused."""
