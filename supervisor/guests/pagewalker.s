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
#   r10  the balloon device's registers; 0 where there is no balloon, or no ballast for it

    .intel_syntax noprefix

    .set KERNEL_BASE, 0x1000000
    .set SCRATCH_BASE, 0x1800000
    .set SCRATCH_END, SCRATCH_BASE + 16 * 4096
    .set HOT_BASE, 0x2000000
    .set GOLDEN, 0x9E3779B97F4A7C15
    .set PAGE, 4096
    .set MIB, 1 << 20
    .set LAST_WORD, PAGE - 8
    .set UNROLL, 8                              # pages; divides a MiB
    .set MAX_HOT_MIB, 992                       # HOT_BASE + this is the end of the identity map
    .set MAPPED_END, 1 << 30

    .set OPTION_NAME, 8                         # an option: its value, then its name and '=', zero-terminated
    .set OPTION_SIZE, 24

    .set SERIAL, 0x3f8
    .set ACPI_RSDP_ADDR, 0x70                   # offsets in boot_params (arch/x86/include/uapi/asm/bootparam.h)
    .set E820_ENTRIES, 0x1e8
    .set CMD_LINE_PTR, 0x228
    .set E820_TABLE, 0x2d0
    .set E820_ENTRY_SIZE, 20
    .set E820_RAM, 1
    .set SDT_HEADER_SIZE, 36                    # ACPI 6.5, 5.2: offsets in its tables
    .set SDT_LENGTH, 4
    .set RSDP_XSDT, 24
    .set FADT_X_DSDT, 140

    .set AML_ADDR_SIZE, 17                      # bytes of ADDR, Package{DWord, DWord}

    .set IOAPIC, 0xfec00000
    .set IOAPIC_DATA, 0x10
    .set IOAPIC_REDIRECTION, 0x10               # register of pin 0's low half; two registers a pin
    .set LAPIC, 0xfee00000
    .set LAPIC_EOI, 0xb0
    .set LAPIC_SPURIOUS, 0xf0
    .set LAPIC_ENABLED, 0x100
    .set PRESENT_WRITABLE, 0x3
    .set LARGE_DEVICE_PAGE, 0x93                # present, writable, not cached, 2 MiB
    .set LARGE_PAGE_SHIFT, 21
    .set WAKE_VECTOR, 0x2f                      # no exception's; older APICs set the low 4 bits of the spurious vector

    .set VIRTIO_MAGIC, 0x74726976               # virtio 1.2, 4.2.2: "virt", and offsets in a device's registers
    .set DEVICE_ID, 0x8
    .set DRIVER_FEATURES, 0x20
    .set DRIVER_FEATURES_SEL, 0x24
    .set QUEUE_SEL, 0x30
    .set QUEUE_SIZE_MAX, 0x34
    .set QUEUE_SIZE, 0x38
    .set QUEUE_READY, 0x44
    .set QUEUE_NOTIFY, 0x50
    .set STATUS, 0x70
    .set QUEUE_DESCRIPTORS, 0x80
    .set QUEUE_AVAILABLE, 0x90
    .set QUEUE_USED, 0xa0
    .set BALLOON, 5                             # its DEVICE_ID
    .set BALLOON_TARGET, 0x100                  # num_pages and actual of its configuration (5.5.4)
    .set BALLOON_ACTUAL, 0x104
    .set FEATURE_VERSION_1, 1 << (32 - 32)      # in the features' upper half
    .set STATUS_ACKNOWLEDGE, 0x1                # each status holds the bits of those before it
    .set STATUS_DRIVER, 0x3
    .set STATUS_FEATURES_OK, 0xb
    .set STATUS_DRIVER_OK, 0xf
    .set MOST_PFNS, 256                         # page frame numbers at once: MAX_PAGES_IN_DESC of Firecracker's balloon

    .set IDT, KERNEL_BASE + PAGE                # memory behind the file's bytes: zero at boot
    .set NUMBER_END, IDT + PAGE / 2             # digits are put before it; itself it stays zero
    .set STACK_TOP, IDT + PAGE
    .set DEVICE_PAGES, STACK_TOP
    .set PFNS, DEVICE_PAGES + PAGE              # the one buffer of all queues
    .set QUEUES, PFNS + MOST_PFNS * 4           # each a descriptor, an available ring and a used ring of one entry
    .set QUEUE_SHIFT, 6
    .set DESCRIPTOR_LENGTH, 8                   # offsets in a queue
    .set AVAILABLE, 16
    .set AVAILABLE_INDEX, AVAILABLE + 2
    .set USED, 24
    .set USED_INDEX, USED + 2
    .set INFLATE, QUEUES
    .set DEFLATE, QUEUES + (1 << QUEUE_SHIFT)
    .set IMAGE_END, PFNS + PAGE

    .text
image:
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1          # 64-bit, little-endian
    .zero 9
    .word 2, 62                                 # ET_EXEC, EM_X86_64
    .long 1
    .quad _start, program_header - image, 0
    .long 0
    .word 64, 56, 1, 0, 0, 0
program_header:
    .long 1, 7                                  # PT_LOAD, rwx
    .quad 0, KERNEL_BASE, KERNEL_BASE, image_end - image, IMAGE_END - KERNEL_BASE, PAGE

    .globl _start
_start:
    mov esp, STACK_TOP
    call map_devices
    call read_command_line
    call check_memory
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
    xor r10d, r10d
    cmp qword ptr [ballast_mib], 0
    cmovne r10, [balloon_device]
    call fill
    mov esi, offset text_ready
    call print

# The walk ------------------------------------------------------------------------------------------------------------

    xor r13d, r13d
walk_anew:
    xor r12d, r12d
next_pass:
    mov edi, HOT_BASE
    call pattern
    sub rax, r8
next_mib:
    cmp [rbx], r14
    jne restored
    cmp [rbx + 8], r15
    jne restored
    test r10d, r10d
    jne follow_target
next_pages_of_mib:
    lea rcx, [rdi + MIB]
next_pages:
    .set page, 0
    .rept UNROLL
    add rax, r8
    cmp [rdi + page], rax
    jne mismatch
    cmp [rdi + page + LAST_WORD], rax
    jne mismatch
    .set page, page + PAGE
    .endr
    add rdi, UNROLL * PAGE
    cmp rdi, rcx
    jne next_pages
    cmp rdi, r9
    jne next_mib

    mov rdi, [ballast]
next_ballast_page:
    test edi, MIB - 1
    jne 1f
    cmp [rbx], r14
    jne restored
    cmp [rbx + 8], r15
    jne restored
    test r10d, r10d
    je 1f
    call follow_balloon
1:  cmp rdi, [balloon]
    jae ballast_walked
    call pattern
    cmp rdi, [removed]
    jb 2f
    xor eax, eax
2:  cmp [rdi], rax
    jne wrong_page
    cmp [rdi + LAST_WORD], rax
    jne wrong_page
    add rdi, PAGE
    jmp next_ballast_page
ballast_walked:

    mov edi, SCRATCH_BASE
next_scratch_page:
    call pattern
    add rax, r13
    mov rdx, [rdi]
    xor rdx, rax
    jne corrupt
    inc rax
    mov [rdi], rax
    add rdi, PAGE
    cmp rdi, SCRATCH_END
    jne next_scratch_page
    inc r13
    cmp [rbx], r14                              # a pass is announced only by the guest that walked it to its end
    jne restored
    cmp [rbx + 8], r15
    jne restored
    inc r12
    mov esi, offset text_pass
    call print
    mov rax, r12
    call print_decimal
    mov esi, offset text_newline
    call print
    cmp r12, r11
    jne next_pass                               # never equal where passes=0
    mov esi, offset text_done
    call print

# A pending interrupt is taken at hlt, not before: sti holds interrupts off for one more instruction.
sleep:
    sti
    hlt
wake:                                           # an interrupt gate: interrupts are off again
    mov esp, STACK_TOP
    mov eax, LAPIC
    mov dword ptr [rax + LAPIC_EOI], 0
    cmp [rbx], r14
    jne restored
    cmp [rbx + 8], r15
    jne restored
    test r10d, r10d
    je sleep
    call follow_balloon
    jmp sleep
restored:                                       # the copy first: a snapshot in mid-print is then noticed as well
    mov r14, [rbx]
    mov r15, [rbx + 8]
    mov esi, offset text_restored
    call print
    jmp walk_anew

follow_target:
    call follow_balloon
    jmp next_pages_of_mib

# A wrong word among the UNROLL pages from rdi, the one whose page should hold rax.
mismatch:
    mov rdx, rax
    call pattern
1:  cmp rax, rdx
    je wrong_page
    add rax, r8
    add rdi, PAGE
    jmp 1b
wrong_page:                                     # the one at rdi should hold rax
    mov rdx, [rdi]
    xor rdx, rax
    jne corrupt
    add rdi, LAST_WORD
    mov rdx, [rdi]
    xor rdx, rax

# The word at rdi is wrong in the bits of rdx.
corrupt:
    xor ecx, ecx
    bsf rcx, rdx
    shr ecx, 3
    add rdi, rcx
    mov esi, offset text_corrupt
    call print
    mov rax, rdi
    mov ecx, 16
    call print_number
    mov esi, offset text_newline
    call print
stop:
    cli
    hlt
    jmp stop

# rax = the word of the page at rdi.
pattern:
    mov rax, rdi
    shr rax, 12
    imul rax, r8
    add rax, rbp
    ret

fill:
    mov edi, SCRATCH_BASE
1:  call pattern
    mov [rdi], rax
    add rdi, PAGE
    cmp rdi, SCRATCH_END
    jne 1b
    mov edi, HOT_BASE
    mov rcx, r9
    call fill_pages
    mov rdi, [ballast]
    mov rcx, [balloon]
fill_pages:                                     # from rdi to rcx
    call pattern
2:  cmp rdi, rcx
    je 3f
    mov [rdi], rax
    mov [rdi + LAST_WORD], rax
    add rax, r8
    add rdi, PAGE
    jmp 2b
3:  ret

# The balloon ---------------------------------------------------------------------------------------------------------

# Takes pages or gives them back until the balloon is as large as the device wants it, or as the ballast is. Waits for
# the device each time: what it does to the pages has then been done. Keeps rax and rdi.
follow_balloon:
    push rax
    push rdi
    xor edi, edi
next_target:
    mov eax, [r10 + BALLOON_TARGET]
    shl rax, 12
    mov rdx, [memory_end]
    mov rcx, rdx
    sub rcx, [ballast]
    cmp rax, rcx
    cmova rax, rcx
    sub rdx, rax                                # where the balloon should begin
    mov rax, [balloon]
    sub rax, rdx
    mov rdx, [balloon]
    sar rax, 12
    je target_reached
    js give_back
    mov edi, INFLATE
    mov rsi, -1
    shr rdx, 12
    dec edx                                     # the first page frame to take, the others below it
    jmp 1f
give_back:
    neg rax
    mov edi, DEFLATE
    mov esi, 1
    shr rdx, 12
1:  mov ecx, MOST_PFNS
    cmp rax, rcx
    cmova rax, rcx
    xor ecx, ecx
2:  mov [PFNS + rcx * 4], edx
    add edx, esi
    inc ecx
    cmp ecx, eax
    jne 2b
    shl ecx, 2
    mov [rdi + DESCRIPTOR_LENGTH], ecx
    inc word ptr [rdi + AVAILABLE_INDEX]
    mov ecx, edi
    sub ecx, QUEUES
    shr ecx, QUEUE_SHIFT
    mov [r10 + QUEUE_NOTIFY], ecx
3:  pause
    mov cx, [rdi + USED_INDEX]
    cmp cx, [rdi + AVAILABLE_INDEX]
    jne 3b
    imul rax, rsi
    shl rax, 12
    add rax, [balloon]
    mov [balloon], rax
    cmp rax, [removed]
    jae 4f
    mov [removed], rax
4:  call balloon_pages
    mov [r10 + BALLOON_ACTUAL], eax
    jmp next_target
target_reached:
    test edi, edi
    je 5f                                       # it had been before
    mov esi, offset text_balloon
    call print
    call balloon_pages
    call print_decimal
    mov esi, offset text_newline
    call print
5:  pop rdi
    pop rax
    ret

# rax = how many pages the balloon holds.
balloon_pages:
    mov rax, [memory_end]
    sub rax, [balloon]
    shr rax, 12
    ret

# Takes the device at edi where it is a balloon. Each queue has to be ready before Firecracker activates the device
# (Balloon::activate in its devices/virtio/balloon/device.rs), so those that are not used as well. Changes rax and rcx.
take_device:
    cmp dword ptr [rdi], VIRTIO_MAGIC
    jne 9f
    cmp dword ptr [rdi + DEVICE_ID], BALLOON
    jne 9f
    mov [balloon_device], edi
    mov dword ptr [rdi + STATUS], STATUS_ACKNOWLEDGE
    mov dword ptr [rdi + STATUS], STATUS_DRIVER
    mov dword ptr [rdi + DRIVER_FEATURES_SEL], 1
    mov dword ptr [rdi + DRIVER_FEATURES], FEATURE_VERSION_1
    mov dword ptr [rdi + STATUS], STATUS_FEATURES_OK
    xor ecx, ecx
    mov eax, QUEUES
1:  mov [rdi + QUEUE_SEL], ecx
    cmp dword ptr [rdi + QUEUE_SIZE_MAX], 0
    je 2f
    mov dword ptr [rax], PFNS
    mov dword ptr [rdi + QUEUE_SIZE], 1
    mov [rdi + QUEUE_DESCRIPTORS], eax          # the upper halves of the addresses are zero
    add eax, AVAILABLE
    mov [rdi + QUEUE_AVAILABLE], eax
    add eax, USED - AVAILABLE
    mov [rdi + QUEUE_USED], eax
    add eax, (1 << QUEUE_SHIFT) - USED
    mov dword ptr [rdi + QUEUE_READY], 1
    inc ecx
    jmp 1b
2:  mov dword ptr [rdi + STATUS], STATUS_DRIVER_OK
9:  ret

# Boot ----------------------------------------------------------------------------------------------------------------

# Sets the options from the words `<name>=<decimal>` of the command line, and takes the balloon among the devices that
# Firecracker adds to it as `virtio_mmio.device=4K@0x<address>:<interrupt>`; other words are somebody else's.
read_command_line:
    mov edi, [rsi + CMD_LINE_PTR]
next_word:
    movzx eax, byte ptr [rdi]
    test al, al
    je 9f
    cmp al, ' '
    ja 1f
    inc rdi
    jmp next_word
1:  movabs rax, 0x6d5f6f6974726976              # "virtio_m"
    cmp [rdi], rax
    je read_device
    mov ebx, offset options
next_option:
    xor ecx, ecx
2:  mov al, [rbx + rcx + OPTION_NAME]
    test al, al
    je read_value
    cmp al, [rdi + rcx]
    jne 3f
    inc ecx
    jmp 2b
3:  add ebx, OPTION_SIZE
    cmp ebx, offset options_end
    jb next_option
skip_word:
    inc rdi
    cmp byte ptr [rdi], ' '
    ja skip_word
    jmp next_word
read_value:
    add rdi, rcx
    xor eax, eax
    mov r8d, 10
5:  movzx ecx, byte ptr [rdi]
    sub ecx, '0'
    cmp ecx, 9
    ja bad_value
    mul r8
    jc bad_value
    add rax, rcx
    jc bad_value
    inc rdi
    cmp byte ptr [rdi], ' '
    ja 5b
    mov [rbx], rax
    jmp next_word
read_device:
    inc rdi
    mov al, [rdi]
    cmp al, ' '
    jbe next_word
    cmp al, '@'
    jne read_device
    add rdi, 2
    xor edx, edx
6:  inc rdi
    movzx eax, byte ptr [rdi]
    cmp al, ' '
    jbe 7f
    cmp al, ':'
    je 7f
    mov ecx, eax                                # a hexadecimal digit; the letters have bit 6
    shr ecx, 6
    lea ecx, [rcx + rcx * 8]
    and eax, 15
    add eax, ecx
    shl rdx, 4
    add rdx, rax
    jmp 6b
7:  mov rax, rdx
    shr rax, 30
    cmp rax, 3                                  # only the fourth GiB has a page directory for devices
    jne 8f
    push rdi
    mov rdi, rdx
    call map_device
    call take_device
    pop rdi
8:  dec rdi
    jmp skip_word
9:  ret

bad_value:
    mov esi, offset text_error
    call print
    lea rsi, [rbx + OPTION_NAME]
    call print
    mov esi, offset text_bad_value
    call print
    jmp stop

# Goes on only where one range of RAM in the e820 map holds everything from KERNEL_BASE to the end of the hot set, and
# the ballast behind it. The ballast ends where that range ends, or what is mapped of it.
check_memory:
    mov rax, [hot_mib]
    lea rcx, [rax - 1]
    cmp rcx, MAX_HOT_MIB
    jae bad_hot_mib
    shl rax, 20
    add rax, HOT_BASE
    movzx ecx, byte ptr [rsi + E820_ENTRIES]
    lea rdi, [rsi + E820_TABLE]
1:  sub ecx, 1
    jb too_little_memory
    mov rdx, [rdi]
    mov rbx, [rdi + 8]
    add rbx, rdx
    cmp rdx, KERNEL_BASE
    ja 2f
    cmp rbx, rax
    jb 2f
    cmp dword ptr [rdi + 16], E820_RAM
    je 3f
2:  add rdi, E820_ENTRY_SIZE
    jmp 1b
3:  mov ecx, MAPPED_END
    cmp rbx, rcx
    cmova rbx, rcx
    mov [memory_end], rbx
    mov [balloon], rbx
    mov [removed], rbx
    mov rcx, rbx
    sub rcx, rax
    shr rcx, 20
    mov rax, [ballast_mib]
    cmp rax, rcx
    ja too_much_ballast
    shl rax, 20
    sub rbx, rax
    mov [ballast], rbx
    ret

bad_hot_mib:
    mov edi, offset hot_mib
    mov ebx, offset text_bad_hot_mib
    jmp option_error
too_little_memory:
    mov edi, offset hot_mib
    mov ebx, offset text_too_little_memory
    jmp option_error
too_much_ballast:
    mov edi, offset ballast_mib
    mov ebx, offset text_too_much_ballast
option_error:                                   # what rbx says of the option at rdi
    mov esi, offset text_error
    call print
    lea rsi, [rdi + OPTION_NAME]
    call print
    mov rax, [rdi]
    call print_decimal
    mov rsi, rbx
    call print
    jmp stop

# rbx = where the VM generation id is: the device of the DSDT with "VM_Gen_Counter" as its _CID names the address in
# Name(ADDR, Package{low, high}) (Microsoft, "Virtual Machine Generation ID"). Where there is none, a constant instead.
find_generation_id:
    mov ebx, offset no_generation_id
    mov rdi, [rsi + ACPI_RSDP_ADDR]
    movabs rax, 0x2052545020445352              # "RSD PTR "
    cmp [rdi], rax
    jne 9f
    mov rdi, [rdi + RSDP_XSDT]
    mov ecx, [rdi + SDT_LENGTH]
    add rcx, rdi
    add rdi, SDT_HEADER_SIZE
1:  cmp rdi, rcx
    jae 9f
    mov rdx, [rdi]
    add rdi, 8
    cmp dword ptr [rdx], 0x50434146             # "FACP"
    jne 1b
    mov rdi, [rdx + FADT_X_DSDT]
    mov ecx, [rdi + SDT_LENGTH]
    lea rcx, [rdi + rcx - AML_ADDR_SIZE]
    add rdi, SDT_HEADER_SIZE
    movabs rax, 0x435f6e65475f4d56              # "VM_Gen_C"
2:  cmp rdi, rcx
    jae 9f
    inc rdi
    cmp [rdi], rax
    jne 2b
3:  cmp rdi, rcx
    jae 9f
    inc rdi
    cmp dword ptr [rdi], 0x52444441             # "ADDR"
    jne 3b
    cmp byte ptr [rdi + 4], 0x12                # PackageOp, a length of one byte,
    jne 9f
    cmp word ptr [rdi + 6], 0x0c02              # 2 elements: DWordPrefix,
    jne 9f
    mov eax, [rdi + 8]                          # low,
    cmp byte ptr [rdi + 12], 0x0c               # DWordPrefix,
    jne 9f
    cmp dword ptr [rdi + 13], 0                 # high
    jne 9f
    cmp eax, 1 << 30
    jae 9f
    mov ebx, eax
9:  ret

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
# and the balloon's when it gets another target.
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

# Printing ------------------------------------------------------------------------------------------------------------

# Prints the zero-terminated text at rsi.
print:
    mov edx, SERIAL
1:  lodsb
    test al, al
    je 2f
    out dx, al
    jmp 1b
2:  ret

# Prints rax; print_number: in the base ecx.
print_decimal:
    mov ecx, 10
print_number:
    mov esi, NUMBER_END
1:  xor edx, edx
    div rcx
    mov dl, [rdx + digits]
    dec rsi
    mov [rsi], dl
    test rax, rax
    jne 1b
    jmp print

# Data ----------------------------------------------------------------------------------------------------------------

    .macro option name, default
\name:
    .quad \default
    .asciz "\name="
    .zero OPTION_SIZE - (. - \name)
    .endm
    .balign 8
options:
    option hot_mib, 16
    option passes, 8
    option seed, 1
    option ballast_mib, 0
options_end:

memory_end:                                     # of the ballast, from the address in `ballast` on
    .quad 0
ballast:
    .quad 0
balloon:                                        # the balloon holds the ballast from here on,
    .quad 0
removed:                                        # and once held it from here on
    .quad 0
balloon_device:
    .quad 0
no_generation_id:
    .quad 0, 0
wake_gate:                                      # an interrupt gate to `wake` with the boot code segment
    .word wake - image, 0x8
    .byte 0, 0x8e
    .word KERNEL_BASE >> 16
idt_register:
    .word (WAKE_VECTOR + 1) * 16 - 1
    .quad IDT

text_ready:
    .asciz "ready\n"
text_pass:
    .asciz "pass "
text_balloon:
    .asciz "balloon "
text_restored:
    .asciz "restored\n"
text_done:
    .asciz "done\n"
text_corrupt:
    .asciz "CORRUPT 0x"
text_error:
    .asciz "error: "
text_bad_value:
    .asciz " is not a decimal number below 2^64\n"
text_bad_hot_mib:
    .asciz " is not 1 to 992\n"
text_too_little_memory:
    .asciz " and the 32 MiB below it do not fit in memory\n"
text_too_much_ballast:
    .asciz " does not fit in memory above the hot set\n"
text_newline:
    .asciz "\n"
digits:
    .ascii "0123456789abcdef"
image_end:
