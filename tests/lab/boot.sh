#!/bin/sh
# PID 1 of a lab host, in namespaces of its own (network, mount, PID, UTS).
# usage: boot.sh LAB HOST ADDRESS/LENGTH ADDRESS6/LENGTH GATEWAY GATEWAY6
set -eu

disk=/mnt/$2
cd /

# Copies of these mounts would keep the namespaces of dead hosts alive.
umount -R -l /run/netns

# The host sees this machine's system and writes to a disk of its own.
for directory in etc usr var; do
    mount -t overlay overlay "/$directory" \
        -o "lowerdir=/$directory,upperdir=$disk/$directory/upper,workdir=$disk/$directory/work"
done
mount --bind "$disk/root" /root
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/lock /run/sshd
mkdir -m 700 /run/wireguard
mount -t proc proc /proc
mount -t sysfs sysfs /sys
umount -l /mnt

hostname "$2"

# A new network namespace takes these from the machine; a fresh host forwards nothing.
echo 0 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
ip -batch - <<END
link set lo up
link set eth0 up
address add $3 dev eth0
address add $4 dev eth0 nodad
route add default via $5
route add default via $6
END

# As a booting machine does; only what belongs to the network namespace, for the rest is the machine's own.
if command -v sysctl >/dev/null; then
    sysctl --quiet --system --pattern '^net\.' >/dev/null 2>&1 || :
fi

if [ -e /etc/ssh/ssh_host_ed25519_key ]; then
    sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow  # sshd without PAM refuses a locked account (`!`) its key
    "$(command -v sshd)" -E /var/log/sshd.log
    # It goes into the background first and listens then; its pid file comes last.
    tries=500
    until [ -s /run/sshd.pid ]; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            cat /var/log/sshd.log
            exit 1
        fi
        sleep 0.02
    done
fi

echo ready
exec >/dev/null 2>&1 </dev/null
sleep infinity &
wait  # waits for orphans as well: a host has no zombies
