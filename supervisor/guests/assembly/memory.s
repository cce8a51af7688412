# Where the ballast is, if memory holds what the options ask for.

# Goes on only where one range of RAM in the e820 map holds everything from KERNEL_BASE to the end of the hot set, and
# the ballast behind it. The ballast ends where that range ends, or what is mapped of it.
check_memory:
    cmp qword ptr [end], MOST_END
    ja bad_end
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

bad_end:
    mov edi, offset end
    mov ebx, offset text_bad_end
    jmp option_error
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
