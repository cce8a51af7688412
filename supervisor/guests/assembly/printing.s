# The console: the first serial port.

# Prints the zero-terminated text at rsi.
print:
    mov edx, SERIAL
1:  lodsb
    test al, al
    je 2f
    out dx, al
    jmp 1b
2:  ret

# Prints rax; print_number: in the base ecx.
print_decimal:
    mov ecx, 10
print_number:
    call number_text
    jmp print

# rsi = a text of rax in the base ecx, until the next one.
number_text:
    mov esi, NUMBER_END
1:  xor edx, edx
    div rcx
    mov dl, [rdx + digits]
    dec rsi
    mov [rsi], dl
    test rax, rax
    jne 1b
    ret
