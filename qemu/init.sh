#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
#
# PID 1 of the guest (/sbin/kpw-init in the image). The root is read-only; an
# overlay on tmpfs makes it writable. The second disk is a tar with the
# payload: "command" is what to run, "tty" (if there) says that a person sits
# at the virtio console.
#
# The console belongs to the kernel alone. What the command prints leaves by
# the virtio port kpw.output, what it found by kpw.results. A port can be open
# only once at a time, so this script never holds one while the command runs.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb

busybox mount -t tmpfs -o mode=755 kpw /mnt
busybox mkdir /mnt/upper /mnt/work /mnt/root
busybox mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work kpw /mnt/root
cd /mnt/root
busybox mount -t devtmpfs dev dev
busybox pivot_root . mnt
busybox umount -l /mnt

busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t tmpfs -o mode=755,nosuid,nodev run /run
busybox mkdir -p /dev/pts /dev/shm /dev/virtio-ports /run/lock /run/netns /payload
busybox mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
busybox mount -t tmpfs -o mode=1777 shm /dev/shm
busybox mount -t tmpfs -o mode=755 payload /payload
# Not every configuration has these.
{
	busybox mount -t debugfs debug /sys/kernel/debug
	busybox mount -t tracefs trace /sys/kernel/tracing
	busybox mount -t cgroup2 cgroup /sys/fs/cgroup
	busybox mount -t bpf bpf /sys/fs/bpf
	busybox ip link set lo up
} 2>/dev/null
busybox ln -s /proc/self/fd /dev/fd
busybox ln -s /proc/self/fd/0 /dev/stdin
busybox ln -s /proc/self/fd/1 /dev/stdout
busybox ln -s /proc/self/fd/2 /dev/stderr

# There is no udev to name the ports.
for port in /sys/class/virtio-ports/*; do
	read -r name 2>/dev/null <"$port/name" || continue
	busybox ln -s "/dev/${port##*/}" "/dev/virtio-ports/$name"
done
results=/dev/virtio-ports/kpw.results
output=/dev/virtio-ports/kpw.output

read -r uptime _ </proc/uptime
read -r release </proc/sys/kernel/osrelease
echo "{\"kpw\":\"boot\",\"uptime\":$uptime,\"release\":\"$release\"}" >$results

busybox tar -xf /dev/vdb -C /payload || echo "kpw-init: the payload cannot be unpacked" >/dev/console
cd /root
if [ -e /payload/tty ]; then
	busybox setsid -c /payload/command <>/dev/hvc0 >&0 2>&1
	status=$?
else
	/payload/command </dev/null >$output 2>&1
	status=$?
fi

# Whoever is left could still hold the port open.
kill -KILL -1
echo "{\"kpw\":\"exit\",\"status\":$status}" >$results
busybox reboot -f
