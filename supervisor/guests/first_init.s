# first_init: what a Linux guest of `image build` runs first, in its initramfs. It needs nothing of the image: no shell, no library.
#
# It loads the modules /modules/000, 001, ... in this order, mounts the disk /dev/vda, and goes on with the image's own
# init in it. The disk is read-only and shared by all forks: an overlay takes what the guest writes, in a tmpfs, or on
# /dev/vdb where there is a file /scratch. Where there is a file /writable the disk is the guest's own, and mounted so.
# The disk behind those has the instance's metadata, and is linked to as /dev/metadata.
#
# /next_init may name the image's init, with a NUL behind it.
#
# What must not fail ends it with a line on the console, and so the guest: the kernel panics without an init.

    .set READ, 0; .set WRITE, 1; .set OPEN, 2; .set CLOSE, 3; .set ACCESS, 21; .set NANOSLEEP, 35; .set EXECVE, 59
.set EXIT, 60; .set CHDIR, 80; .set MKDIR, 83; .set UNLINK, 87; .set SYMLINK, 88; .set CHROOT, 161; .set MOUNT, 165
.set FINIT_MODULE, 313
.set MS_RDONLY, 1; .set MS_MOVE, 8192; .set ERRNOS, -4095; .set ENOENT, -2

# A system call with its arguments, and what is said where it fails; 0 where that is nothing.
.macro step number, message, a, b=0, c=0, d=0, e=0
    .quad \number, \a, \b, \c, \d, \e, \message
.endm
.macro kernel number
    mov eax, \number
    syscall
.endm

    .intel_syntax noprefix
    .include "assembly/elf_header.s"

    .text
    elf_header image, "image_end - image", 4096

    .globl _start
_start:
    mov rbx, rsp                                # argc, argv, 0, envp, 0
    mov r12, offset devices
    call run

next_module:
    mov edi, offset module
    xor esi, esi
    kernel OPEN
    cmp rax, ENOENT
    je modules_done
    mov r13, rax
    mov rdi, rax
    mov esi, offset empty
    xor edx, edx
    kernel FINIT_MODULE
    cmp rax, ERRNOS
    jb loaded
    mov r14d, offset module_text
    mov r15, rax
    call say                                    # the kernel has said why
loaded:
    mov rdi, r13
    kernel CLOSE
    mov edi, offset module                      # it lies in the guest's memory
    kernel UNLINK
    mov edi, offset module_digits + 2
carry:
    inc byte ptr [rdi]
    cmp byte ptr [rdi], '9'
    jbe next_module
    mov byte ptr [rdi], '0'
    dec rdi
    jmp carry
modules_done:

    mov r13, offset root_disk
    call wait_for
    mov r12, offset writable_disk
    mov edi, offset writable
    call there
    jz mounted
    mov r12, offset shared_disk
    call run
    mov r12, offset on_tmpfs
    mov edi, offset scratch
    call there
    jnz on_upper
    mov r13, offset scratch_disk
    call wait_for
    mov r12, offset on_scratch_disk
on_upper:
    call run
    mov r12, offset overlay
mounted:
    call run

    mov edi, offset next_init
    xor esi, esi
    kernel OPEN
    cmp rax, ERRNOS
    jae pivot
    mov edi, eax
    mov esi, offset named
    mov edx, 255
    kernel READ
pivot:
    mov r12, offset into_root
    call run
    cmp byte ptr named[rip], 0
    je usual
    mov edi, offset named
    call go_on
    mov r14d, offset no_named_init
    jmp die
usual:
    mov r13, offset inits
try_next:
    mov rdi, [r13]
    add r13, 8
    mov r14d, offset no_init
    test rdi, rdi
    jz die
    call go_on
    jmp try_next

# Goes on with the program rdi, with the arguments and the environment that the kernel gave; returns where it cannot.
go_on:
    mov [rbx + 8], rdi
    lea rsi, [rbx + 8]
    mov rax, [rbx]
    lea rdx, [rbx + rax * 8 + 16]
    kernel EXECVE
    mov r15, rax
    ret

# Makes the calls of the table r12, which ends with -1.
run:
    mov rax, [r12]
    cmp rax, -1
    je 1f
    mov rdi, [r12 + 8]
    mov rsi, [r12 + 16]
    mov rdx, [r12 + 24]
    mov r10, [r12 + 32]
    mov r8, [r12 + 40]
    mov r14, [r12 + 48]
    add r12, 56
    syscall
    cmp rax, ERRNOS
    jb run
    mov r15, rax
    test r14, r14
    jz run
    jmp die
1:  ret

# Sets ZF where there is a file rdi.
there:
    xor esi, esi
    kernel ACCESS
    test rax, rax
    ret

# Waits for the device r13, for 10 s.
wait_for:
    mov ebp, 500
1:  mov rdi, r13
    call there
    jz 2f
    mov r15, rax
    mov edi, offset moment
    xor esi, esi
    kernel NANOSLEEP
    dec ebp
    jnz 1b
    mov r14d, offset no_disk
    jmp die
2:  ret

die:
    call say
    mov edi, 1
    kernel EXIT

# Prints the text r14, whose length is in front of it, and the error r15, which is negative.
say:
    movzx edx, byte ptr [r14]
    lea rsi, [r14 + 1]
    mov edi, 2
    kernel WRITE
    mov rax, r15
    neg rax
    mov rsi, offset error_end
    mov ecx, 10
1:  xor edx, edx
    div rcx
    add dl, '0'
    dec rsi
    mov [rsi], dl
    test rax, rax
    jnz 1b
    mov edx, offset error_end + 1
    sub edx, esi
    mov edi, 2
    kernel WRITE
    ret

.macro text label, words
\label: .byte 2f - 1f
1:  .ascii "first_init: \words, error "
2:
.endm
.macro path label, words
\label: .asciz "\words"
.endm

path empty, ""
path dev, "/dev"
path devtmpfs, "devtmpfs"
path root_disk, "/dev/vda"
path scratch_disk, "/dev/vdb"
path second_disk, "vdb"
path third_disk, "vdc"
path metadata, "/dev/metadata"
path ext4, "ext4"
path tmpfs, "tmpfs"
path tmpfs_mode, "mode=0755"
path lower, "/lower"
path upper_directory, "/upper"
path upper_data, "/upper/data"
path upper_work, "/upper/work"
path overlay_type, "overlay"
path overlay_options, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work"
path root, "/merged"
path root_dev, "/merged/dev"
path root_proc, "/merged/proc"
path root_sys, "/merged/sys"
path proc, "proc"
path sysfs, "sysfs"
path here, "."
path top, "/"
path writable, "/writable"
path scratch, "/scratch"
path next_init, "/next_init"
path init_1, "/sbin/init"
path init_2, "/etc/init"
path init_3, "/bin/init"
path init_4, "/init"
path init_5, "/bin/sh"
module: .ascii "/modules/"
module_digits: .asciz "000"

text module_text, "a module was not loaded"
text no_devtmpfs, "there is no devtmpfs (CONFIG_DEVTMPFS)"
text no_disk, "no disk appeared in 10 s (virtio_mmio and virtio_blk, built in or as modules)"
text no_root, "the root disk cannot be mounted (ext4, built in or as a module)"
text no_tmpfs, "there is no tmpfs for what the guest writes (CONFIG_TMPFS)"
text no_scratch, "the scratch disk cannot be mounted"
text no_overlay, "there is no overlay over the root (overlay, built in or as a module)"
text no_pivot, "the root cannot be entered"
text no_init, "the root has no /sbin/init, /etc/init, /bin/init, /init or /bin/sh that can be run"
text no_named_init, "the init that the image names cannot be run"

error: .fill 20
error_end: .ascii "\n"

.balign 8
moment: .quad 0, 20000000
inits: .quad init_1, init_2, init_3, init_4, init_5, 0
devices:
    step MOUNT, no_devtmpfs, dev, dev, devtmpfs
    .quad -1
writable_disk:
    step MOUNT, no_root, root_disk, root, ext4
    .quad -1
shared_disk:
    step MOUNT, no_root, root_disk, lower, ext4, MS_RDONLY
    .quad -1
on_tmpfs:
    step MOUNT, no_tmpfs, tmpfs, upper_directory, tmpfs, 0, tmpfs_mode
    .quad -1
on_scratch_disk:
    step MOUNT, no_scratch, scratch_disk, upper_directory, ext4
    step SYMLINK, 0, third_disk, metadata
    .quad -1
overlay:
    step MKDIR, 0, upper_data, 0755
    step MKDIR, 0, upper_work, 0755
    step MOUNT, no_overlay, overlay_type, root, overlay_type, 0, overlay_options
    .quad -1
into_root:
    step SYMLINK, 0, second_disk, metadata      # it fails where the third has that name already
    step MKDIR, 0, root_dev, 0755
    step MKDIR, 0, root_proc, 0555
    step MKDIR, 0, root_sys, 0555
    step MOUNT, 0, dev, root_dev, 0, MS_MOVE
    step MOUNT, 0, proc, root_proc, proc
    step MOUNT, 0, sysfs, root_sys, sysfs
    step CHDIR, no_pivot, root
    step MOUNT, no_pivot, here, top, 0, MS_MOVE
    step CHROOT, no_pivot, here
    step CHDIR, no_pivot, top
    .quad -1
named: .fill 256
image_end:
