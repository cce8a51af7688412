# Probes: a datagram `probe A.B.C.D` has the guest send that address an echo request by its gateway, whose MAC is asked for
# each time: it is another one in a fork's network. Only the last one is waited for. rdi: the buffer of a frame.

read_request:                                   # zeros are behind it
    cmp dword ptr [rdi + TEXT], 0x626f7270      # "prob"
    jne 9f
    cmp word ptr [rdi + TEXT + 4], 0x2065       # "e "
    jne 9f
    lea rsi, [rdi + TEXT + 6]
    call read_address
    jc 9f
    cmp byte ptr [rsi], ' '
    jae 9f
    mov [probed], eax
    mov edi, ANSWER
    mov eax, -1
    mov [rdi + TO_MAC], eax
    mov [rdi + TO_MAC + 4], ax
    xor eax, eax
    mov [rdi + ARP_TO_MAC], eax
    mov [rdi + ARP_TO_MAC + 4], ax
    mov eax, [gateway]
    mov [rdi + ARP_TO], eax
    mov edx, ARP_REQUEST
    jmp send_arp

gateway_answered:                               # an ARP reply for us
    mov eax, [gateway]
    cmp [rdi + ARP_FROM], eax
    jne 9f
    mov edx, [probed]
    test edx, edx
    je 9f
    mov eax, [rdi + ARP_FROM_MAC]
    mov [rdi + TO_MAC], eax
    mov ax, [rdi + ARP_FROM_MAC + 4]
    mov [rdi + TO_MAC + 4], ax
    mov word ptr [rdi + ETHERTYPE], ETHERTYPE_IP
    mov byte ptr [rdi + IP_PROTOCOL], ICMP
    mov [rdi + IP_TO], edx
    mov dword ptr [rdi + MESSAGE], ECHO_REQUEST
    inc word ptr [probe_identifier + 2]
    mov eax, [probe_identifier]
    mov [rdi + ICMP_IDENTIFIER], eax
    mov ebp, IP_SIZE + MESSAGE_HEADER
    xor edx, edx
    call sum_message
    not eax
    mov [rdi + ICMP_CHECKSUM], ax
    jmp send_packet

echo_answered:                                  # an echo reply for us
    mov eax, [probe_identifier]
    cmp [rdi + ICMP_IDENTIFIER], eax
    jne 9f
    mov eax, [probed]
    cmp [rdi + IP_FROM], eax
    jne 9f
    mov dword ptr [probed], 0
    mov esi, offset text_probe
    mov ebp, 4
1:  call print
    movzx eax, byte ptr [rdi + IP_FROM]
    inc rdi
    call print_decimal
    mov esi, offset text_point
    dec ebp
    jne 1b
    mov esi, offset text_answered
    jmp print
9:  ret

probed:                                         # 0 where no echo reply is waited for
    .long 0
probe_identifier:                               # of the last echo request, and its number
    .long 0x7770
text_probe:
    .asciz "probe "
text_point:
    .asciz "."
text_answered:
    .asciz " answered\n"
