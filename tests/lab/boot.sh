#!/bin/sh
# PID 1 of a lab host, in namespaces of its own (network, mount, PID, UTS).
# usage: boot.sh LAB HOST ADDRESS/LENGTH ADDRESS6/LENGTH GATEWAY GATEWAY6
set -eu

disk=/mnt/$2
cd /

# The host sees this machine's system and writes to a disk of its own. One process does all mounts, since fifty
# hosts may start at a time. They are called "host", as mount --all leaves out what is mounted by the same name.
overlay() {
    layers=lowerdir=/$1,upperdir=$disk/$1/upper,workdir=$disk/$1/work
    echo "host /$1 overlay $layers 0 0"
}
cat >"$disk/fstab" <<END
$(overlay etc)
$(overlay usr)
$(overlay var)
$disk/root /root none bind 0 0
host /tmp tmpfs mode=1777 0 0
host /run tmpfs mode=755 0 0
host /proc proc defaults 0 0
host /sys sysfs defaults 0 0
END
mount --all --fstab "$disk/fstab"
mkdir -m 755 /run/lock /run/sshd
mkdir -m 700 /run/wireguard
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
