#!/bin/sh
# post-image.sh IMAGES BOARD: makes the disk image of a board from what its folder holds:
#   boot-vars.cmd   (U-Boot) its addresses and arguments; with boot-xen.cmd becomes boot.scr
#   grub-xen.cfg    (UEFI, two system slots) how Xen is started; goes into the Debian image's grub.cfg, which counts
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
if [ -e "$board/grub-xen.cfg" ]; then
    mkdir -p "$BINARIES_DIR/efi-part/EFI/BOOT" "$BINARIES_DIR/virmo"
    sed -e "/@XEN@/{r $board/grub-xen.cfg" -e 'd}' "$common/../../../../image/files/board-grub.cfg" \
        >"$BINARIES_DIR/efi-part/EFI/BOOT/grub.cfg"
    # GRUB's environment block: 1024 bytes, never moved. Slot a is good, none is on trial.
    {
        printf '# GRUB Environment Block\nslot=a\ntry=\ntries=0\n'
        printf '%01024d' 0 | tr 0 '#'
    } | head -c 1024 >"$BINARIES_DIR/virmo/grubenv"
fi
support/scripts/genimage.sh -c "$board/genimage.cfg"
