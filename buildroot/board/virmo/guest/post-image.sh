#!/bin/sh
# post-image.sh IMAGES ARCH KERNEL: makes of kernel and root file system the bundle that agents download:
# virmo-guest-ARCH.tar.gz, with the manifest vm.yaml first. ARCH is the manifest's word: x86_64 or arm64.
set -eu

arch=$2
kernel=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# member FILE: what the manifest says of a member.
member() {
    printf '  file: %s\n  sha256: %s\n  size: %s\n' \
        "$1" "$(sha256sum "$work/$1" | cut -d ' ' -f 1)" "$(stat -c %s "$work/$1")"
}

cp "$BINARIES_DIR/$kernel" "$work/kernel"
cp "$BINARIES_DIR/rootfs.squashfs" "$work/root.squashfs"
{
    cat <<END
format: 1
name: virmo-guest
arch: $arch
type: pvh
vcpus: 1
memory: 134217728
cmdline: console=hvc0 root=/dev/xvda rootfstype=squashfs ro memhp_default_state=online panic=1
kernel:
END
    member kernel
    echo 'disks:'
    member root.squashfs | sed '1s/^  /- /'
    printf '  format: raw\n  device: xvda\n'
} >"$work/vm.yaml"
tar -C "$work" --owner=0 --group=0 --numeric-owner -czf "$BINARIES_DIR/virmo-guest-$arch.tar.gz" \
    vm.yaml kernel root.squashfs
