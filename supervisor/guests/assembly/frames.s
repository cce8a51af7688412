# What is answered: ARP, ICMP echo, and a datagram to the port 7. In all of it rdi is the buffer of a frame.

# Answers the frame in the ecx bytes at rdi, or drops it: where it is too short for any of these, perhaps longer than its
# buffer, for another host, a fragment, with options of IP, or not what its checksums say. Changes all but rbx and r8 on.
take_frame:
    cmp ecx, PACKET + ARP_SIZE                  # as long as IP_SIZE + MESSAGE_HEADER
    jb 9f
    cmp ecx, FRAME_SIZE
    jae 9f
    cmp word ptr [rdi + ETHERTYPE], ETHERTYPE_ARP
    je take_arp
    cmp word ptr [rdi + ETHERTYPE], ETHERTYPE_IP
    jne 9f
    mov eax, [mac]
    cmp [rdi + TO_MAC], eax
    jne 9f
    mov ax, [mac + 4]
    cmp [rdi + TO_MAC + 4], ax
    jne 9f
    cmp byte ptr [rdi + IP_VERSION], 0x45
    jne 9f
    test word ptr [rdi + IP_FRAGMENT], 0xff3f   # more fragments, or an offset
    jne 9f
    mov eax, [address]
    cmp [rdi + IP_TO], eax
    jne 9f
    movzx ebp, word ptr [rdi + IP_LENGTH]
    ror bp, 8
    cmp ebp, IP_SIZE + MESSAGE_HEADER
    jb 9f
    lea eax, [rbp + PACKET]
    cmp eax, ecx
    ja 9f
    mov dword ptr [rdi + rax], 0
    call sum_header
    inc ax
    jne 9f
    cmp byte ptr [rdi + IP_PROTOCOL], ICMP
    je take_icmp
    cmp byte ptr [rdi + IP_PROTOCOL], UDP
    je take_datagram
9:  ret

take_arp:
    cmp dword ptr [rdi + PACKET], ARP_OF_ETHERNET_AND_IP
    jne 9f
    mov eax, [address]
    cmp [rdi + ARP_TO], eax
    jne 9f
    cmp dword ptr [rdi + ARP_OPERATION], ARP_REPLY
    je gateway_answered
    cmp dword ptr [rdi + ARP_OPERATION], ARP_REQUEST
    jne 9f
    mov rax, [rdi + ARP_FROM_MAC]               # and the first half of its address
    mov [rdi + ARP_TO_MAC], rax
    mov ax, [rdi + ARP_FROM + 2]
    mov [rdi + ARP_TO + 2], ax
    mov edx, ARP_REPLY
    call to_sender
    jmp send_arp
9:  ret

to_sender:
    mov eax, [rdi + FROM_MAC]
    mov [rdi + TO_MAC], eax
    mov ax, [rdi + FROM_MAC + 4]
    mov [rdi + TO_MAC + 4], ax
    ret

# Sends an ARP packet, edx: ARP_REQUEST or ARP_REPLY, to whom the frame names. Changes rax and rcx.
send_arp:
    mov word ptr [rdi + ETHERTYPE], ETHERTYPE_ARP
    mov dword ptr [rdi + PACKET], ARP_OF_ETHERNET_AND_IP
    mov [rdi + ARP_OPERATION], edx
    mov eax, [mac]
    mov [rdi + ARP_FROM_MAC], eax
    mov ax, [mac + 4]
    mov [rdi + ARP_FROM_MAC + 4], ax
    mov eax, [address]
    mov [rdi + ARP_FROM], eax
    mov ecx, PACKET + ARP_SIZE
    jmp send_frame

# ebp = bytes of the IP packet, from here on.
take_icmp:
    xor edx, edx
    call sum_message
    inc ax
    jne 9f
    cmp word ptr [rdi + MESSAGE], ECHO_REPLY
    je echo_answered
    cmp word ptr [rdi + MESSAGE], ECHO_REQUEST
    jne 9f
    mov byte ptr [rdi + MESSAGE], ECHO_REPLY
    add word ptr [rdi + ICMP_CHECKSUM], ECHO_REQUEST - ECHO_REPLY # RFC 1624
    adc word ptr [rdi + ICMP_CHECKSUM], 0
answer_packet:
    call to_sender
    mov eax, [rdi + IP_FROM]
    mov [rdi + IP_TO], eax

# Sends the IP packet to the address and the MAC that it names. Changes rax, rcx, rdx and rsi.
send_packet:
    mov word ptr [rdi + IP_VERSION], 0x45
    mov eax, ebp
    xchg al, ah
    mov [rdi + IP_LENGTH], ax
    mov dword ptr [rdi + IP_IDENTIFICATION], 0x400000 # don't fragment
    mov byte ptr [rdi + IP_TTL], 64
    mov word ptr [rdi + IP_CHECKSUM], 0
    mov eax, [address]
    mov [rdi + IP_FROM], eax
    call sum_header
    not eax
    mov [rdi + IP_CHECKSUM], ax
    lea ecx, [rbp + PACKET]
    jmp send_frame

# A datagram to the port 7 is answered with a line that says who answers, in ANSWER. None from the port 7: two of us would
# go on for ever.
take_datagram:
    cmp word ptr [rdi + TO_PORT], ECHO_PORT
    jne 9f
    cmp word ptr [rdi + FROM_PORT], ECHO_PORT
    je 9f
    movzx eax, word ptr [rdi + UDP_LENGTH]
    xchg al, ah
    lea edx, [rbp - IP_SIZE]
    cmp eax, edx
    jne 9f
    cmp word ptr [rdi + UDP_CHECKSUM], 0        # none
    je 1f
    call sum_datagram
    inc ax
    jne 9f
1:  push rdi
    mov rsi, rdi
    mov edi, ANSWER
    mov ecx, TEXT
    rep movsb
    call write_line
    lea ebp, [rdi - ANSWER - PACKET]
    mov dword ptr [rdi], 0
    mov edi, ANSWER
    mov ax, [rdi + FROM_PORT]
    mov [rdi + TO_PORT], ax
    mov word ptr [rdi + FROM_PORT], ECHO_PORT
    lea eax, [rbp - IP_SIZE]
    xchg al, ah
    mov [rdi + UDP_LENGTH], ax
    mov word ptr [rdi + UDP_CHECKSUM], 0
    call sum_datagram
    not ax
    jne 2f
    dec ax                                      # 0 would say that there is none
2:  mov [rdi + UDP_CHECKSUM], ax
    call answer_packet
    pop rdi
    jmp read_request
9:  ret

# Writes the line of an answer to rdi, rdi = behind it; rsi: what was asked, up to its first control character.
write_line:
    push rsi
    mov esi, offset text_generation
    call append
    mov rsi, rbx
    mov ecx, 16
1:  lodsb
    movzx edx, al
    shr edx, 4
    and eax, 15
    mov dl, [rdx + digits]
    mov dh, [rax + digits]
    mov [rdi], dx
    add rdi, 2
    dec ecx
    jne 1b
    mov esi, offset text_passes
    call append
    mov rax, r12
    mov ecx, 10
    call number_text
    call append
    mov esi, offset text_asked
    call append
    pop rsi
    mov ecx, MOST_ASKED
2:  lodsb
    cmp al, ' '
    jb 3f
    stosb
    dec ecx
    jne 2b
3:  mov al, '\n'
    stosb
    ret

1:  stosb
append:                                         # the zero-terminated text at rsi
    lodsb
    test al, al
    jne 1b
    ret

# ax = the folded sum of a header, a datagram with what it is sent by, or a message; zeros have to be behind what is
# summed up. It is 0xffff where a checksum is among it and right. Changes rcx, rdx and rsi.
sum_header:
    lea rsi, [rdi + PACKET]
    mov ecx, IP_SIZE
    xor edx, edx
    jmp sum
sum_datagram:
    mov edx, [rdi + IP_FROM]
    mov eax, [rdi + IP_TO]
    add rdx, rax
    movzx eax, word ptr [rdi + UDP_LENGTH]
    lea rdx, [rdx + rax + (UDP << 8)]
sum_message:
    lea rsi, [rdi + MESSAGE]
    lea ecx, [rbp - IP_SIZE]
sum:
    add ecx, 3
    shr ecx, 2
1:  lodsd
    add rdx, rax
    dec ecx
    jne 1b
    mov rax, rdx
    shr rax, 32
    add eax, edx
    adc eax, 0
    mov edx, eax
    shr edx, 16
    add ax, dx
    adc ax, 0
    ret

text_generation:
    .asciz "generation "
text_passes:
    .asciz " passes "
text_asked:
    .asciz " asked "
