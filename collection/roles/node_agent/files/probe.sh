# shellcheck shell=sh
# Says what the node_agent role needs to know, one "name=value" a line, and changes nothing.
# Arguments: directory of releases, release, configuration, state, what runs, user, days before its end that a
# certificate is made anew, Python.
root=$1 release=$2 etc=$3 state=$4 running=$5 user=$6 renew=$7 python=$8
LC_ALL=C
export LC_ALL

[ "$(id -u)" = 0 ] || {
    echo 'The role node_agent needs root on the node: set "become" to true.' >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# "<sha256> <mode> <owner>:<group>", or nothing when there is no such file.
file() {
    [ -f "$1" ] || return 0
    sum=$(sha256sum <"$1")
    echo "${sum%% *} $(stat -c '%a %U:%G' "$1")"
}

directories() {
    for path in "$root" "$root/releases" "$etc" "$etc/tls" "$state"; do
        printf '%s ' "$(stat -L -c '%F:%a:%U:%G' "$path" 2>/dev/null)"
    done
}

# Whether the key and certificate in use can stay.
certificate() {
    if [ -s "$etc/tls/current/key.pem" ] &&
        openssl x509 -noout -checkend "$((renew * 86400))" -in "$etc/tls/current/certificate.pem" >/dev/null 2>&1; then
        echo good
    fi
}

others() {
    for path in "$root"/releases/* "$root"/releases/.[!.]* "$etc"/tls/* "$etc"/tls/.[!.]*; do
        [ -d "$path" ] && [ ! -L "$path" ] && printf '%s ' "$path"
    done
}

units() {
    for unit in vpnfleet-agent.socket vpnfleet-agent.service; do
        printf '%s %s ' "$(systemctl is-enabled "$unit" 2>/dev/null)" "$(systemctl is-active "$unit" 2>/dev/null)"
    done
}

main() {
    echo "python=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
    echo "openssl=$(has openssl && echo yes)"
    echo "user=$(id -u "$user" 2>/dev/null)"
    echo "directories=$(directories)"
    echo "release=$([ -e "$root/releases/$release/RELEASE" ] && echo yes)"
    echo "current=$(readlink "$root/current")"
    echo "secrets=$(file "$etc/secrets")"
    echo "slot=$(readlink "$etc/tls/current")"
    echo "certificate=$(certificate)"
    echo "pem=$(base64 -w 0 "$etc/tls/current/certificate.pem" 2>/dev/null)"
    echo "others=$(others)"
    if [ -d /run/systemd/system ]; then
        echo "systemd=yes"
        echo "socket_file=$(file /etc/systemd/system/vpnfleet-agent.socket)"
        echo "service_file=$(file /etc/systemd/system/vpnfleet-agent.service)"
        echo "units=$(units)"
    else
        echo "systemd=no"
        echo "socket_file="
        echo "service_file="
        echo "units="
    fi
    sed -n 's/^\([a-z]*\) \([^ ]*\)$/running_\1=\2/p' "$running" 2>/dev/null
    return 0
}

# The script itself comes on stdin: nothing that is called here may read of it.
main </dev/null
