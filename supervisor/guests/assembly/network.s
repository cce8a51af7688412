# The network interface: its device, its address, and the frames that come and go.

# Takes the interface at edi where it is the first. Changes rax, rcx and rdx.
take_network:
    cmp dword ptr [network_device], 0
    jne 9f
    mov [network_device], edi
    mov dword ptr [rdi + DEVICE_FEATURES_SEL], 0
    mov eax, [rdi + DEVICE_FEATURES]
    and eax, FEATURE_MAC
    call negotiate
    test eax, eax
    je 1f                                       # its VMM leaves the MAC to the guest
    mov eax, [rdi + NETWORK_MAC]
    mov [mac], eax
    mov ax, [rdi + NETWORK_MAC + 4]
    mov [mac + 4], ax
1:  mov eax, BUFFERS
    xor ecx, ecx
2:  mov edx, ecx
    shl edx, 4
    mov [RECEIVE + rdx], eax
    mov dword ptr [RECEIVE + rdx + DESCRIPTOR_LENGTH], FRAME_SIZE
    mov word ptr [RECEIVE + rdx + DESCRIPTOR_FLAGS], WRITABLE
    mov [RECEIVE_AVAILABLE + 4 + rcx * 2], cx
    add eax, PAGE
    inc ecx
    cmp ecx, FRAMES
    jne 2b
    mov [RECEIVE_AVAILABLE + 2], cx
    mov edx, ecx
    mov eax, RECEIVE
    xor ecx, ecx                                # RECEIVE_QUEUE
    call give_queue
    mov eax, TRANSMIT
    mov ecx, TRANSMIT_QUEUE
    mov edx, 1
    call give_queue
    mov dword ptr [rdi + STATUS], STATUS_DRIVER_OK
    mov dword ptr [rdi + QUEUE_NOTIFY], RECEIVE_QUEUE
9:  ret

# Reads `ip=`: one of the two hosts of a /30, of which the other is the gateway. Changes rax, rcx and rdx.
take_address:
    push rsi
    mov esi, [address_text]
    call read_address
    jc bad_address
    cmp byte ptr [rsi], ' '
    ja bad_address
    pop rsi
    mov [address], eax
    xor eax, 3 << 24
    mov [gateway], eax
    shr eax, 24
    inc eax
    test al, 2                                  # 1 and 2 of 0 to 3 are hosts
    je bad_address
    ret

bad_address:
    mov esi, offset text_bad_address
    call print
    jmp stop

# eax = the dotted address at rsi as packets have it, rsi = what is behind it; carry where it is none. Changes rcx, rdx.
read_address:
    push rdi
    mov ecx, 4
1:  xor edx, edx
    movzx edi, byte ptr [rsi]
    sub edi, '0'
    cmp edi, 9
    ja 4f
2:  imul edx, edx, 10
    add edx, edi
    cmp edx, 255
    ja 4f
    inc rsi
    movzx edi, byte ptr [rsi]
    sub edi, '0'
    cmp edi, 9
    jbe 2b
    mov al, dl
    ror eax, 8
    dec ecx
    je 3f
    cmp byte ptr [rsi], '.'
    jne 4f
    inc rsi
    jmp 1b
3:  pop rdi
    clc
    ret
4:  pop rdi
    stc
    ret

# Answers the frames that have come until now, no more than FRAMES: a flood of them does not hold up the walk for good.
# Firecracker reads none where less than 65562 bytes of buffers are free (read_from_mmds_or_tap in its
# devices/virtio/net/device.rs): those wait in the tap until buffers are given back. Keeps rax and rdi.
answer_frames:
    mov cx, [RECEIVE_AVAILABLE + 2]
    sub cx, FRAMES                              # so many have been answered
    mov dx, [RECEIVE_USED + 2]
    cmp cx, dx
    je 9f
    push rax
    push rdi
    push rbp
    push rdx
1:  and ecx, FRAMES - 1
    mov eax, [RECEIVE_USED + 4 + rcx * 8]       # which buffer
    and eax, FRAMES - 1
    mov ecx, [RECEIVE_USED + 8 + rcx * 8]       # bytes in it
    push rax
    shl eax, 12
    lea edi, [rax + BUFFERS]
    call take_frame
    pop rax
    movzx ecx, word ptr [RECEIVE_AVAILABLE + 2]
    and ecx, FRAMES - 1
    mov [RECEIVE_AVAILABLE + 4 + rcx * 2], ax
    inc word ptr [RECEIVE_AVAILABLE + 2]
    mov cx, [RECEIVE_AVAILABLE + 2]
    sub cx, FRAMES
    cmp cx, [rsp]
    jne 1b
    mov eax, [network_device]
    mov dword ptr [rax + QUEUE_NOTIFY], RECEIVE_QUEUE
    pop rdx
    pop rbp
    pop rdi
    pop rax
9:  ret

# Sends the frame of ecx bytes, with what is before it, in the buffer at rdi. Waits for the device, as the buffer is used
# again. Changes rax.
send_frame:
    xor eax, eax
    mov [rdi], rax
    mov [rdi + 8], eax
    mov eax, [mac]
    mov [rdi + FROM_MAC], eax
    mov ax, [mac + 4]
    mov [rdi + FROM_MAC + 4], ax
    mov [TRANSMIT], edi
    mov [TRANSMIT + DESCRIPTOR_LENGTH], ecx
    inc word ptr [TRANSMIT + AVAILABLE_INDEX]
    mov eax, [network_device]
    mov dword ptr [rax + QUEUE_NOTIFY], TRANSMIT_QUEUE
1:  pause
    mov ax, [TRANSMIT + USED_INDEX]
    cmp ax, [TRANSMIT + AVAILABLE_INDEX]
    jne 1b
    ret

address:                                        # these two as packets have them
    .long 0
gateway:
    .long 0
mac:                                            # where its VMM names none: local, and the default address
    .byte 0x06, 0x00, 172, 16, 0, 2
text_address:
    .asciz "172.16.0.2"
text_bad_address:
    .asciz "error: ip= is not a host of a /30\n"
