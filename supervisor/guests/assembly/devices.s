# The registers of devices, mapped, and the interrupts by which they wake the guest.

# Gives the fourth GiB a page directory, by its entry in Firecracker's page directory pointers. Keeps rsi.
map_devices:
    mov rax, cr3
    mov rax, [rax]
    and rax, -PAGE
    mov qword ptr [rax + 3 * 8], DEVICE_PAGES + PRESENT_WRITABLE
    mov edi, IOAPIC
    call map_device
    mov edi, LAPIC
map_device:                                     # the 2 MiB around edi, in the fourth GiB
    mov eax, edi
    shr eax, LARGE_PAGE_SHIFT
    mov ecx, eax
    and ecx, 511
    shl eax, LARGE_PAGE_SHIFT
    add eax, LARGE_DEVICE_PAGE
    mov [DEVICE_PAGES + rcx * 8], eax
    ret

# Lets any device's interrupt end the hlt after `done`: Firecracker raises the generation id's when it loads a snapshot,
# the balloon's when it gets another target, and a network interface's when frames have come.
accept_wakeups:
    mov al, 0xff                                # both 8259s silent: each line goes to them as well as to the IOAPIC
    out 0x21, al
    out 0xa1, al
    mov rax, [wake_gate]
    mov [IDT + WAKE_VECTOR * 16], rax
    lidt [idt_register]
    mov eax, LAPIC
    mov dword ptr [rax + LAPIC_SPURIOUS], LAPIC_ENABLED + WAKE_VECTOR
    mov edi, IOAPIC
    mov ecx, IOAPIC_REDIRECTION + 2 * 5         # Firecracker's devices have the pins 5 to 23 (arch/x86_64/layout.rs)
1:  mov [rdi], ecx
    mov dword ptr [rdi + IOAPIC_DATA], WAKE_VECTOR # edge-triggered, not masked; to APIC 0, as after reset
    add ecx, 2
    cmp ecx, IOAPIC_REDIRECTION + 2 * 24
    jne 1b
    ret
