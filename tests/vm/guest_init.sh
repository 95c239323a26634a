#!/bin/bash
# The guest's first process: starts the servers, runs what the second disk holds, and switches off.
# The second disk is a tar of the product, the tests' support and `command`; its output goes to the serial port.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
exec >/dev/ttyS0 2>&1 </dev/null

mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -o remount,rw /
ip link set lo up
hostname guest
for module in nfsd nfs nfsv3 nfsv4 cifs; do modprobe $module; done

mkdir -p /run/rpc_pipefs /run/samba /var/lib/nfs/rpc_pipefs
mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
mount -t nfsd nfsd /proc/fs/nfsd
rpcbind
rpc.statd --no-notify
nfsdcld
exportfs -ra
rpc.nfsd 8
rpc.mountd
smbd -D

mkdir -p /trial
mount -t tmpfs -o size=500m trial /trial
tar xf /dev/vdb -C /trial
echo "GUEST UP: $(uname -r), $(cut -d' ' -f1 /proc/uptime) s"
(cd /trial && bash ./command)
echo "GUEST END: $?"
sync
echo o >/proc/sysrq-trigger
sleep 60
