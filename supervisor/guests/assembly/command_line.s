# The options of the command line.

# Sets the options from the words `<name>=<decimal>` of the command line, notes where `ip=` is, and takes devices among
# those that Firecracker adds to it as `virtio_mmio.device=4K@0x<address>:<interrupt>`; other words are somebody else's.
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
    mov eax, [rdi]
    and eax, 0xffffff
    cmp eax, 0x3d7069                           # "ip="
    je read_ip
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
read_ip:                                        # read where there is a network: network.s
    add rdi, 2
    lea eax, [rdi + 1]
    mov [address_text], eax
    jmp skip_word
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
