# The balloon: its device, and the pages that it takes and gives back.

# Takes pages or gives them back until the balloon is as large as the device wants it, or as the ballast is. Waits for
# the device each time: what it does to the pages has then been done. Keeps rax and rdi.
follow_balloon:
    push rax
    push rdi
    xor edi, edi
next_target:
    mov eax, [balloon_device]
    mov eax, [rax + BALLOON_TARGET]
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
    mov edx, [balloon_device]
    mov [rdx + QUEUE_NOTIFY], ecx
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
    mov edx, [balloon_device]
    mov [rdx + BALLOON_ACTUAL], eax
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

# Takes the balloon at edi. Each queue has to be ready before Firecracker activates the device (Balloon::activate in its
# devices/virtio/balloon/device.rs), so those that are not used as well. Changes rax, rcx and rdx.
take_balloon:
    mov [balloon_device], edi
    xor eax, eax
    call negotiate
    xor ecx, ecx
    mov eax, QUEUES
1:  mov [rdi + QUEUE_SEL], ecx
    cmp dword ptr [rdi + QUEUE_SIZE_MAX], 0
    je 2f
    mov dword ptr [rax], PFNS
    mov edx, 1
    call give_queue
    add eax, (1 << QUEUE_SHIFT) - USED
    inc ecx
    jmp 1b
2:  mov dword ptr [rdi + STATUS], STATUS_DRIVER_OK
    ret
