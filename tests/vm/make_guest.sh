#!/bin/sh
# A Debian 12 with the kernel's NFS server, Samba, and clients of both, to be booted by qemu: make_guest.sh FOLDER
# Makes FOLDER/root.img, FOLDER/vmlinuz and FOLDER/initrd.img. Wants root, mmdebstrap, e2fsprogs and a Debian mirror:
# $MIRROR, else the one that apt uses here.
set -eu
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -m 1 '/debian/\?$' || true)}
for program in mmdebstrap mke2fs; do
    command -v "$program" >/dev/null || { echo "$program is not installed"; exit 1; }
done
mkdir -p "$folder"
root=$(mktemp -d "$folder/root.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT

packages="linux-image-cloud-amd64 python3 nfs-kernel-server nfs-common samba cifs-utils iproute2 kmod udev procps"
timeout 1200 mmdebstrap --quiet --variant=minbase --include="$packages" \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    bookworm "$root" "${mirror:-http://deb.debian.org/debian}"

install -m 755 "$here/guest_init.sh" "$root/sbin/guest-init"
mkdir -p "$root/srv/share" "$root/trial"
echo '/srv/share 127.0.0.1(rw,no_root_squash,sync,fsid=1,no_subtree_check)' >"$root/etc/exports"
cp "$here/smb.conf" "$root/etc/samba/smb.conf"
printf 'secret\nsecret\n' | chroot "$root" smbpasswd -a -s root

cp "$root"/boot/vmlinuz-* "$folder/vmlinuz"
cp "$root"/boot/initrd.img-* "$folder/initrd.img"
mke2fs -q -t ext4 -L guest -d "$root" "$folder/root.img" 3G
