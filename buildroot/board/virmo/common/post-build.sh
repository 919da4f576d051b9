#!/bin/sh
# Last touches on the root file system of a dom0: settings shared with the Debian image, and links from the read-only
# root to the state partition. Buildroot calls it with the root file system's folder; more arguments are ignored.
set -eu

target=$1
repository=$(readlink -f "$(dirname "$0")/../../../..")
shared=$repository/image/files/dom0

# Settings of the Debian image that are right for every dom0. They are put in place here and not by a package,
# because packages install files of the same names.
while read -r file; do
    install -D -m 0644 "$shared/$file" "$target/$file"
done <<END
etc/modprobe.d/virmo.conf
etc/modules-load.d/virmo.conf
etc/systemd/journald.conf.d/virmo.conf
etc/systemd/network/10-xenbr0.netdev
etc/systemd/network/10-xenbr0.network
etc/systemd/network/20-uplink.network
etc/xen/xl.conf
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
