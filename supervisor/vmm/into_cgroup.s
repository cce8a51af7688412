# Begins a program in cgroups: `into_cgroup CGROUP PIPE TASKS PROGRAM ...`, with the descriptors of the directory of a
# cgroup of the second version, of a pipe, to which it writes the pid (4 bytes), and, with commas between, of the file
# `tasks` of cgroups of the first. The program leads a session and is a child of who started this.
# To move what runs already waits for an RCU grace period, some 16 ms: cgroup_attach_lock in kernel/cgroup/cgroup.c. What
# moves itself by that file does not, nor does what is born in a cgroup. The exit code is the errno of what fails.

    .set WRITE, 1; .set CLOSE, 3; .set EXECVE, 59; .set EXIT, 60; .set SETSID, 112; .set CLONE3, 435
    # CLONE_INTO_CGROUP | CLONE_PARENT: clone(2). By the second it is told of as this process is, thus by no signal here.
    .set FLAGS, 0x200008000
    .set ARGS, 88                               # struct clone_args, which ends with the cgroup

    .intel_syntax noprefix
    .include "assembly/elf_header.s"

    .text
    elf_header image, "image_end - image", 4096

    .globl _start
_start:
    mov r15, rsp                                # argc, argv, 0, envp, 0
    mov rsi, [r15 + 16]
    call number
    mov r12, rax
    mov rsi, [r15 + 24]
    call number
    mov r13, rax
    mov r14, [r15 + 32]
    cmp byte ptr [r14], 0
    je joined
join:
    mov rsi, r14
    call number
    mov r14, rsi
    mov rbx, rax
    mov rdi, rax
    mov esi, offset zero
    mov edx, 1
    mov eax, WRITE
    syscall
    test eax, eax
    js failed
    mov rdi, rbx
    mov eax, CLOSE
    syscall
    cmp byte ptr [r14], ','
    lea r14, [r14 + 1]
    je join
joined:
    sub rsp, 96
    mov rdi, rsp
    mov ecx, 12
    xor eax, eax
    rep stosq
    mov rax, FLAGS
    mov [rsp], rax
    mov [rsp + ARGS - 8], r12
    mov rdi, rsp
    mov esi, ARGS
    mov eax, CLONE3
    syscall
    test eax, eax
    js failed
    jz begun
    mov [rsp], rax
    mov rdi, r13
    mov rsi, rsp
    mov edx, 4
    mov eax, WRITE
    syscall
    xor edi, edi
    mov eax, EXIT
    syscall

begun:
    mov eax, SETSID
    syscall
    mov rdi, r12
    mov eax, CLOSE
    syscall
    mov rdi, r13
    mov eax, CLOSE
    syscall
    mov rax, [r15]
    lea rsi, [r15 + 40]
    lea rdx, [r15 + 8 * rax + 16]
    mov rdi, [rsi]
    mov eax, EXECVE
    syscall
failed:
    neg eax
    mov edi, eax
    mov eax, EXIT
    syscall

number:                                         # rsi: decimal digits, and is behind them then; returns rax
    xor eax, eax
    xor ecx, ecx
1:  mov cl, [rsi]
    sub cl, '0'
    jb 2f
    imul rax, rax, 10
    add rax, rcx
    inc rsi
    jmp 1b
2:  ret

zero:
    .ascii "0"
image_end:
