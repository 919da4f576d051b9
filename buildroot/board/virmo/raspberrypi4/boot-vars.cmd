# Raspberry Pi 4. The firmware has put memory size and MAC into the device tree it loaded: dtb stays empty.
# Xen's console is the serial port that the tree names (pins 8 and 10, 115200 8N1).
setenv dtb
setenv dtb_addr 0x02600000
setenv xen_addr 0x02c00000
setenv kernel_addr 0x03000000
setenv xen_args "console=dtuart dom0_mem=1024M dom0_max_vcpus=2 bootscrub=0"
setenv dom0_args "console=hvc0 root=PARTUUID=56694d4f-02 rootfstype=squashfs ro rootwait"
