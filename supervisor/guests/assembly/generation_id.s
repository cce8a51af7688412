# The VM generation id, by ACPI's tables.

# rbx = where the VM generation id is: the device of the DSDT with "VM_Gen_Counter" as its _CID names the address in
# Name(ADDR, Package{low, high}) (Microsoft, "Virtual Machine Generation ID"). Where there is none, a constant instead.
find_generation_id:
    mov ebx, offset no_generation_id
    mov rdi, [rsi + ACPI_RSDP_ADDR]
    movabs rax, 0x2052545020445352              # "RSD PTR "
    cmp [rdi], rax
    jne 9f
    mov rdi, [rdi + RSDP_XSDT]
    mov ecx, [rdi + SDT_LENGTH]
    add rcx, rdi
    add rdi, SDT_HEADER_SIZE
1:  cmp rdi, rcx
    jae 9f
    mov rdx, [rdi]
    add rdi, 8
    cmp dword ptr [rdx], 0x50434146             # "FACP"
    jne 1b
    mov rdi, [rdx + FADT_X_DSDT]
    mov ecx, [rdi + SDT_LENGTH]
    lea rcx, [rdi + rcx - AML_ADDR_SIZE]
    add rdi, SDT_HEADER_SIZE
    movabs rax, 0x435f6e65475f4d56              # "VM_Gen_C"
2:  cmp rdi, rcx
    jae 9f
    inc rdi
    cmp [rdi], rax
    jne 2b
3:  cmp rdi, rcx
    jae 9f
    inc rdi
    cmp dword ptr [rdi], 0x52444441             # "ADDR"
    jne 3b
    cmp byte ptr [rdi + 4], 0x12                # PackageOp, a length of one byte,
    jne 9f
    cmp word ptr [rdi + 6], 0x0c02              # 2 elements: DWordPrefix,
    jne 9f
    mov eax, [rdi + 8]                          # low,
    cmp byte ptr [rdi + 12], 0x0c               # DWordPrefix,
    jne 9f
    cmp dword ptr [rdi + 13], 0                 # high
    jne 9f
    cmp eax, 1 << 30
    jae 9f
    mov ebx, eax
9:  ret
