#!/bin/sh
# post-build.sh TARGET BOARD: last touches on the root file system of a dom0: settings shared with the Debian image, links
# from the read-only root to the state partition and, on a board with two system slots, what its boot loader reads there.
set -eu

target=$1
board=$2
files=$(readlink -f "$(dirname "$0")/../../../..")/image/files

# Settings of the Debian images that are right for every dom0. They are put in place here and not by a package,
# because packages install files of the same names.
while read -r mode file; do
    install -D -m "$mode" "$files/$file" "$target/${file#*/}"
done <<END
0644 dom0/etc/modprobe.d/virmo.conf
0644 dom0/etc/modules-load.d/virmo.conf
0644 dom0/etc/systemd/journald.conf.d/virmo.conf
0644 dom0/etc/systemd/network/10-xenbr0.netdev
0644 dom0/etc/systemd/network/10-xenbr0.network
0644 dom0/etc/systemd/network/20-uplink.network
0644 dom0/etc/xen/xl.conf
0644 board/etc/systemd/system.conf.d/watchdog.conf
0644 board/etc/systemd/system/emergency.service.d/board.conf
0644 board/etc/systemd/system/multi-user.target.d/board.conf
0644 board/etc/systemd/system/rescue.service.d/board.conf
0644 board/etc/systemd/system/virmo-agent.service.d/board.conf
0644 board/etc/systemd/system/virmo-grow-state.service
0644 board/etc/systemd/system/virmo-provision.service
0644 board/etc/systemd/system/virmo-slot-good.service
0644 board/etc/systemd/system/virmo-trial.service
0644 board/etc/systemd/system/virmo-trial.timer
0755 board/usr/lib/virmo/grow-state
0755 board/usr/lib/virmo/provision
END

# link PATH STATE: PATH on the root leads to STATE on the state partition.
link() {
    rm -rf "${target:?}/$1"
    mkdir -p "$(dirname "$target/$1")"
    ln -s "$2" "$target/$1"
}
link etc/virmo-agent /var/lib/virmo-config
link etc/dropbear /var/lib/dropbear
link root/.ssh /var/lib/virmo-ssh
mkdir -p "$target/boot"

# A slot is a whole system: Xen and dom0's kernel are in it, so that they change and go back together with the rest.
if [ -e "$board/grub-xen.cfg" ]; then
    for file in xen bzImage; do
        install -D -m 0644 "$BINARIES_DIR/$file" "$target/usr/lib/virmo/system/$file"
    done
fi
