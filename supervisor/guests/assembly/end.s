# How it ends by itself after its last pass, by `end=`; after what Linux prints where it ends so.

# 0 does not end; 1 reboots, 2 panics, 3 ends in a triple fault, 4 halts for good, 5 reboots and says nothing.
end_by_itself:
    mov ecx, [end]
    mov esi, [end_texts + rcx * 4]
    call print
    cli
    cmp dword ptr [end], 4
    je stop
    cmp dword ptr [end], 3
    je 1f
    mov al, RESET_CPU
    out KEYBOARD, al
    jmp stop
1:  lidt [no_idt]
    ud2
