# Virtio devices: which are taken, how, and what is done for them from time to time.

# Takes the device at edi where pagewalker has a use for it. Changes rax, rcx and rdx.
take_device:
    cmp dword ptr [rdi], VIRTIO_MAGIC
    jne 9f
    mov eax, [rdi + DEVICE_ID]
    cmp eax, BALLOON
    je take_balloon
    cmp eax, NETWORK
    je take_network
9:  ret

# Begins with the device at edi, up to its queues; eax: features of the lower half. Keeps all registers.
negotiate:
    mov dword ptr [rdi + STATUS], STATUS_ACKNOWLEDGE
    mov dword ptr [rdi + STATUS], STATUS_DRIVER
    mov dword ptr [rdi + DRIVER_FEATURES_SEL], 0
    mov [rdi + DRIVER_FEATURES], eax
    mov dword ptr [rdi + DRIVER_FEATURES_SEL], 1
    mov dword ptr [rdi + DRIVER_FEATURES], FEATURE_VERSION_1
    mov dword ptr [rdi + STATUS], STATUS_FEATURES_OK
    ret

# Gives the device at edi its queue ecx, of edx entries: descriptors at eax, the available ring behind them and the used
# ring behind that. Changes rdx; eax = where the used ring is.
give_queue:
    mov [rdi + QUEUE_SEL], ecx
    mov [rdi + QUEUE_SIZE], edx
    mov [rdi + QUEUE_DESCRIPTORS], eax          # the upper halves of the addresses are zero
    shl edx, 4
    add eax, edx
    mov [rdi + QUEUE_AVAILABLE], eax
    shr edx, 3
    lea eax, [rax + rdx + 4 + 7]
    and eax, -8
    mov [rdi + QUEUE_USED], eax
    mov dword ptr [rdi + QUEUE_READY], 1
    ret

# Keeps rax and rdi.
follow_devices:
    cmp dword ptr [network_device], 0
    je 1f
    call answer_frames
1:  cmp dword ptr [balloon_device], 0
    jne follow_balloon
    ret
