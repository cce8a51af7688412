# The upper set, above the gap that Firecracker keeps for devices below 4 GiB: memory in a KVM slot of its own.

# Maps what the option asks for, where the e820 map has RAM for it. Keeps rsi.
map_upper:
    mov rax, [upper_mib]
    test rax, rax
    je 9f
    cmp rax, MAX_UPPER_MIB
    ja too_much_upper
    shl rax, 20
    movabs rdx, UPPER_BASE
    add rax, rdx
    movzx ecx, byte ptr [rsi + E820_ENTRIES]
    lea rdi, [rsi + E820_TABLE]
1:  sub ecx, 1
    jb too_much_upper
    mov rbx, [rdi + 8]
    add rbx, rdx
    cmp [rdi], rdx
    jne 2f
    cmp rbx, rax
    jb 2f
    cmp dword ptr [rdi + 16], E820_RAM
    je 3f
2:  add rdi, E820_ENTRY_SIZE
    jmp 1b
3:  mov [upper_end], rax
    mov rcx, cr3
    mov rcx, [rcx]
    and rcx, -PAGE
    mov qword ptr [rcx + 4 * 8], UPPER_PAGES + PRESENT_WRITABLE
    mov edi, UPPER_PAGES
    add rdx, LARGE_PAGE
4:  mov [rdi], rdx
    add rdx, 1 << LARGE_PAGE_SHIFT
    add edi, 8
    cmp rdx, rax
    jb 4b
9:  ret

too_much_upper:
    mov edi, offset upper_mib
    mov ebx, offset text_too_much_upper
    jmp option_error

# Verifies the upper set after r13 walks, and writes to each of its pages where that is an even number. Where a word is
# wrong it does not return.
walk_upper:
    movabs rdi, UPPER_BASE
    lea rcx, [r13 - 1]
    shr rcx                                     # how often each page has been written to
1:  cmp rdi, [upper_end]
    je 9f
    call pattern
    mov rdx, [rdi + LAST_WORD]
    xor rdx, rax
    jne wrong_last_word
    add rax, rcx
    mov rdx, [rdi]
    xor rdx, rax
    jne corrupt
    test r13b, 1
    jne 2f
    inc rax
    mov [rdi], rax
2:  add rdi, PAGE
    jmp 1b
9:  ret
