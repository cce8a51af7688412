# What pagewalker knows of its memory, of boot_params, ACPI, the APICs and virtio.

    .set KERNEL_BASE, 0x1000000
    .set SCRATCH_BASE, 0x1800000
    .set SCRATCH_END, SCRATCH_BASE + 16 * 4096
    .set HOT_BASE, 0x2000000
    .set GOLDEN, 0x9E3779B97F4A7C15
    .set PAGE, 4096
    .set MIB, 1 << 20
    .set LAST_WORD, PAGE - 8
    .set UNROLL, 8                              # pages; divides a MiB
    .set MAX_HOT_MIB, 992                       # HOT_BASE + this is the end of the identity map
    .set MAPPED_END, 1 << 30
    .set UPPER_BASE, 4 << 30
    .set MAX_UPPER_MIB, 1024                    # one page directory maps no more

    .set MOST_END, 5

    .set OPTION_NAME, 8                         # an option: its value, then its name and '=', zero-terminated
    .set OPTION_SIZE, 24

    .set SERIAL, 0x3f8
    .set KEYBOARD, 0x64                         # the i8042's command port
    .set RESET_CPU, 0xfe
    .set ACPI_RSDP_ADDR, 0x70                   # offsets in boot_params (arch/x86/include/uapi/asm/bootparam.h)
    .set E820_ENTRIES, 0x1e8
    .set CMD_LINE_PTR, 0x228
    .set E820_TABLE, 0x2d0
    .set E820_ENTRY_SIZE, 20
    .set E820_RAM, 1
    .set SDT_HEADER_SIZE, 36                    # ACPI 6.5, 5.2: offsets in its tables
    .set SDT_LENGTH, 4
    .set RSDP_XSDT, 24
    .set FADT_X_DSDT, 140

    .set AML_ADDR_SIZE, 17                      # bytes of ADDR, Package{DWord, DWord}

    .set IOAPIC, 0xfec00000
    .set IOAPIC_DATA, 0x10
    .set IOAPIC_REDIRECTION, 0x10               # register of pin 0's low half; two registers a pin
    .set LAPIC, 0xfee00000
    .set LAPIC_EOI, 0xb0
    .set LAPIC_SPURIOUS, 0xf0
    .set LAPIC_ENABLED, 0x100
    .set PRESENT_WRITABLE, 0x3
    .set LARGE_PAGE, 0x83                       # present, writable, 2 MiB
    .set LARGE_DEVICE_PAGE, 0x93                # present, writable, not cached, 2 MiB
    .set LARGE_PAGE_SHIFT, 21
    .set WAKE_VECTOR, 0x2f                      # no exception's; older APICs set the low 4 bits of the spurious vector

    .set VIRTIO_MAGIC, 0x74726976               # virtio 1.2, 4.2.2: "virt", and offsets in a device's registers
    .set DEVICE_ID, 0x8
    .set DRIVER_FEATURES, 0x20
    .set DRIVER_FEATURES_SEL, 0x24
    .set QUEUE_SEL, 0x30
    .set QUEUE_SIZE_MAX, 0x34
    .set QUEUE_SIZE, 0x38
    .set QUEUE_READY, 0x44
    .set QUEUE_NOTIFY, 0x50
    .set STATUS, 0x70
    .set QUEUE_DESCRIPTORS, 0x80
    .set QUEUE_AVAILABLE, 0x90
    .set QUEUE_USED, 0xa0
    .set BALLOON, 5                             # its DEVICE_ID
    .set BALLOON_TARGET, 0x100                  # num_pages and actual of its configuration (5.5.4)
    .set BALLOON_ACTUAL, 0x104
    .set FEATURE_VERSION_1, 1 << (32 - 32)      # in the features' upper half
    .set STATUS_ACKNOWLEDGE, 0x1                # each status holds the bits of those before it
    .set STATUS_DRIVER, 0x3
    .set STATUS_FEATURES_OK, 0xb
    .set STATUS_DRIVER_OK, 0xf
    .set MOST_PFNS, 256                         # page frame numbers at once: MAX_PAGES_IN_DESC of Firecracker's balloon

    .set IDT, KERNEL_BASE + PAGE                # memory behind the file's bytes: zero at boot
    .set NUMBER_END, IDT + PAGE / 2             # digits are put before it; itself it stays zero
    .set STACK_TOP, IDT + PAGE
    .set DEVICE_PAGES, STACK_TOP
    .set PFNS, DEVICE_PAGES + PAGE              # the one buffer of all queues
    .set QUEUES, PFNS + MOST_PFNS * 4           # each a descriptor, an available ring and a used ring of one entry
    .set QUEUE_SHIFT, 6
    .set DESCRIPTOR_LENGTH, 8                   # offsets in a queue
    .set AVAILABLE, 16
    .set AVAILABLE_INDEX, AVAILABLE + 2
    .set USED, 24
    .set USED_INDEX, USED + 2
    .set INFLATE, QUEUES
    .set DEFLATE, QUEUES + (1 << QUEUE_SHIFT)
    .set UPPER_PAGES, PFNS + PAGE
    .set IMAGE_END, UPPER_PAGES + PAGE
