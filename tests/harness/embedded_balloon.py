"""An embedded VMM whose guest has ballast for a balloon, and what the ballast holds."""

from pathlib import Path

from supervisor.guests.pagewalker import MIB, PAGE_SIZE, pattern
from tests.harness.pagewalker_guest import write_config
from tests.harness.vmm_process import Start, VmmProcess

MEM_MIB = 64
MEMORY = MEM_MIB * MIB
HOT_MIB = 1
BALLAST_MIB = 4
SEED = 3
ONCE = f"hot_mib={HOT_MIB} passes=1 seed={SEED} ballast_mib={BALLAST_MIB}"
FOR_EVER = f"hot_mib={HOT_MIB} passes=0 seed={SEED} ballast_mib={BALLAST_MIB}"
BALLAST = MEMORY - BALLAST_MIB * MIB
PAGES = MIB // PAGE_SIZE


def boot(start: Start, folder: Path, boot_args: str, balloon_mib: int = 0, track: bool = False) -> VmmProcess:
    vmm = start("--config-file", write_config(folder, boot_args, MEM_MIB, balloon_mib, track))
    vmm.console.until("pass 1")
    return vmm


def inflate_to(vmm: VmmProcess, amount_mib: int) -> None:
    """Have the balloon get this large, or small, and return when it is."""
    before = len(vmm.console.all())
    vmm.set_balloon(amount_mib)
    vmm.console.until(f"balloon {amount_mib * PAGES}", skip=before)


def pass_once_more(vmm: VmmProcess) -> None:
    """Return when the guest has begun and ended a pass."""
    seen = len(vmm.console.all())
    seen += len(vmm.console.until("pass", skip=seen)[seen:])
    lines = vmm.console.until("pass", skip=seen)
    assert not any("CORRUPT" in line for line in lines)


def ballast(mem_file: Path) -> list[str]:
    """What the MiB of the ballast hold, from the lowest up."""
    memory = mem_file.read_bytes()
    assert len(memory) == MEMORY
    return ["pattern" if _is_pattern(memory, at) else _zeros(memory, at) for at in range(BALLAST, MEMORY, MIB)]


def _is_pattern(memory: bytes, start: int) -> bool:
    for page in range(start, start + MIB, PAGE_SIZE):
        word = pattern(SEED, page).to_bytes(8, "little")
        if memory[page : page + PAGE_SIZE] != word + bytes(PAGE_SIZE - 16) + word:
            return False
    return True


def _zeros(memory: bytes, start: int) -> str:
    assert not any(memory[start : start + MIB])
    return "zeros"
