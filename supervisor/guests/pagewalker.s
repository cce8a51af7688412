# pagewalker: a freestanding guest that fills a hot set of pages, then walks and verifies it again and again.
# What it keeps where and what it prints: pagewalker.py. How to build it: build.py.
#
# Entry: Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst): rsi = boot_params. Firecracker identity-maps
# the first 1 GiB. General registers only. Where a KVM emulates the guest, each instruction costs about 1 us, so the
# walk is unrolled and does nothing but compare.
#
# Registers of the walk:
#   rbx  address of the VM generation id     r14, r15  its 16 bytes as last seen
#   rbp  seed                                r8        GOLDEN
#   r9   end of the hot set                  r11       passes
#   r12  passes since boot or restore        r13       walks since boot
#   r10  0 where there is no device to look at now and then: no network interface, no balloon, or no ballast for it

    .intel_syntax noprefix
    .include "assembly/constants.s"
    .include "assembly/elf_header.s"

    .text
    elf_header KERNEL_BASE, "IMAGE_END - KERNEL_BASE", PAGE

    .globl _start
_start:
    mov esp, STACK_TOP
    call map_devices
    call read_command_line
    cmp dword ptr [network_device], 0
    je 1f
    call take_address
1:  call check_memory
    call map_upper
    call find_generation_id
    call accept_wakeups
    mov r14, [rbx]
    mov r15, [rbx + 8]
    movabs r8, GOLDEN
    mov rbp, [seed]
    mov r11, [passes]
    mov r9, [hot_mib]
    shl r9, 20
    add r9, HOT_BASE
    mov r10, [ballast_mib]
    test r10, r10
    cmovne r10, [balloon_device]
    mov [balloon_device], r10
    or r10, [network_device]
    call fill
    mov esi, offset text_ready
    call print

# It goes on where walk.s begins.
    .include "assembly/walk.s"
    .include "assembly/end.s"
    .include "assembly/pattern.s"
    .include "assembly/balloon.s"
    .include "assembly/command_line.s"
    .include "assembly/memory.s"
    .include "assembly/upper.s"
    .include "assembly/generation_id.s"
    .include "assembly/devices.s"
    .include "assembly/printing.s"
    .include "assembly/virtio.s"
    .include "assembly/data.s"

# Where there is no network interface nothing behind here is touched: it is behind the first page, most of it.
    .include "assembly/network.s"
    .include "assembly/frames.s"
    .include "assembly/probes.s"
image_end:
