"""Few pauses for garbage: what a dashboard of thousands holds is not looked through again and again."""

import gc
from typing import Final

THRESHOLDS: Final = (20_000, 50, 100)
"""Of objects, and of collections of the younger generations.

Records and counters are in no circles: they go with their last reference. By Python's own thresholds the collector
looks through all of them whenever a quarter is new, as counters are twice a second: for a tenth of a second.
"""


def collect_seldom() -> None:
    """Have all that there is by now left alone for ever, and what comes looked through seldom."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
