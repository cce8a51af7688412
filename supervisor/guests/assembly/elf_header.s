# The header of an ELF file that is linked as bare bytes, all of it one segment: loaded at `base`, and zeros behind it up
# to `length` bytes. The file begins with the label image, and ends with image_end.

.macro elf_header base, length, alignment
image:
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1          # 64-bit, little-endian
    .zero 9
    .word 2, 62                                 # ET_EXEC, EM_X86_64
    .long 1
    .quad _start, program_header - image, 0
    .long 0
    .word 64, 56, 1, 0, 0, 0
program_header:
    .long 1, 7                                  # PT_LOAD, rwx
    .quad 0, \base, \base, image_end - image, \length, \alignment
.endm
