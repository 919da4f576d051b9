#!/bin/sh
# post-image.sh IMAGES BOARD: makes the disk image of a board from what its folder holds:
#   boot-vars.cmd   (U-Boot) its addresses and arguments; with boot-xen.cmd becomes boot.scr
#   grub.cfg        (UEFI) goes where Buildroot's GRUB looks for it
#   genimage.cfg    partitions
# Buildroot calls it in its own top folder.
set -eu

board=$2
common=$(dirname "$0")

if [ -e "$board/boot-vars.cmd" ]; then
    cat "$board/boot-vars.cmd" "$common/boot-xen.cmd" >"$BINARIES_DIR/boot.cmd"
    "$HOST_DIR/bin/mkimage" -A arm64 -O linux -T script -C none -n "Xen dom0" \
        -d "$BINARIES_DIR/boot.cmd" "$BINARIES_DIR/boot.scr"
fi
if [ -e "$board/grub.cfg" ]; then
    install -D -m 0644 "$board/grub.cfg" "$BINARIES_DIR/efi-part/EFI/BOOT/grub.cfg"
fi
support/scripts/genimage.sh -c "$board/genimage.cfg"
