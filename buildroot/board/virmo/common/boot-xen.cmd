# Second half of every Arm board's boot script (U-Boot): loads Xen and dom0's kernel, tells Xen of both, starts Xen.
# The first half, the board's boot-vars.cmd, sets
#   xen_addr kernel_addr dtb_addr   where to load; Xen's must be a multiple of 2 MiB
#   dtb                             file name, or empty: the tree that the firmware gave (fdt_addr)
#   xen_args dom0_args              command lines
# devtype, devnum and distro_bootpart are set by U-Boot: where it found this script.

if test -n "${dtb}"; then
    load ${devtype} ${devnum}:${distro_bootpart} ${dtb_addr} ${dtb}
    fdt addr ${dtb_addr}
else
    fdt move ${fdt_addr} ${dtb_addr} 0x40000
fi
fdt resize 0x1000

load ${devtype} ${devnum}:${distro_bootpart} ${xen_addr} xen
load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr} Image

fdt set /chosen "#address-cells" <2>
fdt set /chosen "#size-cells" <2>
fdt set /chosen xen,xen-bootargs "${xen_args}"
fdt mknod /chosen module@0
fdt set /chosen/module@0 compatible "multiboot,kernel" "multiboot,module"
fdt set /chosen/module@0 reg <0x0 ${kernel_addr} 0x0 0x${filesize}>
fdt set /chosen/module@0 bootargs "${dom0_args}"

booti ${xen_addr} - ${dtb_addr}
