# The word that each page holds, and the pages filled with it.

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
    call fill_pages
    movabs rdi, UPPER_BASE
    mov rcx, [upper_end]
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
