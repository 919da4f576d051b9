# Kria KV260 (ZynqMP). Xen's console is the serial port of the micro USB connector (115200 8N1).
setenv dtb zynqmp-smk-k26-revA-sck-kv-g-revB.dtb
setenv dtb_addr 0x02000000
setenv xen_addr 0x03000000
setenv kernel_addr 0x04000000
setenv xen_args "console=dtuart dtuart=serial1 dom0_mem=1024M dom0_max_vcpus=2 bootscrub=0"
setenv dom0_args "console=hvc0 root=PARTUUID=56694d4f-02 rootfstype=squashfs ro rootwait clk_ignore_unused"
