#!/bin/sh
# PID 1 of a lab. Its mount namespace holds the disks of all hosts, so that a host can lose its power and keep
# its disk; its PID namespace encloses those of all hosts, so that the end of this process ends them all.
# usage: keeper.sh LAB (for the reader of ps)
set -eu

# Copies of these mounts would keep the network namespaces of dead hosts alive. This takes those below, too.
umount -l /run/netns
mount -t tmpfs -o mode=700 vpnfleet-lab /mnt
echo ready
exec >/dev/null 2>&1 </dev/null
sleep infinity &
wait  # waits for orphans as well: a lab leaves no zombies
