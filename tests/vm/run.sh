#!/bin/bash
# Files on real NFS and SMB mounts: boots a Debian under qemu and runs trial.py in it. Wants root, qemu and mmdebstrap.
#   tests/vm/run.sh [--short] [MOUNT.PLACE …]
# $GUEST: the folder of the guest, made where it is missing; $ACCEL: qemu's accelerator; $SECONDS_AT_MOST.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
guest=${GUEST:-/var/tmp/dropscribe-guest}
seconds=${SECONDS_AT_MOST:-7200}
command -v qemu-system-x86_64 >/dev/null || { echo "qemu-system-x86_64 is not installed"; exit 1; }
[ -e "$guest/root.img" ] || "$here/make_guest.sh" "$guest"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=$repository/.venv/bin/python
"$python" -m pip --version >/dev/null 2>&1 || python=python3
# The guest's Python is Debian 12's.
"$python" -m pip -qq install --root-user-action ignore --disable-pip-version-check --target "$work/disk/site" --no-deps --only-binary=:all: \
    --python-version 3.11 -r "$repository/locks/base.txt"
cp -r "$repository/daemon/dropscribe" "$work/disk/site/"
cp -r "$repository/tests/support" "$here"/*.py "$work/disk/"
printf 'PYTHONPATH=/trial/site:/trial python3 trial.py %s\n' "$*" >"$work/disk/command"
tar cf "$work/disk.tar" -C "$work/disk" .

# Software emulation, because not every machine with /dev/kvm can use it: ACCEL=kvm is some five times as fast.
timeout "$seconds" qemu-system-x86_64 -accel "${ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m 2500 -no-reboot \
    -nic none -display none -monitor none -serial stdio \
    -kernel "$guest/vmlinuz" -initrd "$guest/initrd.img" \
    -append "console=ttyS0 root=/dev/vda rw init=/sbin/guest-init quiet mitigations=off" \
    -drive "file=$guest/root.img,if=virtio,format=raw,snapshot=on" \
    -drive "file=$work/disk.tar,if=virtio,format=raw,readonly=on" </dev/null | tee "$work/console"
grep -q '^GUEST END: 0' "$work/console"
