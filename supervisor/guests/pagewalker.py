"""What pagewalker puts where in guest memory and what it prints: the contract of the ELF guest and the simulated CPU.

Guest memory is identified by guest-physical address, which is also the offset in a mem-file below Firecracker's MMIO
gap; memory above the gap follows at once (`mem_file_offset`).

- The hot set is `hot_mib` MiB from `HOT_BASE`. The first and the last 64-bit word of each page hold
  `pattern(seed, page address)`; the words between are zero.
- The scratch set is `SCRATCH_PAGES` pages from `SCRATCH_BASE`. Each pass first checks that the first word of each is
  what the walk before wrote, then writes `pattern(seed, page address) + walks` there, where `walks` counts the passes
  since boot, across restores.
- The ballast is the last `ballast_mib` MiB of memory, or of its first GiB, filled like the hot set. A virtio balloon
  takes it page by page from its end downwards and gives the last page taken back first, up to the device's target or
  the whole ballast. Each pass verifies it after the hot set: pages that the balloon never took hold the pattern, those
  that it gave back are zero in both words, those that it holds are not touched.
- The upper set is `upper_mib` MiB from `UPPER_BASE`, filled like the hot set: memory above the gap is a KVM slot of its
  own. Each pass verifies it after the scratch set; every second one then adds 1 to the first word of each page.
- A restore is noticed by the 16 bytes of the VM generation id, compared at the start of a pass, once per MiB walked,
  and before a pass is printed.
- After its last pass, `done`, it ends by itself where `end` is not 0: it says what Linux would and resets its machine
  by the keyboard controller (1: a reboot, 2: a panic), ends in a triple fault (3), or halts for good (4); a reset with
  nothing said is 5.
- Where there is ballast, the balloon's target is read once per MiB walked as well, and followed at once. A guest that
  is done follows it too.

- Where its VM has a network interface it answers what comes on the first one: once per MiB walked, and at once when it
  is done. It is at `ip=`, else at `IP`: a host of a /30, whose other host is the gateway. It answers ARP requests, ICMP
  echo requests, and datagrams to `QUESTIONS_PORT` by a line, `generation <32 hex digits> passes N asked <question>`:
  the VM generation id's bytes in memory, and the question up to a control character or for 1024 bytes.
  The question `probe A.B.C.D` has it ask for the gateway's MAC and send that address an echo request, once. A later
  probe takes its place. Nothing is sent again: whoever asks does that.
- It drops frames of more than 4067 bytes, fragments, IP with options, wrong checksums (a datagram may have none), IP to
  another MAC, and datagrams from `QUESTIONS_PORT`. It assumes that checksums and segments are whole, since it takes no
  feature but VERSION_1 and MAC; that its VMM keeps to the rings; and that an answer finds its way from where the
  request was sent by: it goes to that MAC.

Console lines, each ended by a newline: `ready`, `pass N`, `balloon <pages>` when the balloon has taken or given back
what it should and holds so many, `restored`, `done`, `CORRUPT 0x<address>`, `probe A.B.C.D answered`, the words of an
end, and `error: <reason>` where the command line cannot be followed.
"""

from typing import Final

PAGE_SIZE: Final = 4096
MIB: Final = 1 << 20
KERNEL_BASE: Final = 0x1000000
SCRATCH_BASE: Final = 0x1800000
SCRATCH_PAGES: Final = 16
HOT_BASE: Final = 0x2000000

GAP_BASE: Final = 3 << 30
"""Where memory stops to go on at UPPER_BASE: MMIO32_MEM_START in Firecracker's src/vmm/src/arch/x86_64/layout.rs from
1.13 on, and so in the embedded VMM."""
OLD_GAP_BASE: Final = 3328 * MIB
"""The same in 1.12: MMIO_MEM_START in its src/vmm/src/arch/x86_64/mod.rs."""
UPPER_BASE: Final = 4 << 30
"""FIRST_ADDR_PAST_32BITS, beside them."""

MAX_UPPER_MIB: Final = 1024
"""One page directory maps no more."""
MAX_HOT_MIB: Final = 992
"""Firecracker maps the guest's first GiB (setup_page_tables in its arch/x86_64/regs.rs), and pagewalker no more RAM."""
DEFAULT_HOT_MIB: Final = 16
DEFAULT_PASSES: Final = 8
DEFAULT_SEED: Final = 1
DEFAULT_BALLAST_MIB: Final = 0
DEFAULT_UPPER_MIB: Final = 0
DEFAULT_END: Final = 0
IP: Final = "172.16.0.2"
MAC: Final = "06:00:ac:10:00:02"
"""What it has where its VM's interface names none."""
QUESTIONS_PORT: Final = 7
REBOOT, PANIC, TRIPLE_FAULT, HALT, RESET = range(1, 6)
LAST_WORDS: Final = {
    REBOOT: "reboot: Restarting system",
    PANIC: f"Kernel panic - not syncing: end={PANIC}",
    HALT: "reboot: System halted",
}
"""What it prints before it ends by itself."""

GOLDEN: Final = 0x9E3779B97F4A7C15
"""The 64-bit fraction of the golden ratio: consecutive pages get words far apart."""

WORD_MASK: Final = (1 << 64) - 1


def pattern(seed: int, address: int) -> int:
    """Return the 64-bit word that pagewalker keeps at the ends of the page at `address` (bytes, page-aligned)."""
    return (seed + (address // PAGE_SIZE) * GOLDEN) & WORD_MASK


def minimum_memory(hot_mib: int, ballast_mib: int = DEFAULT_BALLAST_MIB) -> int:
    """Return how many bytes of guest memory a hot set of `hot_mib` MiB and `ballast_mib` MiB of ballast need."""
    return HOT_BASE + (hot_mib + ballast_mib) * MIB


def ballast_end(memory_size: int) -> int:
    """Return the address behind the ballast in a guest with `memory_size` bytes of memory."""
    return min(memory_size, HOT_BASE + MAX_HOT_MIB * MIB)


def mem_file_offset(address: int, gap_base: int = GAP_BASE) -> int:
    """Return where in a mem-file the byte at a guest-physical address is, if the gap begins at `gap_base`."""
    return address if address < gap_base else address - (UPPER_BASE - gap_base)


def upper_writes(walks: int) -> int:
    """Return how often each page of the upper set has been written to after so many walks."""
    return walks // 2
