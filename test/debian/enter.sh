#!/bin/sh
# Starts Debian's incusd in namespaces that `unshare` has made, where it can reach
# nothing of the host: a read-only tree, /proc and /sys where nothing is set, five
# devices and a network of its own.
#
# Arguments are TREE VAR OS PID: TREE is the tree of Debian, VAR what incusd keeps,
# OS the directory with the socket of incus-osd, PID a file for the process id of
# incusd as the host sees it.
set -eu
tree=$1 var=$2 os=$3
read -r pid _ </proc/self/stat
echo "$pid" >"$4"

mount --bind "$tree" "$tree"
mount -o remount,bind,ro "$tree"
mount -t tmpfs -o mode=755 dev "$tree/dev"
for name in full null random urandom zero; do
    : >"$tree/dev/$name"
    mount --bind "/dev/$name" "$tree/dev/$name"
done
mount -t sysfs sysfs "$tree/sys"
mount -t cgroup2 cgroup2 "$tree/sys/fs/cgroup"
mount -o remount,bind,ro "$tree/sys/fs/cgroup"
mount -o remount,bind,ro "$tree/sys"
mount -t tmpfs -o mode=755 run "$tree/run"
mount -t tmpfs -o mode=1777 tmp "$tree/tmp"
mount --bind "$var" "$tree/var"
mkdir -p "$tree/var/lib/incus-os" "$tree/var/log" "$tree/var/cache" "$tree/run/incus-os"
mount --bind "$os" "$tree/run/incus-os"
mount -t proc proc "$tree/proc"
mount --bind "$tree/proc/sys" "$tree/proc/sys"
mount -o remount,bind,ro "$tree/proc/sys"
chroot "$tree" ip link set lo up
PATH=/usr/libexec/incus:/usr/sbin:/usr/bin:/sbin:/bin exec chroot "$tree" incusd --group incus-admin
