# What the jailer starts in the place of Firecracker, which it would copy into each jail: it goes on as /vmm, which is
# there already. Its exit code is the errno where that fails.

    .set EXECVE, 59; .set EXIT, 60

    .intel_syntax noprefix
    .include "assembly/elf_header.s"

    .text
    elf_header image, "image_end - image", 4096

    .globl _start
_start:
    mov rax, [rsp]                              # argc, argv, 0, envp, 0
    lea rsi, [rsp + 8]
    lea rdx, [rsi + 8 * rax + 8]
    mov edi, offset program
    mov eax, EXECVE
    syscall
    neg eax
    mov edi, eax
    mov eax, EXIT
    syscall

program:
    .asciz "/vmm"
image_end:
