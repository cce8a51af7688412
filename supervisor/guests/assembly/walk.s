# The walk: pass after pass over the hot set, the ballast and the scratch set; what ends it and what wakes it.

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
    jne look_at_devices
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
    call follow_devices
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
    call walk_upper
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
    cmp dword ptr [end], 0
    jne end_by_itself

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
    call follow_devices
    jmp sleep
restored:                                       # the copy first: a snapshot in mid-print is then noticed as well
    mov r14, [rbx]
    mov r15, [rbx + 8]
    mov esi, offset text_restored
    call print
    jmp walk_anew

look_at_devices:
    call follow_devices
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
    mov rdx, [rdi + LAST_WORD]
    xor rdx, rax
wrong_last_word:                                # of the page at rdi, in the bits of rdx
    add rdi, LAST_WORD

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
