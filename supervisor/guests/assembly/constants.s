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
    .set DEVICE_FEATURES, 0x10
    .set DEVICE_FEATURES_SEL, 0x14
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
    .set NETWORK, 1                             # a DEVICE_ID
    .set NETWORK_MAC, 0x100                     # of its configuration (5.1.4)
    .set FEATURE_MAC, 1 << 5
    .set RECEIVE_QUEUE, 0
    .set TRANSMIT_QUEUE, 1
    .set BALLOON, 5
    .set BALLOON_TARGET, 0x100                  # num_pages and actual of its configuration (5.5.4)
    .set BALLOON_ACTUAL, 0x104
    .set FEATURE_VERSION_1, 1 << (32 - 32)      # in the features' upper half
    .set STATUS_ACKNOWLEDGE, 0x1                # each status holds the bits of those before it
    .set STATUS_DRIVER, 0x3
    .set STATUS_FEATURES_OK, 0xb
    .set STATUS_DRIVER_OK, 0xf
    .set MOST_PFNS, 256                         # page frame numbers at once: MAX_PAGES_IN_DESC of Firecracker's balloon

    .set IDT, KERNEL_BASE + 2 * PAGE            # memory behind the file's bytes: zero at boot
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

    .set FRAMES, 32                             # frames that can come before one is looked at; a power of 2
    .set FRAME_SIZE, PAGE - 16                  # of a buffer; the zeros that sum() reads behind a packet are in its page
    .set WRITABLE, 2                            # VIRTQ_DESC_F_WRITE
    .set DESCRIPTOR_FLAGS, 12
    .set RECEIVE, UPPER_PAGES + PAGE            # a queue of FRAMES entries, as give_queue wants it
    .set RECEIVE_AVAILABLE, RECEIVE + 16 * FRAMES
    .set RECEIVE_USED, RECEIVE_AVAILABLE + (4 + 2 * FRAMES + 7) / 8 * 8
    .set TRANSMIT, RECEIVE + PAGE / 2           # a queue of one entry
    .set ANSWER, RECEIVE + PAGE                 # a frame that is not written over the one that it answers
    .set BUFFERS, ANSWER + PAGE
    .set IMAGE_END, BUFFERS + FRAMES * PAGE

    .set TO_MAC, 12                             # offsets in a buffer: behind virtio_net_hdr, which is 12 bytes of zeros
    .set FROM_MAC, 18
    .set ETHERTYPE, 24
    .set PACKET, 26
    .set ETHERTYPE_ARP, 0x0608                  # numbers as they are loaded: packets have the high byte first
    .set ETHERTYPE_IP, 0x0008
    .set ARP_OF_ETHERNET_AND_IP, 0x00080100     # RFC 826: hardware 1, protocol 0x800
    .set ARP_REQUEST, 0x01000406                # address lengths 6 and 4, operation 1
    .set ARP_REPLY, 0x02000406
    .set ARP_OPERATION, PACKET + 4              # with the address lengths before it
    .set ARP_FROM_MAC, PACKET + 8
    .set ARP_FROM, PACKET + 14
    .set ARP_TO_MAC, PACKET + 18
    .set ARP_TO, PACKET + 24
    .set ARP_SIZE, 28
    .set IP_SIZE, 20                            # RFC 791: a header without options
    .set IP_VERSION, PACKET                     # with the header's length and the type of service
    .set IP_LENGTH, PACKET + 2
    .set IP_IDENTIFICATION, PACKET + 4          # with the fragment's flags and offset
    .set IP_FRAGMENT, PACKET + 6
    .set IP_TTL, PACKET + 8
    .set IP_PROTOCOL, PACKET + 9
    .set IP_CHECKSUM, PACKET + 10
    .set IP_FROM, PACKET + 12
    .set IP_TO, PACKET + 16
    .set ICMP, 1
    .set UDP, 17
    .set MESSAGE, PACKET + IP_SIZE
    .set MESSAGE_HEADER, 8                      # bytes, of ICMP echo as of UDP
    .set ECHO_REPLY, 0                          # RFC 792: type, and code 0
    .set ECHO_REQUEST, 8
    .set ICMP_CHECKSUM, MESSAGE + 2
    .set ICMP_IDENTIFIER, MESSAGE + 4           # with the sequence number
    .set FROM_PORT, MESSAGE                     # RFC 768
    .set TO_PORT, MESSAGE + 2
    .set UDP_LENGTH, MESSAGE + 4
    .set UDP_CHECKSUM, MESSAGE + 6
    .set TEXT, MESSAGE + MESSAGE_HEADER
    .set ECHO_PORT, 0x0700                      # RFC 862
    .set MOST_ASKED, 1024                       # bytes of a question that its answer repeats: a frame of 1500 holds it
