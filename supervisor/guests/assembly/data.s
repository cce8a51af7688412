# What is read and written, and texts.

    .macro option name, default
\name:
    .quad \default
    .asciz "\name="
    .zero OPTION_SIZE - (. - \name)
    .endm
    .balign 8
options:
    option hot_mib, 16
    option passes, 8
    option seed, 1
    option ballast_mib, 0
    option upper_mib, 0
    option end, 0
options_end:

memory_end:                                     # of the ballast, from the address in `ballast` on
    .quad 0
ballast:
    .quad 0
balloon:                                        # the balloon holds the ballast from here on,
    .quad 0
removed:                                        # and once held it from here on
    .quad 0
balloon_device:                                 # 0 where none is followed
    .quad 0
network_device:
    .quad 0
address_text:
    .quad text_address
upper_end:                                      # of the upper set, which begins at UPPER_BASE
    .quad UPPER_BASE
no_generation_id:
    .quad 0, 0
wake_gate:                                      # an interrupt gate to `wake` with the boot code segment
    .word wake - image, 0x8
    .byte 0, 0x8e
    .word KERNEL_BASE >> 16
idt_register:
    .word (WAKE_VECTOR + 1) * 16 - 1
    .quad IDT

no_idt:                                         # a limit below any vector's gate
    .word 0
    .quad 0
    .balign 4
end_texts:
    .long text_nothing, text_restarting, text_panic, text_nothing, text_halted, text_nothing

text_ready:
    .asciz "ready\n"
text_pass:
    .asciz "pass "
text_balloon:
    .asciz "balloon "
text_restored:
    .asciz "restored\n"
text_done:
    .asciz "done\n"
text_corrupt:
    .asciz "CORRUPT 0x"
text_error:
    .asciz "error: "
text_bad_value:
    .asciz " is not a decimal number below 2^64\n"
text_bad_hot_mib:
    .asciz " is not 1 to 992\n"
text_too_little_memory:
    .asciz " and the 32 MiB below it do not fit in memory\n"
text_too_much_ballast:
    .asciz " does not fit in memory above the hot set\n"
text_too_much_upper:
    .asciz " does not fit in memory above 4 GiB\n"
text_bad_end:
    .asciz " is not 0 to 5\n"
text_restarting:
    .asciz "reboot: Restarting system\n"
text_panic:
    .asciz "Kernel panic - not syncing: end=2\n"
text_halted:
    .asciz "reboot: System halted\n"
text_newline:
    .ascii "\n"
text_nothing:
    .byte 0
digits:
    .ascii "0123456789abcdef"
