"""Guests that end by themselves, each in its own way."""

from typing import Any, Final

from tests.linux.inside.host import ENDED, Host

END: Final = {
    "panic": r"Rebooting in 1 seconds",
    "exit": r"Rebooting in 1 seconds",
    "reboot": r"reboot: Restarting system",
    "reset": r"sysrq: Resetting",
    "poweroff": r"System halted",
}
"""The last that each prints."""
GOES_ON: Final = "poweroff"
"""There is no ACPI to switch off by: the kernel halts, and its VMM waits for it."""
TRIPLE_FAULT: Final = ("do=reboot", "reboot=t")


def run(host: Host) -> None:
    """Begin with a guest for each end; end with nothing left."""
    ways = {name: (f"do={name}",) for name in END} | {"triple-fault": TRIPLE_FAULT}
    for name, words in ways.items():
        host.create(name, "plain", cmd=words)
    for name in ways:
        host.until_says(name, END.get(name, END["reboot"]))
    for name in ways:
        if name != GOES_ON:
            host.until_state(name, *ENDED)
    said = host.until_statistics(GOES_ON, "said to have ended", _says_its_last)
    host.see("last words", said["pages"]["last_words"])
    host.see("instances", {name: host.get(name) for name in ways})


def _says_its_last(statistics: Any) -> bool:
    pages = statistics["pages"]
    return pages is not None and pages["last_words"] is not None
