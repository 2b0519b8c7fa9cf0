# shellcheck shell=sh
# Makes a key with a self-signed certificate, whole or not at all. Arguments: directory, days that it is valid, name.
# Prints the certificate.
directory=$1 days=$2 name=$3
set -eu
umask 077
LC_ALL=C
export LC_ALL

# One run at a time; and another one may have begun to use what this one was going to replace.
exec 9<"${directory%/*}"
flock -w 60 9 || {
    echo 'Another run makes a certificate on this node.' >&2
    exit 1
}
[ "$(readlink "${directory%/*}/current")" != "${directory##*/}" ] || {
    echo 'Another run has changed the certificate meanwhile: run this one again.' >&2
    exit 1
}

rm -rf "$directory" "$directory.new"
mkdir "$directory.new"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days "$days" -subj "/CN=$name" \
    -keyout "$directory.new/key.pem" -out "$directory.new/certificate.pem" </dev/null >/dev/null 2>&1
mv "$directory.new" "$directory"
cat "$directory/certificate.pem"
