# shellcheck shell=sh
# Says what the node role needs to know, one "name=value" a line, and changes nothing.
# Arguments: interface pattern, directory of configs, sysctl file, firewall file, unit file, unit.
pattern=$1 config_dir=$2 sysctl_file=$3 firewall_file=$4 unit_file=$5 unit=$6
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL

[ "$(id -u)" = 0 ] || {
    echo 'The role node needs root on the node: set "become" to true.' >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

family() {
    if has apt-get; then
        echo debian
    elif has dnf; then
        echo redhat
    else
        echo other
    fi
}

missing() {
    for program in wg nft ip sysctl; do
        has "$program" || printf '%s ' "$program"
    done
}

# Built in, loaded, or to be loaded on first use.
kernel() {
    if [ -e /sys/module/wireguard ] || modprobe --dry-run --quiet wireguard 2>/dev/null; then
        echo yes
    else
        echo no
    fi
}

# "<sha256> <mode> <owner>:<group>", or nothing when there is no such file.
file() {
    [ -f "$1" ] || return 0
    sum=$(sha256sum <"$1")
    echo "${sum%% *} $(stat -c '%a %U:%G' "$1")"
}

# /proc/net/dev, not /sys/class/net: the latter shows the namespace that mounted it.
instances() {
    sed -n 's/^ *\([^ :]*\):.*/\1/p' /proc/net/dev | while read -r link; do
        # shellcheck disable=SC2254 # a pattern on purpose
        case $link in $pattern) printf '%s ' "$link" ;; esac
    done
}

# Interfaces whose router advertisements must still be heard when the node forwards: those that brought the
# default route and are read by the kernel itself, and those that were found so before.
accept_ra() {
    {
        ip -6 route show default proto ra 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | while read -r link; do
            [ "$(cat "/proc/sys/net/ipv6/conf/$link/accept_ra")" -ge 1 ] && echo "$link"
        done
        sed -n 's|^net/ipv6/conf/\(.*\)/accept_ra = 2$|\1|p' "$sysctl_file" 2>/dev/null
    } | grep -x '[A-Za-z0-9_.-]*' | sort -u | tr '\n' ' '
}

# Whether the kernel runs with what the sysctl file says. A key the kernel lacks (no IPv6) does not count.
sysctl_live() {
    [ -f "$sysctl_file" ] || return 0
    while read -r key _ value; do
        case $key in '' | '#'*) continue ;; esac
        [ -e "/proc/sys/$key" ] || continue
        [ "$(cat "/proc/sys/$key")" = "$value" ] || { echo different; return; }
    done <"$sysctl_file"
    echo current
}

# Whether the kernel runs the table that the file holds. nft prints a table in another form than it was
# written, and each version in its own: so the file is loaded in an empty network namespace, printed there, and
# compared. Where none can be made, a table that is there counts as the right one.
firewall_live() {
    live=$(nft -s list table inet vpnfleet 2>/dev/null) || { echo missing; return; }
    # shellcheck disable=SC2016 # expands in the inner shell
    if wanted=$(unshare --net sh -c 'nft -f "$1" && nft -s list table inet vpnfleet' sh "$firewall_file" 2>/dev/null) &&
        [ "$wanted" != "$live" ]; then
        echo different
    else
        echo current
    fi
}

nftables_conf() {
    for path in /etc/sysconfig/nftables.conf /etc/nftables.conf; do
        [ -f "$path" ] && { echo "$path"; return; }
    done
}

main() {
    conf=$(nftables_conf)
    echo "family=$(family)"
    echo "missing=$(missing)"
    echo "kernel=$(kernel)"
    echo "userspace=$(has wireguard-go && echo yes || echo no)"
    echo "config_dir=$(stat -L -c '%F %a %U:%G' "$config_dir" 2>/dev/null)"
    echo "instances=$(instances)"
    echo "accept_ra=$(accept_ra)"
    echo "inotify=$(cat /proc/sys/fs/inotify/max_user_instances 2>/dev/null)"
    echo "sysctl_file=$(file "$sysctl_file")"
    echo "sysctl_live=$(sysctl_live)"
    echo "firewall_file=$(file "$firewall_file")"
    echo "firewall_live=$(firewall_live)"
    echo "nftables_conf=$conf"
    echo "include=$([ -n "$conf" ] && grep -m 1 '^include "/etc/nftables-vpnfleet' "$conf")"
    if [ -d /run/systemd/system ]; then
        echo "systemd=yes"
        echo "unit_file=$(file "$unit_file")"
        echo "unit=$(systemctl is-enabled "$unit" 2>/dev/null) $(systemctl is-active "$unit" 2>/dev/null)"
    else
        echo "systemd=no"
        echo "unit_file="
        echo "unit="
    fi
}

# The script itself comes on stdin: nothing that is called here may read of it.
main </dev/null
